// A real-time clock with CMOS memory (Motorola MC146818A data sheet), plus the century byte that PCs keep at
// 0x32. Raises no interrupts: alarms and periodic rates can be set but never go off, and register C reads 0.
//
// The time is the injected clock's plus an offset, which changes when the guest sets the time.
//
// Registered at map::kPortRtc, 2 ports: index and data.
// Owner: the machine, as Synced<Rtc>. Thread: vCPU threads, lock held; the clock is called on them.
// The guest controls every register; values that are no date are clamped to the nearest that is.
#pragma once

#include <array>
#include <chrono>
#include <functional>

#include "devices/byte_registers.h"

namespace snug {

class Rtc final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 2;
  static constexpr size_t kSize = 128;

  // UTC; std::chrono::system_clock::now outside tests.
  using WallClock = std::function<std::chrono::sys_time<std::chrono::nanoseconds>()>;

  explicit Rtc(WallClock clock);

  // For snapshots.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

 private:
  // Since 1970, UTC; nanoseconds in [0, 10^9).
  struct Time {
    int64_t seconds;
    int64_t nanoseconds;
  };

  uint8_t read_byte(uint64_t offset) override;
  void write_byte(uint64_t offset, uint8_t value) override;

  bool halted() const;
  Time now() const;
  // Makes now() give this from here on.
  void set_now(Time time);
  void write_control(uint8_t index, uint8_t value);
  // Between a time and the ten bytes that show it.
  void show(int64_t seconds);
  int64_t shown() const;
  uint8_t encode(unsigned value) const;
  unsigned decode(uint8_t raw, unsigned lowest, unsigned highest) const;
  uint8_t encode_hour(unsigned hour) const;
  unsigned decode_hour(uint8_t raw) const;

  WallClock clock_;
  Time offset_{0, 0};
  uint8_t index_ = 0;
  // While the clock runs the time bytes are out of date; while it is halted they are the time.
  std::array<uint8_t, kSize> bytes_{};
};

}  // namespace snug
