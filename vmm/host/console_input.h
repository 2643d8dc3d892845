// What is typed for the guest's serial console: taken from the host only as fast as the guest takes it, and
// not before the guest has opened its port. On a terminal Ctrl-A is the escape (escape.h).
//
// Thread: guest_opened() and input_space() from any; everything else on the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/legacy/serial_peer.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/escape.h"
#include "vmm/host/terminal.h"

namespace snug {

class ConsoleInput {
 public:
  // `fd`: non-blocking, or none: nothing is ever typed. `on_quit`: Ctrl-A x, on a terminal.
  static Result<std::unique_ptr<ConsoleInput>> create(EventLoop& loop, UniqueFd fd);
  // Stdin, which is a terminal of ours, in raw mode; `fd` is a duplicate of it.
  static Result<std::unique_ptr<ConsoleInput>> create_on_terminal(EventLoop& loop, UniqueFd fd,
                                                                  std::function<void()> on_quit);

  // Connects a new machine whose port is not open yet; nullptr disconnects.
  void connect(SerialPeer::Receiver receiver);
  void guest_opened();
  void input_space();

  // Stop and continue from outside (SIGTSTP, SIGCONT): the terminal as it was, nothing read from it; raw
  // again. The second may come without the first.
  void suspend_terminal();
  void resume_terminal();

 private:
  ConsoleInput(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}
  void read();
  void post_read();
  void pump();
  void update_watch();
  void on_stalled();
  void let_the_guest_rest();
  void take(std::span<const std::byte> bytes);

  EventLoop& loop_;
  std::function<void()> on_quit_;
  SerialPeer::Receiver receiver_;
  bool guest_open_ = false;
  uint64_t connection_ = 0;  // tells late posts of an earlier machine apart
  std::vector<std::byte> bytes_;
  bool ended_ = false;
  bool suspended_ = false;  // the terminal is others' for now
  bool read_posted_ = false;
  bool pollable_ = true;
  std::chrono::steady_clock::time_point handed_over_;  // when the guest last took input
  bool resting_ = false;                               // until rest_timer_ fires the guest gets none
  bool discarding_ = false;  // a terminal's guest takes nothing: input is read for Ctrl-A x alone
  std::optional<EscapeFilter> escape_;
  UniqueFd fd_;
  std::optional<RawTerminal> terminal_;
  EventLoop::Watch watch_;  // ends before the descriptor closes
  EventLoop::Timer stall_timer_;
  EventLoop::Timer rest_timer_;
};

}  // namespace snug
