#include "vmm/run/machine_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "vmm/base/log.h"
#include "vmm/base/setup_memory.h"
#include "vmm/core/lost_pages.h"
#include "vmm/host/terminal.h"
#include "vmm/jail/confine.h"
#include "vmm/jail/record.h"
#include "vmm/run/saved_commands.h"

namespace snug {
namespace {

// A guest that ends before has no use for it: what it dropped it would soon touch again.
constexpr std::chrono::seconds kSettled{1};

}  // namespace

void MachineProcess::run() {
  auto begun = begin();
  if (!begun) {
    given_.ends.console->suspend_terminal();
    // Nobody else has the machine any more.
    if (taken_over_) return given_.warden.ended(kStatusFailure, begun.error().text());
    return given_.warden.failed(begun.error());
  }
  if (auto ran = given_.loop.run(); !ran) log_error("{}", ran.error().text());
  end();
}

Result<void> MachineProcess::begin() {
  MachineControl::Own own{.pid = given_.known_pid,
                          .smaps = SNUG_TRY(open_file("/proc/self/smaps", O_RDONLY)),
                          .jail_missing = {},
                          .front = std::move(given_.front),
                          .program = given_.program};
  pagemap_ = open_pagemap();
  // A shell's files, a supervisor's sockets, and folders of either.
  SNUG_TRY(close_inherited());
  given_.ends.go_behind(given_.warden);
  if (given_.directory != nullptr) given_.directory->leave();
  if (std::ranges::any_of(given_.ends.disks, &DiskFile::is_pmem)) SNUG_TRY(watch_lost_pages(STDERR_FILENO));
  SNUG_TRY(lock_in());
  own.created_at = static_cast<uint64_t>(std::time(nullptr));
  if (given_.takes_over) {
    SNUG_TRY(take_over());
    own.created_at = former_.created_at;
  }

  life_ = SNUG_TRY(LifeCycle::create({.kvm = given_.kvm,
                                      .spec = given_.spec,
                                      .loop = given_.loop,
                                      .ends = given_.ends,
                                      .warden = given_.warden,
                                      .commands = given_.commands,
                                      .health = given_.health,
                                      .thread_begins = thread_begins_,
                                      .before_first_run = [this] { return before_first_run(); },
                                      .native = given_.native,
                                      .pagemap = pagemap_,
                                      .former = former_,
                                      .created_at = own.created_at}));
  WardenLink::News news;
  news.signal = [this](int number, bool own_terminal) { on_signal(number, own_terminal); };
  news.network_connected = [this](size_t interface, UniqueFd socket) {
    life_->networks().on_connected(interface, std::move(socket));
  };
  news.network_lost = [this](size_t interface) { life_->networks().on_lost(interface); };
  news.update_ready = [this] { life_->on_update_ready(); };
  news.update_failed = [this](const std::string& why) { life_->on_update_failed(why); };
  // Nobody is left to be told anything, and this process is about to be killed.
  news.gone = [] { ::_exit(kStatusFailure); };
  given_.warden.on_news(std::move(news));
  if (given_.control) {
    own.jail_missing = jail_missing_;
    target_ =
        std::make_unique<MachineControl>(std::move(own), given_.spec, *given_.directory, given_.ends, *life_);
    control_ = SNUG_TRY(ControlServer::create(given_.loop, std::move(given_.control), *target_));
  }
  settled_ = SNUG_TRY(given_.loop.timer(drop_setup_memory));
  SNUG_TRY(life_->begin());
  if (!taken_over_) warden_cpu_ns_ = given_.warden.started();
  settled_.arm(kSettled);
  return {};
}

// What the loop's thread will not be able to do any more.
Result<void> MachineProcess::before_first_run() {
  // In the warden as well: a guest that takes this process over is not to make the kernels of others.
  given_.ends.kernel_cache.seal();
  given_.warden.seal_kernels();
  if (given_.leave_terminal) given_.leave_terminal();
  if (thread_begins_) thread_begins_(ThreadKind::kLoop);
  if (!given_.takes_over) return {};
  warden_cpu_ns_ = SNUG_TRY(given_.warden.take_over());
  taken_over_ = true;
  return {};
}

// Waits for the machine, which another process runs until then.
Result<void> MachineProcess::take_over() {
  SNUG_TRY(given_.warden.take_state());
  auto told = SNUG_TRY(given_.ends.read_told());
  former_ = SNUG_TRY(FormerLife::restore(told));
  SNUG_TRY(given_.ends.restore(told));
  SNUG_TRY(told.finish());
  ++former_.updates;
  if (former_.boots == 0) return fail("the machine has not booted");
  if (former_.commands.empty()) return {};
  plan_ = SNUG_TRY(parse_saved_commands(former_.commands));
  if (!plan_->commands.empty()) given_.commands = &*plan_;
  if (plan_->health) given_.health = &*plan_->health;
  return {};
}

// From here on nothing is reached by name.
Result<void> MachineProcess::lock_in() {
  if (given_.spec.jail == JailMode::kOff) {
    (void)jail::end_with_parent(given_.split);
    return {};
  }
  jail_missing_ = given_.jail_missing;
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  // Those of io_uring count too.
  constexpr rlim_t kThreads = 256;
  const auto entry = jail::take_steps(
      given_.split, {.descriptors = descriptors.rlim_cur, .threads = given_.spec.cpus + kThreads});
  for (const jail::MissingStep& step : entry.missing)
    jail_missing_.push_back(fmt::format("{}: {}", step.name, step.why));
  if (jail::kConfines) {
    SNUG_TRY(jail::watch_violations(STDERR_FILENO));
    if (given_.record) SNUG_TRY(jail::record_calls(given_.record.get()));
    thread_begins_ = [](ThreadKind kind) {
      // A thread that could not be confined must not run.
      if (auto confined = jail::confine_thread(kind); !confined) {
        log_error("jail: {}", confined.error().text());
        ::_exit(kStatusFailure);
      }
    };
  }
  if (jail_missing_.empty()) return {};
  if (!entry.missing.empty() && given_.spec.jail == JailMode::kRequire)
    return fail_with_hint(
        fmt::format("jail: this host refuses a part of it: {}", fmt::join(jail_missing_, "; ")),
        entry.missing.front().hint.empty()
            ? "choose jail: auto to run without that part"
            : entry.missing.front().hint + ", or choose jail: auto to run without that part");
  log_info("the jail lacks what this host refuses (snug doctor says what to do): {}",
           fmt::join(jail_missing_, "; "));
  return {};
}

void MachineProcess::end() {
  RunReport report = life_->end();
  report.cpu_ns_at_first_run += warden_cpu_ns_;
  // The terminal is itself again before anything is said about the end.
  given_.ends.console->suspend_terminal();
  static const std::vector<CommandResult> none;
  GuestCommands* commands = life_->commands();
  if (commands != nullptr) commands->suspend_terminal();
  const int status = given_.ended(report, commands != nullptr ? commands->results() : none);
  given_.warden.ended(status, report.message);
  if (control_) control_->finish(report.exit_status, report.message);
}

void MachineProcess::on_signal(int number, bool own_terminal) {
  tell_own_terminal(own_terminal);
  GuestCommands* commands = life_->commands();
  switch (number) {
    case SIGTSTP:
      return on_suspend();
    case SIGCONT:
      return on_continue();
    case SIGWINCH:
      if (commands != nullptr) commands->window_changed();
      return;
    case SIGUSR1:
    case SIGUSR2:
      if (commands != nullptr) commands->signal(number);
      return;
    case SIGQUIT:
      if (commands != nullptr && commands->signal(number)) return;
      break;
    default:
      break;
  }
  if (!wish_.is_the_same()) life_->on_ending_signal(number);
}

// The warden stops both processes then.
void MachineProcess::on_suspend() {
  given_.ends.console->suspend_terminal();
  if (GuestCommands* commands = life_->commands()) commands->suspend_terminal();
  given_.warden.suspended();
}

// Both processes were stopped, by Ctrl-Z or from outside, and go on; in the foreground of their terminal or,
// so far, in the background. (What the guest's watchdogs are told: VcpuThreads.)
void MachineProcess::on_continue() {
  if (::isatty(STDIN_FILENO) == 0 || is_own_terminal(STDIN_FILENO)) {
    if (GuestCommands* commands = life_->commands()) commands->resume_terminal();
    given_.ends.console->resume_terminal();
  }
  const Machine* machine = life_->machine();
  if (machine != nullptr && machine->state() == RunState::kRunning) life_->set_guest_clock();
}

}  // namespace snug
