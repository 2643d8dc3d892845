// The host's end of a virtio console or channel: a pty, a file, or a unix socket on which one client at a
// time is heard. It stays open from boot to boot.
//
// A client that hangs up is gone once the guest has read what it sent. One that hung up with words nobody
// reads makes room for the next client.
//
// Thread: the event loop's; send() and connected() on any.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "devices/virtio/console/peer.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/spec/spec.h"

namespace snug {

class HostPort final : public PortPeer {
 public:
  // Errors: the file or the socket cannot be made, the socket is another process's, no pty.
  static Result<std::unique_ptr<HostPort>> open(const PortSpec& spec, EventLoop& loop);
  ~HostPort() override;

  void on_events(Events events) override;
  // Where a pty's other end is; "" otherwise.
  const std::string& pty_path() const { return pty_path_; }

  bool connected() const override;
  size_t send(std::span<const iovec> parts) override;
  size_t receive(std::span<const iovec> parts) override;

 private:
  explicit HostPort(EventLoop& loop) : loop_(loop) {}
  Result<void> open_pty();
  Result<void> open_output(const std::string& path);
  Result<void> listen(const std::string& path);
  Result<void> watch_listener();
  Result<void> watch_peer();
  void accept();
  void on_peer_event(uint32_t epoll_events);
  bool at_end() const;
  void hang_up();
  void look_at_size();
  void tell() const;

  EventLoop& loop_;
  Events events_;
  std::string pty_path_;
  std::string socket_path_;  // removed at the end
  UniqueFd pty_slave_;       // held open so that the master never sees a hang-up
  UniqueFd listener_;
  mutable std::mutex mutex_;  // guards the two below
  UniqueFd peer_;
  bool broken_ = false;  // it takes no more
  bool is_file_ = false;
  EventLoop::Watch listener_watch_;  // watches behind what they watch
  EventLoop::Watch peer_watch_;
  EventLoop::Timer size_timer_;
};

}  // namespace snug
