// Something that was found so a moment ago, and is taken to be so for a moment more: work with many files
// asks the same again and again. It ends at once when this server changes it, whoever is looking meanwhile.
//
// Thread: any number at a time.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>

namespace snug {

// How long, nanoseconds. What others change on the host may be seen that much later than the guest's own
// memory has it.
constexpr uint64_t kMoment = 100'000'000;

class Recent {
 public:
  // Nanoseconds of a clock that nobody sets.
  static uint64_t now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
  }
  bool holds(uint64_t now) const {
    const uint64_t until = state_.load(std::memory_order_acquire);
    return (until & kEnded) == 0 && now < until;
  }
  // Before looking; what it returns is for found().
  uint64_t begin() const { return state_.load(std::memory_order_acquire); }
  // It is so, unless it has ended since begin().
  void found(uint64_t begun, uint64_t until) {
    state_.compare_exchange_strong(begun, until & ~kEnded, std::memory_order_acq_rel);
  }
  // It may be otherwise now.
  void ends() {
    uint64_t before = state_.load(std::memory_order_relaxed);
    while (!state_.compare_exchange_weak(before, (before | kEnded) + 1, std::memory_order_acq_rel)) continue;
  }
  // Of something else from now on; nobody is looking.
  void reset() { state_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kEnded = uint64_t{1} << 63;

  // The time until which it holds, or a number that it never had before.
  std::atomic<uint64_t> state_ = 0;
};

}  // namespace snug
