// What devices are wired to in these tests, and a driver's view of a port bus.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "vmm/core/bus.h"
#include "vmm/core/interrupt.h"
#include "vmm/core/lifecycle.h"

namespace snug::test {

// Fails the test when a device sets the level it has: each call may be a system call.
class FakeIrqLine final : public IrqLine {
 public:
  void set(bool asserted) override;
  bool level() const { return level_; }
  // Whether the line has risen since the last call: what an edge-triggered interrupt controller sees.
  bool take_edge() { return std::exchange(edge_, false); }

 private:
  bool level_ = false;
  bool edge_ = false;
};

struct RecordedEvent {
  GuestEvent event;
  uint32_t value;
  bool operator==(const RecordedEvent&) const = default;
};

class FakeLifecycle final : public LifecycleSink {
 public:
  void guest_event(GuestEvent event, uint32_t value) override { events_.push_back({event, value}); }
  std::vector<RecordedEvent> take() { return std::exchange(events_, {}); }

 private:
  std::vector<RecordedEvent> events_;
};

// Port instructions of a guest.
class Ports {
 public:
  Bus& bus() { return bus_; }
  uint8_t in8(uint64_t port) { return static_cast<uint8_t>(in(port, 1)); }
  uint16_t in16(uint64_t port) { return static_cast<uint16_t>(in(port, 2)); }
  uint32_t in32(uint64_t port) { return static_cast<uint32_t>(in(port, 4)); }
  void out8(uint64_t port, uint8_t value) { out(port, value, 1); }
  void out16(uint64_t port, uint16_t value) { out(port, value, 2); }
  void out32(uint64_t port, uint32_t value) { out(port, value, 4); }
  uint64_t in(uint64_t port, size_t width);
  void out(uint64_t port, uint64_t value, size_t width);

 private:
  Bus bus_{"port"};
};

// xorshift64*: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  // [0, bound)
  uint64_t below(uint64_t bound) { return next() % bound; }

 private:
  uint64_t state_;
};

}  // namespace snug::test
