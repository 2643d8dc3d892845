// The host's ends of a machine: files, sockets and terminals, all opened before it boots.
#include <fcntl.h>
#include <sys/socket.h>

#include <array>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"
#include "vmm/machine/host_ports.h"
#include "vmm/machine/input_file.h"
#include "vmm/machine/runner.h"
#include "vmm/spec/network.h"
#include "vmm/spec/values.h"

namespace snug {

Result<void> Runner::open_console() {
  ConsoleSpec console = spec_.console;
  // Our streams are those of the commands: the console has a log, where there is a place for it.
  const bool not_here = options_.background || options_.commands != nullptr;
  if (not_here && console.kind == ConsoleKind::kStdio) {
    if (options_.directory != nullptr) return serve_console();
    console.kind = ConsoleKind::kNone;
  }
  console_ = SNUG_TRY(Console::open(console, *loop_, [this] { finish(RunState::kKilled, 0, "quit"); }));
  return {};
}

Result<void> Runner::serve_console() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return fail_errno(errno, "console: socketpair");
  UniqueFd near(ends[0]);
  UniqueFd far(ends[1]);
  console_ = SNUG_TRY(Console::open_socket(std::move(near), *loop_));
  auto listening = SNUG_TRY(options_.directory->listen("console.sock"));
  console_server_ =
      SNUG_TRY(ConsoleServer::create(*loop_, options_.directory->fd(), std::move(listening), std::move(far)));
  return {};
}

Result<void> Runner::open_control() {
  if (options_.directory == nullptr) return {};
  auto listening = SNUG_TRY(options_.directory->listen("control.sock"));
  control_ = SNUG_TRY(ControlServer::create(*loop_, std::move(listening), *this));
  return {};
}

Result<void> Runner::open_inputs() {
  kernel_ = SNUG_TRY(with_context(open_input(spec_.kernel), "kernel"));
  const std::string cache = spec_.kernel_cache ? cache_folder() : "";
  if (!cache.empty()) {
    auto opened = KernelCache::open(cache + "/kernels");
    if (opened) {
      kernel_cache_ = std::move(*opened);
    } else {
      log_debug("kernel cache: {}", opened.error().text());
    }
  }
  for (const auto& path : spec_.initrd)
    initrds_.push_back(SNUG_TRY(with_context(open_input(path), "initrd")));
  nics_ = network_interfaces(spec_);
  for (size_t i = 0; i < nics_.size(); ++i) {
    const std::vector<PortForward> wanted = nics_[i].ports;
    SNUG_TRY(with_context(choose_ports(nics_[i].ports), fmt::format("net[{}]", i)));
    for (size_t port = 0; port < wanted.size(); ++port)
      if (wanted[port] != nics_[i].ports[port])
        log_line(LogLevel::kWarn, "published: " + detail::print_port(nics_[i].ports[port]));
  }
  for (size_t i = 0; i < nics_.size(); ++i)
    if (nics_[i].mode == NetMode::kTap)
      taps_.emplace(i, SNUG_TRY(with_context(Tap::open(nics_[i]), fmt::format("net[{}]", i))));
  for (const DiskSpec& disk : spec_.disks)
    disks_.push_back(SNUG_TRY(with_context(DiskFile::open(disk), "disk " + disk.path)));
  return {};
}

Result<void> Runner::open_vsock() {
  const VsockSocket& socket = spec_.vsock.socket;
  if (socket.kind == VsockKind::kNone && options_.commands == nullptr) return {};
  std::string path = socket.path;
  if (socket.kind == VsockKind::kAuto) {
    if (options_.directory == nullptr)
      return fail_with_hint("vsock: no folder for the socket", "name its path: vsock: {socket: PATH}");
    path = options_.directory->path() + "/vsock.sock";
  }
  vsock_ = SNUG_TRY(VsockHub::create(*loop_, path));
  if (!path.empty()) log_debug("vsock: {}", path);
  listen_for_agent();
  return {};
}

Result<void> Runner::open_ports() {
  for (size_t i = 0; i < spec_.consoles.size(); ++i) {
    consoles_.push_back(
        SNUG_TRY(with_context(HostPort::open(spec_.consoles[i].to, *loop_), fmt::format("consoles[{}]", i))));
    const std::string& pty = consoles_.back()->pty_path();
    if (!pty.empty()) log_line(LogLevel::kWarn, fmt::format("console hvc{} is {}", i, pty));
  }
  for (const ChannelSpec& channel : spec_.channels)
    channels_.push_back(SNUG_TRY(with_context(HostPort::open({PortKind::kSocket, channel.socket}, *loop_),
                                              "channel " + channel.name)));
  return {};
}

}  // namespace snug
