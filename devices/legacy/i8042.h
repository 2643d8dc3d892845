// The keyboard controller of a PC, of which only the reset line is left, and the system control port 0x61
// between its ports. No keyboard, no mouse, no A20 gate: nothing ever answers.
//
// Registered as one range, map::kPortI8042 to 0x64 (kPorts ports).
// Owner: the machine, as Synced<I8042>; lifecycle must outlive it. Thread: vCPU threads, lock held.
#pragma once

#include "devices/byte_registers.h"
#include "vmm/core/lifecycle.h"

namespace snug {

class I8042 final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 5;

  explicit I8042(LifecycleSink& lifecycle) : lifecycle_(lifecycle) {}

  // For snapshots.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

 private:
  uint8_t read_byte(uint64_t offset) override;
  void write_byte(uint64_t offset, uint8_t value) override;
  void command(uint8_t value);

  LifecycleSink& lifecycle_;
  bool output_port_next_ = false;  // the next data byte goes to the output port
  uint8_t system_control_ = 0;     // port 0x61, bits 0-3
  bool refresh_toggle_ = false;
};

}  // namespace snug
