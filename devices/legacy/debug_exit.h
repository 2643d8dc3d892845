// Ports by which test guests talk to snug: end with a code, report a status, show progress.
//
// Owner: the machine, as Synced<>; lifecycle must outlive them. Thread: vCPU threads, lock held.
// The guest may write as often as it likes: the sink decides which event counts.
#pragma once

#include "devices/byte_registers.h"
#include "vmm/core/lifecycle.h"

namespace snug {

// map::kPortDebugExit, 4 ports: every write posts kDebugExit with the value (up to 32 bits) and ends the
// machine. Reads as 0.
class DebugExit final : public BusDevice {
 public:
  static constexpr uint64_t kPorts = 4;

  explicit DebugExit(LifecycleSink& lifecycle) : lifecycle_(lifecycle) {}
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  LifecycleSink& lifecycle_;
};

// map::kPortGuestStatus, 1 port: keeps the exit status that is to be reported at power-off.
class GuestStatus final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 1;

  // 0 unless the guest has written another.
  uint8_t status() const { return status_; }
  void save(SectionWriter& out) const { out.number(status_); }
  void restore(SectionReader& in) { status_ = in.number<uint8_t>(); }

 private:
  uint8_t read_byte(uint64_t) override { return status_; }
  void write_byte(uint64_t, uint8_t value) override { status_ = value; }

  uint8_t status_ = 0;
};

// map::kPortPostCode, 1 port: boot progress codes, and Linux's I/O delay. Keeps the last.
class PostCode final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 1;

  uint8_t last() const { return last_; }
  void save(SectionWriter& out) const { out.number(last_); }
  void restore(SectionReader& in) { last_ = in.number<uint8_t>(); }

 private:
  uint8_t read_byte(uint64_t) override { return last_; }
  void write_byte(uint64_t, uint8_t value) override { last_ = value; }

  uint8_t last_ = 0;
};

}  // namespace snug
