#include "vmm/run/live_update.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/sparse_file.h"
#include "vmm/core/guest_memory.h"
#include "vmm/spec/describe.h"

namespace snug {
namespace {

// To open what there is to be opened, and to be locked in.
constexpr std::chrono::seconds kPatience{30};

Result<UniqueFd> memory_file(const char* name) {
  UniqueFd file(::memfd_create(name, MFD_CLOEXEC));
  if (!file) return fail_errno(errno, "memfd_create");
  return file;
}

Result<std::array<UniqueFd, 2>> packets(int flags) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0, ends.data()) != 0)
    return fail_errno(errno, "socketpair");
  return std::array{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Of this process. A file that has been replaced since is told with a word behind its name (proc(5)).
std::string own_program() {
  std::array<char, 4096> path{};
  const ssize_t count = ::readlink("/proc/self/exe", path.data(), path.size());
  std::string name(path.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
  constexpr std::string_view kGone = " (deleted)";
  if (name.ends_with(kGone)) name.resize(name.size() - kGone.size());
  return name;
}

// Chosen by whoever asks for the update, by a file in the machine's folder.
std::string chosen_program(const VmDirectory& directory) {
  const UniqueFd file(::openat(directory.fd(), LiveUpdate::kProgramFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  std::array<char, 4096> path{};
  const ssize_t count = file ? ::read(file.get(), path.data(), path.size()) : 0;
  return std::string(path.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
}

}  // namespace

Result<std::unique_ptr<LiveUpdate>> LiveUpdate::begin(EventLoop& loop, Given given, UniqueFd ram,
                                                      Events events) {
  std::unique_ptr<LiveUpdate> update(new LiveUpdate(loop, given, std::move(events)));
  update->program_path_ = chosen_program(given.directory);
  if (update->program_path_.empty()) update->program_path_ = own_program();
  update->program_ = SNUG_TRY(with_context(open_file(update->program_path_, O_RDONLY), "the new program"));
  update->state_ = SNUG_TRY(memory_file("state"));
  update->told_ = SNUG_TRY(memory_file("ends"));
  update->ram_ = std::move(ram);
  if (!update->ram_) update->ram_ = SNUG_TRY(GuestMemory::create_file(given.machine.spec->memory));
  update->late_ = SNUG_TRY(loop.timer([self = update.get()] {
    if (self->starter_ > 0) ::kill(self->starter_, SIGKILL);
    self->fail_with(fmt::format("{} does not take the machine over", self->program_path_));
  }));
  return update;
}

LiveUpdate::~LiveUpdate() {
  watch_.reset();
  reap();
  if (machine_.pid < 0) return;
  ::kill(machine_.pid, SIGKILL);
  while (::waitpid(machine_.pid, nullptr, 0) < 0 && errno == EINTR) continue;
}

Result<UniqueFd> LiveUpdate::file(warden::UpdateFile which) const {
  switch (which) {
    case warden::UpdateFile::kState:
      return duplicate(state_.get());
    case warden::UpdateFile::kMemory:
      return duplicate(ram_.get());
    case warden::UpdateFile::kEnds:
      break;
  }
  return duplicate(told_.get());
}

// But for what is made for the process itself.
Result<Papers> LiveUpdate::papers() const {
  const HostEnds& ends = given_.ends;
  Papers papers;
  Spec spec = *given_.machine.spec;
  spec.net = ends.nics;
  spec.ports.clear();
  papers.spec = effective_spec_yaml(spec);
  papers.directory = given_.directory.path();
  papers.keep = given_.directory.keep() == Keep::kYes;
  papers.cgroup = given_.machine.cgroup;
  papers.background = given_.machine.background;
  papers.commands = given_.commands;
  papers.vsock_path = ends.vsock_path;
  papers.pid = ::getpid();
  papers.state = state_.get();
  papers.memory = ram_.get();
  papers.ends = told_.get();
  papers.kernel = ends.kernel.get();
  for (const UniqueFd& initrd : ends.initrds) papers.initrds.push_back(initrd.get());
  for (const DiskFile& disk : ends.disks) papers.disks.push_back({disk.file(), disk.overlay()});
  for (size_t i = 0; i < ends.nics.size(); ++i) {
    Papers::Nic& nic = papers.nics.emplace_back();
    if (const auto tap = ends.taps.find(i); tap != ends.taps.end()) {
      nic.taps = tap->second.files().taps;
      continue;
    }
    const auto socket = given_.sockets.find(i);
    if (socket == given_.sockets.end())
      return fail_with_hint(fmt::format("net[{}]: passt is just being started", i), "try again");
    nic.socket = socket->second.get();
  }
  papers.control = given_.machine.control;
  if (ends.console_server) papers.console = ends.console_server->listening();
  if (ends.vsock) papers.vsock = ends.vsock->socket();
  return papers;
}

Result<void> LiveUpdate::launch() {
  launched_ = true;
  Papers told = SNUG_TRY(papers());
  auto talk = SNUG_TRY(packets(0));
  auto calls = SNUG_TRY(packets(SOCK_NONBLOCK));
  auto news = SNUG_TRY(packets(SOCK_NONBLOCK));
  told.talk = talk[1].get();
  told.calls = calls[1].get();
  told.news = news[1].get();
  talk_ = std::move(talk[0]);
  machine_.calls = std::move(calls[0]);
  machine_.news = std::move(news[0]);
  SNUG_TRY(start(told, {std::move(talk[1]), std::move(calls[1]), std::move(news[1])}));
  watch_ = SNUG_TRY(loop_.watch(talk_.get(), EPOLLIN, [this](uint32_t) { on_talk(); }));
  late_.arm(kPatience);
  return {};
}

// `theirs`: its ends of the sockets, which are nobody's here once it runs.
Result<void> LiveUpdate::start(const Papers& papers, std::array<UniqueFd, 3> /*theirs*/) {
  const UniqueFd file = SNUG_TRY(memory_file("papers"));
  const std::string text = papers.text();
  SNUG_TRY(with_context(write_at(file.get(), std::as_bytes(std::span(text)), 0), "papers"));
  std::string number = std::to_string(file.get());
  std::string name = "snug";
  std::string command = "take-over";
  const std::array<char*, 4> words{name.data(), command.data(), number.data(), nullptr};
  const std::vector<int> inherited = papers.descriptors();
  std::fflush(nullptr);
  starter_ = ::fork();
  if (starter_ < 0) return fail_errno(errno, "fork");
  if (starter_ > 0) return {};
  for (const int fd : inherited) ::fcntl(fd, F_SETFD, 0);
  ::fcntl(file.get(), F_SETFD, 0);
  ::fexecve(program_.get(), words.data(), environ);
  // Told by the end of the socket.
  ::_exit(errno == ENOEXEC || errno == EACCES ? 126 : 127);
}

void LiveUpdate::on_talk() {
  warden::Packet<UpdateTalk> packet;
  const int error = warden::receive(talk_.get(), packet);
  if (error == EAGAIN) return;
  if (error != 0) {
    watch_.reset();
    const int status = reap();
    return fail_with(fmt::format("{} ended with status {} before it had taken the machine over",
                                 program_path_,
                                 WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
  }
  switch (static_cast<UpdateWord>(packet.head.word)) {
    case UpdateWord::kProcess:
      machine_.pid = packet.head.pid;
      machine_.process = std::move(packet.descriptor);
      return;
    case UpdateWord::kLifeline:
      machine_.lifeline = std::move(packet.descriptor);
      break;
    case UpdateWord::kFailed:
      return fail_with(packet.text);
  }
  if (machine_.pid <= 0 || !machine_.process || !machine_.lifeline) return fail_with("its process is lost");
  watch_.reset();
  late_.disarm();
  // It has said all, and ends.
  reap();
  events_.arrived(std::exchange(machine_, {}));
}

void LiveUpdate::fail_with(std::string why) {
  watch_.reset();
  late_.disarm();
  events_.failed(std::move(why));
}

// Its status. It ends by itself where it has come to its end, and has nothing to lose elsewhere.
int LiveUpdate::reap() {
  if (starter_ < 0) return 0;
  const bool ends = machine_.pid > 0 || !watch_;
  if (!ends) ::kill(starter_, SIGKILL);
  int status = 0;
  while (::waitpid(starter_, &status, 0) < 0 && errno == EINTR) continue;
  starter_ = -1;
  return status;
}

}  // namespace snug
