// The pvpanic ISA device (QEMU docs/specs/pvpanic.rst): a guest kernel reports that it has panicked.
//
// Registered at map::kPortPvpanic. Owner: the machine, as Synced<Pvpanic>; lifecycle must outlive it.
// Thread: vCPU threads, lock held.
#pragma once

#include "devices/byte_registers.h"
#include "vmm/core/lifecycle.h"

namespace snug {

class Pvpanic final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 1;

  explicit Pvpanic(LifecycleSink& lifecycle) : lifecycle_(lifecycle) {}

  // A driver has asked what the device can do: a panic of this guest will be reported.
  bool has_driver() const { return has_driver_; }

  // For snapshots.
  void save(SectionWriter& out) const {
    out.number(reported_);
    out.flag(has_driver_);
  }
  void restore(SectionReader& in) {
    reported_ = in.number<uint8_t>();
    has_driver_ = in.flag();
  }

 private:
  uint8_t read_byte(uint64_t offset) override;
  void write_byte(uint64_t offset, uint8_t value) override;

  LifecycleSink& lifecycle_;
  uint8_t reported_ = 0;
  bool has_driver_ = false;
};

}  // namespace snug
