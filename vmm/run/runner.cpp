#include "vmm/run/runner.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "vmm/base/log.h"
#include "vmm/host/signals.h"
#include "vmm/host/terminal.h"
#include "vmm/run/live_update.h"
#include "vmm/run/warden.h"
#include "vmm/spec/network.h"

namespace snug {
namespace {

// Hardware KVM shows its module; anything else is tried out.
bool has_hardware_kvm() {
  for (const char* module : {"/sys/module/kvm_intel", "/sys/module/kvm_amd"})
    if (::access(module, F_OK) == 0) return true;
  return false;
}

Result<std::array<UniqueFd, 2>> packet_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return fail_errno(errno, "socketpair");
  return std::array{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// For tests: where the machine's process notes its system calls. A user who may not write there does not.
UniqueFd record_of_calls() {
  const char* path = std::getenv("SNUG_JAIL_AUDIT");  // NOLINT(concurrency-mt-unsafe): nothing sets it
  if (path == nullptr) return UniqueFd();
  auto file = open_file(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  return file ? std::move(*file) : UniqueFd();
}

}  // namespace

Result<std::unique_ptr<Runner>> Runner::create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options) {
  std::unique_ptr<Runner> runner(new Runner(kvm, spec, std::move(options)));
  SNUG_TRY(runner->open());
  return runner;
}

// Before anything is opened: memory counts where it is first taken.
Result<void> Runner::limit() {
  CgroupScope::Request request{cgroup_limits(spec_), spec_.name, {}};
  if (!request.limits.any()) return {};
  if (options_.directory != nullptr)
    request.about_to_make = [directory = options_.directory](const std::string& folder) {
      return directory->remember_cgroup(folder);
    };
  scope_ = SNUG_TRY(CgroupScope::enter({cgroup_files_}, request));
  log_info("limits: in the control group {}", scope_->path());
  return {};
}

Result<void> Runner::open() {
  SNUG_TRY(limit());
  // A signal ends us as any program, as long as we wait for what comes through a pipe.
  ends_ = SNUG_TRY(HostEnds::open(spec_, options_.snapshot));
  if (!options_.snapshot_of.empty()) {
    Spec before = spec_;
    before.name = options_.snapshot_of;
    for (const NetSpec& nic : network_interfaces(before)) ends_->former_addresses.push_back(*nic.mac);
  }
  const MachineStarts starts =
      options_.commands != nullptr ? MachineStarts::kCommands : MachineStarts::kSystem;
  // A system has a socket device for it, which nobody is to have who has not asked for it.
  const bool with_template = starts == MachineStarts::kCommands ? spec_.templates != TemplateMode::kFalse
                                                                : spec_.templates == TemplateMode::kTrue;
  if (with_template && options_.snapshot.empty()) ends_->open_template(spec_, starts);
  loop_ = SNUG_TRY(EventLoop::create());
  SignalWatch::block(SignalWatch::of_a_run(options_.commands != nullptr));
  HostEnds::Options ends;
  ends.directory = options_.directory;
  ends.commands = options_.commands != nullptr;
  ends.background = options_.background;
  ends.on_quit = [this] { machine_process_->quit(); };
  SNUG_TRY(ends_->open_streams(spec_, *loop_, ends));
  if (options_.directory != nullptr) control_ = SNUG_TRY(options_.directory->listen("control.sock"));
  native_ = has_hardware_kvm();
  return {};
}

Result<MachineEnd> Runner::run() {
  const std::string& pty = ends_->console->pty_path();
  if (!pty.empty()) log_line(LogLevel::kWarn, "the console is " + pty);
  auto calls = SNUG_TRY(packet_pair());
  auto news = SNUG_TRY(packet_pair());
  const bool own_terminal = is_own_terminal(STDIN_FILENO);
  const int known_pid = ::getpid();
  record_ = record_of_calls();
  std::fflush(nullptr);
  std::unique_ptr<ShareServer> share_server;
  if (!ends_->shares.empty())
    share_server = SNUG_TRY(ShareServer::start(spec_, ends_->shares, options_.leave_terminal, record_.get()));
  if (share_server) jail_missing_ = share_server->jail_missing();
  if (control_)
    front_ = SNUG_TRY(
        FrontFiles::open(scope_ ? scope_->path() : "", ::getpid(), share_server ? share_server->pid() : -1));
  auto split = SNUG_TRY(
      jail::split(spec_.jail == JailMode::kOff ? jail::Confinement::kNone : jail::Confinement::kNamespaces));
  if (split.child == 0) {
    calls[0].reset();
    news[0].reset();
    tell_own_terminal(own_terminal);
    be_the_machine(split, std::move(calls[1]), std::move(news[1]), known_pid);
  }
  calls[1].reset();
  news[1].reset();
  record_.reset();
  front_ = {};
  Warden::Machine machine{split.child, std::move(split.process), std::move(split.lifeline),
                          std::move(calls[0]), std::move(news[0])};
  for (ShareEnd& share : ends_->shares) share.device.reset();
  Warden::Duties duties{.ends = *ends_,
                        .directory = options_.directory,
                        .share_server = share_server.get(),
                        .commands = options_.commands != nullptr,
                        .started = std::move(options_.started),
                        .ending = std::move(options_.ending),
                        .killed_for_memory = {},
                        .updatable = {}};
  // Its socket is for the next process of the machine.
  if (control_)
    duties.updatable = {.spec = &spec_,
                        .control = control_.get(),
                        .cgroup = scope_ ? scope_->path() : "",
                        .background = options_.background};
  if (scope_) duties.killed_for_memory = [this] { return scope_->killed_for_memory() > 0; };
  const auto warden = SNUG_TRY(Warden::create(std::move(machine), std::move(duties)));
  return warden->run();
}

// --- for another's warden ----------------------------------------------------------------------------------

Result<std::unique_ptr<Runner>> Runner::adopt(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options,
                                              const Papers& papers, HandedEnds handed) {
  std::unique_ptr<Runner> runner(new Runner(kvm, spec, std::move(options)));
  runner->ends_ = SNUG_TRY(HostEnds::adopt(spec, handed));
  runner->loop_ = SNUG_TRY(EventLoop::create());
  SignalWatch::block(SignalWatch::of_a_run(papers.commands));
  HostEnds::Options ends;
  ends.directory = runner->options_.directory;
  ends.commands = papers.commands;
  ends.background = papers.background;
  SNUG_TRY(runner->ends_->adopt_streams(spec, *runner->loop_, ends, handed, papers.vsock_path));
  runner->control_ = std::move(handed.control);
  runner->handed_ = std::move(handed);
  runner->known_pid_ = papers.pid;
  runner->native_ = has_hardware_kvm();
  runner->record_ = record_of_calls();
  runner->front_ = SNUG_TRY(FrontFiles::open(papers.cgroup, papers.pid, -1));
  return runner;
}

Error Runner::hand_to_warden() {
  std::fflush(nullptr);
  const auto made =
      jail::split(spec_.jail == JailMode::kOff ? jail::Confinement::kNone : jail::Confinement::kNamespaces,
                  jail::ParentIs::kCallersParent);
  if (!made) return made.error();
  const jail::Split& split = *made;
  if (split.child == 0) {
    handed_.talk.reset();
    be_the_machine(split, std::move(handed_.calls), std::move(handed_.news), known_pid_);
  }
  const UpdateTalk process{static_cast<uint32_t>(UpdateWord::kProcess), split.child};
  const UpdateTalk lifeline{static_cast<uint32_t>(UpdateWord::kLifeline), 0};
  int error = warden::send(handed_.talk.get(), process, {}, split.process.get());
  if (error == 0) error = warden::send(handed_.talk.get(), lifeline, {}, split.lifeline.get());
  std::_Exit(error == 0 ? 0 : kStatusFailure);
}

void Runner::be_the_machine(const jail::Split& split, UniqueFd calls, UniqueFd news, int known_pid) {
  auto warden = WardenLink::create(*loop_, std::move(calls), std::move(news));
  if (!warden) ::_exit(kStatusFailure);
  machine_process_ = std::make_unique<MachineProcess>(
      MachineProcess::Given{.kvm = kvm_,
                            .native = native_,
                            .spec = spec_,
                            .loop = *loop_,
                            .ends = *ends_,
                            .warden = **warden,
                            .split = split,
                            .commands = options_.commands,
                            .health = options_.health,
                            .directory = options_.directory,
                            .record = std::move(record_),
                            .front = std::move(front_),
                            .control = std::move(control_),
                            .known_pid = known_pid,
                            .jail_missing = std::move(jail_missing_),
                            .takes_over = known_pid_ != 0,
                            .program = options_.program,
                            .leave_terminal = std::move(options_.leave_terminal),
                            .ended = std::move(options_.ended)});
  machine_process_->run();
  std::fflush(nullptr);
  // What has a name is the warden's to remove.
  std::_Exit(0);
}

}  // namespace snug
