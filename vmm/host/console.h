// The host's end of the guest's serial console: stdin and stdout, a file, a pty, or nothing.
//
// Output: a vCPU appends to a bounded buffer and goes on; the loop writes it out without blocking. When the
// consumer stalls for longer than the buffer lasts, bytes are dropped and counted. Input: taken from the host
// only as fast as the guest takes it, and not before the guest has opened its port.
//
// Thread: transmit() from a vCPU (with the serial port's lock held), guest_opened() and input_space()
// likewise; everything else on the loop's thread. Outlives the machines that are connected to it one after
// the other.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/legacy/serial_peer.h"
#include "vmm/base/result.h"
#include "vmm/base/synced.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/console_tail.h"
#include "vmm/host/escape.h"
#include "vmm/host/terminal.h"
#include "vmm/spec/spec.h"

namespace snug {

class Console final : public SerialPeer {
 public:
  // Errors: the file cannot be created, no pty. `on_quit`: Ctrl-A x was typed.
  static Result<std::unique_ptr<Console>> open(const ConsoleSpec& spec, EventLoop& loop,
                                               std::function<void()> on_quit);
  // One whose host's end is a socket (non-blocking).
  static Result<std::unique_ptr<Console>> open_socket(UniqueFd socket, EventLoop& loop);
  ~Console() override;

  void connect(Receiver receiver) override;
  void transmit(std::span<const std::byte> bytes) override;
  void guest_opened() override;
  void input_space() override;

  // Writes out what is buffered; gives a stalled consumer `patience` and then drops the rest.
  void finish(std::chrono::milliseconds patience);
  uint64_t dropped_bytes() const { return dropped_; }
  ConsoleTail tail();
  // Where a pty's other end is; "" otherwise.
  const std::string& pty_path() const { return pty_path_; }

  // Stop and continue from outside (SIGTSTP, SIGCONT): the terminal as it was, nothing read from it; raw
  // again. The second may come without the first.
  void suspend_terminal();
  void resume_terminal();

 private:
  explicit Console(EventLoop& loop, std::function<void()> on_quit)
      : loop_(loop), on_quit_(std::move(on_quit)) {}
  Result<void> create_rest_timer();
  Result<void> open_stdio();
  Result<void> open_file_output(const std::string& path);
  Result<void> open_pty();

  void flush();
  // False when the consumer takes no more for now.
  bool write_some();
  void watch_output();
  void lose_output(const std::string& why);
  void read_input();
  void post_read();
  void pump_input();
  void update_input_watch();
  void on_input_stalled();
  void let_the_guest_rest();
  void take_input(std::span<const std::byte> bytes);

  struct Output {
    std::vector<std::byte> bytes;
    ConsoleTail tail;
    bool flush_posted = false;
  };

  EventLoop& loop_;
  std::function<void()> on_quit_;
  bool discards_output_ = false;  // set before any vCPU runs
  Synced<Output> output_;
  std::atomic<size_t> writing_size_ = 0;  // of writing_, for the bound that transmit() keeps
  std::atomic<uint64_t> dropped_ = 0;
  std::vector<std::byte> writing_;
  size_t written_ = 0;
  bool output_lost_ = false;

  Receiver receiver_;
  bool guest_open_ = false;
  uint64_t connection_ = 0;  // tells late posts of an earlier machine apart
  std::vector<std::byte> input_;
  bool input_ended_ = false;
  bool suspended_ = false;  // the terminal is others' for now
  bool read_posted_ = false;
  bool input_pollable_ = true;
  std::chrono::steady_clock::time_point handed_over_;  // when the guest last took input
  bool resting_ = false;                               // until rest_timer_ fires the guest gets none
  bool discarding_ = false;  // a terminal's guest takes nothing: input is read for Ctrl-A x alone
  std::optional<EscapeFilter> escape_;

  std::string pty_path_;
  UniqueFd output_fd_;
  UniqueFd input_fd_;
  UniqueFd pty_slave_;  // held open so that the master never sees a hang-up
  std::optional<RawTerminal> terminal_;
  EventLoop::Watch output_watch_;  // watches last: they end before the descriptors close
  EventLoop::Watch input_watch_;
  EventLoop::Timer stall_timer_;
  EventLoop::Timer rest_timer_;
};

}  // namespace snug
