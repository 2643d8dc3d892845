#include "devices/legacy/i8042.h"

namespace snug {
namespace {

// Offsets from port 0x60.
constexpr uint64_t kData = 0;
constexpr uint64_t kSystemControl = 1;
constexpr uint64_t kCommand = 4;

// 8042 status: bit 0 output buffer full, bit 1 input buffer full. Neither, ever: a driver may always write
// and finds nothing to read.
constexpr uint8_t kStatusIdle = 0x00;
constexpr uint8_t kCommandWriteOutputPort = 0xd1;
constexpr uint8_t kCommandPulse = 0xf0;  // bits 0-3 low: pulse that line of the output port
constexpr uint8_t kOutputPortNotReset = 0x01;

// Port 0x61 (IBM PC/AT technical reference, system board I/O).
constexpr uint8_t kControlWritable = 0x0f;
constexpr uint8_t kControlTimer2Gate = 0x01;
constexpr uint8_t kControlRefresh = 0x10;
constexpr uint8_t kControlTimer2Out = 0x20;

}  // namespace

void I8042::save(SectionWriter& out) const {
  out.flag(output_port_next_);
  out.number(system_control_);
  out.flag(refresh_toggle_);
}

void I8042::restore(SectionReader& in) {
  output_port_next_ = in.flag();
  system_control_ = in.number<uint8_t>() & kControlWritable;
  refresh_toggle_ = in.flag();
}

uint8_t I8042::read_byte(uint64_t offset) {
  switch (offset) {
    case kData:
      return 0;
    case kCommand:
      return kStatusIdle;
    case kSystemControl: {
      // Bits 6 and 7, the NMI reasons, stay 0. The refresh bit toggles because delay loops wait for it, and
      // timer 2 has always run out: a guest that times the TSC with it finds at once that it cannot,
      // instead of waiting for ever.
      unsigned value = system_control_;
      if (refresh_toggle_) value |= kControlRefresh;
      if ((system_control_ & kControlTimer2Gate) != 0) value |= kControlTimer2Out;
      refresh_toggle_ = !refresh_toggle_;
      return static_cast<uint8_t>(value);
    }
    default:
      return 0xff;
  }
}

void I8042::write_byte(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      if (output_port_next_ && (value & kOutputPortNotReset) == 0) lifecycle_.guest_event(GuestEvent::kReset);
      output_port_next_ = false;
      break;
    case kSystemControl:
      system_control_ = value & kControlWritable;
      break;
    case kCommand:
      command(value);
      break;
    default:
      break;
  }
}

void I8042::command(uint8_t value) {
  output_port_next_ = value == kCommandWriteOutputPort;
  const bool pulse = (value & kCommandPulse) == kCommandPulse;
  if (pulse && (value & kOutputPortNotReset) == 0) lifecycle_.guest_event(GuestEvent::kReset);
}

}  // namespace snug
