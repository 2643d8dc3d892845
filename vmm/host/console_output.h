// What the guest prints on its serial console, on its way to the host: a vCPU appends to a bounded buffer and
// goes on; the loop writes it out without blocking. When the consumer stalls for longer than the buffer
// lasts, bytes are dropped and counted.
//
// Thread: transmit() from any; everything else on the loop's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/synced.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/console_tail.h"

namespace snug {

class ConsoleOutput {
 public:
  explicit ConsoleOutput(EventLoop& loop) : loop_(loop) {}

  // Before any vCPU runs. Without a descriptor bytes are thrown away, and not counted.
  void open(UniqueFd fd);

  void transmit(std::span<const std::byte> bytes);
  // The end of what has been printed, whoever has taken it; since the last forget_tail().
  ConsoleTail tail() { return buffer_.lock()->tail; }
  void forget_tail() { buffer_.lock()->tail = {}; }

  // Writes out what is buffered; gives a stalled consumer `patience` and then drops the rest.
  void finish(std::chrono::milliseconds patience);
  uint64_t dropped_bytes() const { return dropped_; }

 private:
  struct Buffer {
    std::vector<std::byte> bytes;
    ConsoleTail tail;
    bool flush_posted = false;
  };

  void flush();
  // False when the consumer takes no more for now.
  bool write_some();
  void watch();
  void lose(const std::string& why);

  EventLoop& loop_;
  bool discards_ = true;  // set before any vCPU runs
  Synced<Buffer> buffer_;
  std::atomic<size_t> writing_size_ = 0;  // of writing_, for the bound that transmit() keeps
  std::atomic<uint64_t> dropped_ = 0;
  std::vector<std::byte> writing_;
  size_t written_ = 0;
  bool lost_ = false;
  UniqueFd fd_;
  EventLoop::Watch watch_;  // ends before the descriptor closes
};

}  // namespace snug
