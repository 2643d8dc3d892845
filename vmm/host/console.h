// The host's end of the guest's serial console: stdin and stdout, a file, a pty, or nothing.
//
// Thread: transmit(), guest_opened() and input_space() from a vCPU, with the serial port's lock held;
// everything else on the loop's thread. Outlives the machines that are connected to it one after the other.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "devices/legacy/serial_peer.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/console_input.h"
#include "vmm/host/console_output.h"
#include "vmm/host/console_tail.h"
#include "vmm/spec/spec.h"

namespace snug {

class Console final : public SerialPeer {
 public:
  // Errors: the file cannot be created, no pty, stdin is a folder. `on_quit`: Ctrl-A x was typed.
  static Result<std::unique_ptr<Console>> open(const ConsoleSpec& spec, EventLoop& loop,
                                               std::function<void()> on_quit);
  // Of a machine that another process has run so far: a file goes on where it ends. Errors: besides, a pty,
  // which only whoever has made it has.
  static Result<std::unique_ptr<Console>> open_again(const ConsoleSpec& spec, EventLoop& loop);
  // One whose host's end is a socket (non-blocking).
  static Result<std::unique_ptr<Console>> open_socket(UniqueFd socket, EventLoop& loop);

  void connect(Receiver receiver) override;
  void transmit(std::span<const std::byte> bytes) override { output_.transmit(bytes); }
  void guest_opened() override { input_->guest_opened(); }
  void input_space() override { input_->input_space(); }

  // As ConsoleOutput and ConsoleInput have them.
  void finish(std::chrono::milliseconds patience) { output_.finish(patience); }
  uint64_t dropped_bytes() const { return output_.dropped_bytes(); }
  ConsoleTail tail() { return output_.tail(); }
  void suspend_terminal() { input_->suspend_terminal(); }
  void resume_terminal() { input_->resume_terminal(); }
  // Where a pty's other end is; "" otherwise.
  const std::string& pty_path() const { return pty_path_; }

 private:
  explicit Console(EventLoop& loop) : loop_(loop), output_(loop) {}
  Result<void> open_ends(const ConsoleSpec& spec, std::function<void()> on_quit);
  Result<void> open_stdio(std::function<void()> on_quit);
  Result<void> open_pty();

  EventLoop& loop_;
  ConsoleOutput output_;
  std::unique_ptr<ConsoleInput> input_;
  std::string pty_path_;
  UniqueFd pty_slave_;  // held open so that the master never sees a hang-up
};

}  // namespace snug
