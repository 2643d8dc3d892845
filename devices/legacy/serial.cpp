#include "devices/legacy/serial.h"

#include <algorithm>

namespace snug {
namespace {

// PC16550D table II: register offsets. With DLAB set, offsets 0 and 1 are the divisor latches.
enum Register : uint64_t {
  kData = 0,
  kInterruptEnable = 1,
  kInterruptId = 2,
  kFifoControl = 2,
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

// 8.7 interrupt enable register; bits 4-7 are always 0.
constexpr uint8_t kIerReceived = 0x01;
constexpr uint8_t kIerTransmitEmpty = 0x02;
constexpr uint8_t kIerLineStatus = 0x04;
constexpr uint8_t kIerModemStatus = 0x08;
constexpr uint8_t kIerMask = 0x0f;

// 8.6 interrupt identification register, highest priority first.
constexpr uint8_t kIirLineStatus = 0x06;
constexpr uint8_t kIirReceived = 0x04;
constexpr uint8_t kIirTimeout = 0x0c;
constexpr uint8_t kIirTransmitEmpty = 0x02;
constexpr uint8_t kIirModemStatus = 0x00;
constexpr uint8_t kIirNone = 0x01;
constexpr uint8_t kIirFifosEnabled = 0xc0;

// 8.5 FIFO control register.
constexpr uint8_t kFcrEnable = 0x01;
constexpr uint8_t kFcrResetReceive = 0x02;
constexpr unsigned kFcrTriggerShift = 6;
constexpr std::array<uint8_t, 4> kTriggerLevels = {1, 4, 8, 14};

constexpr uint8_t kLcrDivisorLatch = 0x80;

// 8.8 modem control register; bits 5-7 are always 0.
constexpr uint8_t kMcrDtr = 0x01;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut1 = 0x04;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoop = 0x10;
constexpr uint8_t kMcrMask = 0x1f;

// 8.4 line status register.
constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrOverrun = 0x02;
constexpr uint8_t kLsrTransmitterEmpty = 0x60;  // THRE and TEMT: sending takes no time

// 8.9 modem status register: lines in bits 4-7, in bits 0-3 which of them changed since the last read.
constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRing = 0x40;
constexpr uint8_t kMsrCarrier = 0x80;
constexpr uint8_t kMsrRingEnded = 0x04;

}  // namespace

uint8_t Serial::read_byte(uint64_t offset) {
  const bool divisor_latch = (state_.lcr & kLcrDivisorLatch) != 0;
  switch (offset) {
    case kData:
      return divisor_latch ? state_.divisor_low : take_received();
    case kInterruptEnable:
      return divisor_latch ? state_.divisor_high : state_.ier;
    case kInterruptId:
      return take_interrupt_id();
    case kLineControl:
      return state_.lcr;
    case kModemControl:
      return state_.mcr;
    case kLineStatus:
      return take_line_status();
    case kModemStatus:
      return take_modem_status();
    case kScratch:
      return state_.scr;
    default:
      return 0xff;
  }
}

void Serial::write_byte(uint64_t offset, uint8_t value) {
  const bool divisor_latch = (state_.lcr & kLcrDivisorLatch) != 0;
  switch (offset) {
    case kData:
      if (divisor_latch) {
        state_.divisor_low = value;
      } else {
        send(value);
      }
      break;
    case kInterruptEnable:
      if (divisor_latch) {
        state_.divisor_high = value;
      } else {
        write_interrupt_enable(value);
      }
      break;
    case kFifoControl:
      write_fifo_control(value);
      break;
    // Word length and parity are kept but not applied: guests that never set them expect 8 bits to pass.
    case kLineControl:
      state_.lcr = value;
      break;
    case kModemControl:
      write_modem_control(value);
      break;
    case kScratch:
      state_.scr = value;
      break;
    default:
      break;  // line and modem status are read-only (LSR writes are for factory tests)
  }
}

size_t Serial::receive(std::span<const std::byte> bytes) {
  const size_t space = takes_input() ? rx_capacity() - state_.rx_count : 0;
  const size_t accepted = std::min(space, bytes.size());
  for (const std::byte byte : bytes.first(accepted)) push_received(std::to_integer<uint8_t>(byte));
  stats_.bytes_in += accepted;
  if (accepted < bytes.size()) input_refused_ = true;
  if (accepted > 0) update_irq();
  return accepted;
}

void Serial::reset() {
  state_ = {};
  opened_ = false;
  update_irq();
  offer_input_space();
}

void Serial::save(SectionWriter& out) const {
  const SerialState& state = state_;
  for (const uint8_t value :
       {state.ier, state.lcr, state.mcr, state.scr, state.divisor_low, state.divisor_high, state.rx_trigger,
        state.msr_delta, state.rx_head, state.rx_count})
    out.number(value);
  for (const bool value : {state.fifo_enabled, state.overrun, state.tx_empty_pending, opened_})
    out.flag(value);
  out.bytes(std::as_bytes(std::span(state.rx)));
}

void Serial::restore(SectionReader& in) {
  SerialState& state = state_;
  for (uint8_t* value : {&state.ier, &state.lcr, &state.mcr, &state.scr, &state.divisor_low,
                         &state.divisor_high, &state.rx_trigger, &state.msr_delta})
    *value = in.number<uint8_t>();
  state.rx_head = in.number_to<uint8_t>(SerialState::kFifoSize - 1);
  state.rx_count = in.number_to<uint8_t>(SerialState::kFifoSize);
  for (bool* value : {&state.fifo_enabled, &state.overrun, &state.tx_empty_pending, &opened_})
    *value = in.flag();
  in.bytes(std::as_writable_bytes(std::span(state.rx)));
  if (!in.good()) return;
  if (opened_ && on_opened_) on_opened_();
  // An interrupt that was on its way is raised once more.
  update_irq();
}

bool Serial::loopback() const { return (state_.mcr & kMcrLoop) != 0; }

// A guest that has opened its port and shut it again, or masks it while it prints, empties its FIFO before it
// looks at it: what comes meanwhile waits outside.
bool Serial::takes_input() const { return !loopback() && (!opened_ || (state_.ier & kIerReceived) != 0); }

// 8.8: loopback connects the four modem outputs to the inputs; else a null-modem cable with a peer that is
// always ready.
uint8_t Serial::modem_status() const {
  if (!loopback()) return kMsrCts | kMsrDsr | kMsrCarrier;
  unsigned lines = 0;
  if ((state_.mcr & kMcrRts) != 0) lines |= kMsrCts;
  if ((state_.mcr & kMcrDtr) != 0) lines |= kMsrDsr;
  if ((state_.mcr & kMcrOut1) != 0) lines |= kMsrRing;
  if ((state_.mcr & kMcrOut2) != 0) lines |= kMsrCarrier;
  return static_cast<uint8_t>(lines);
}

uint8_t Serial::interrupt_id() const {
  if ((state_.ier & kIerLineStatus) != 0 && state_.overrun) return kIirLineStatus;
  if ((state_.ier & kIerReceived) != 0 && state_.rx_count > 0) {
    // Bytes below the trigger level wait for a character timeout on hardware; here it has always expired,
    // so that a single key stroke needs no timer.
    const bool reached = !state_.fifo_enabled || state_.rx_count >= state_.rx_trigger;
    return reached ? kIirReceived : kIirTimeout;
  }
  if ((state_.ier & kIerTransmitEmpty) != 0 && state_.tx_empty_pending) return kIirTransmitEmpty;
  if ((state_.ier & kIerModemStatus) != 0 && state_.msr_delta != 0) return kIirModemStatus;
  return kIirNone;
}

// Reading the register acknowledges the transmitter interrupt, when that is the one it shows (table IV).
uint8_t Serial::take_interrupt_id() {
  const uint8_t id = interrupt_id();
  if (id == kIirTransmitEmpty) {
    tell_may_send();
    state_.tx_empty_pending = false;
    update_irq();
  }
  return static_cast<uint8_t>(id | (state_.fifo_enabled ? kIirFifosEnabled : 0));
}

uint8_t Serial::take_received() {
  if (state_.rx_count == 0) return 0;
  const uint8_t byte = state_.rx[state_.rx_head];
  state_.rx_head = static_cast<uint8_t>((state_.rx_head + 1) % SerialState::kFifoSize);
  --state_.rx_count;
  update_irq();
  offer_input_space();
  return byte;
}

uint8_t Serial::take_line_status() {
  unsigned status = kLsrTransmitterEmpty;
  tell_may_send();
  if (state_.rx_count > 0) status |= kLsrDataReady;
  if (state_.overrun) {
    status |= kLsrOverrun;
    state_.overrun = false;
    update_irq();
  }
  return static_cast<uint8_t>(status);
}

uint8_t Serial::take_modem_status() {
  const auto status = static_cast<uint8_t>(modem_status() | state_.msr_delta);
  if (state_.msr_delta != 0) {
    state_.msr_delta = 0;
    update_irq();
  }
  return status;
}

// Needs space in the FIFO.
void Serial::push_received(uint8_t byte) {
  state_.rx[(state_.rx_head + state_.rx_count) % SerialState::kFifoSize] = byte;
  ++state_.rx_count;
}

void Serial::send(uint8_t byte) {
  if (loopback()) {
    if (state_.rx_count < rx_capacity()) {
      push_received(byte);
    } else {
      state_.overrun = true;
    }
  } else {
    const auto out = std::byte{byte};
    output_.transmit({&out, 1});
    ++stats_.bytes_out;
  }
  // The byte has left at once, so the holding register went full and empty again.
  state_.tx_empty_pending = true;
  update_irq();
}

void Serial::write_interrupt_enable(uint8_t value) {
  const auto enabled = static_cast<uint8_t>(~state_.ier & value);
  state_.ier = value & kIerMask;
  // Enabling the transmitter interrupt while the transmitter is empty, as it always is, raises it: drivers
  // start sending by that.
  if ((enabled & kIerTransmitEmpty) != 0) state_.tx_empty_pending = true;
  check_opened();
  update_irq();
  offer_input_space();
}

// 8.5: other bits count only while bit 0 is 1; switching the FIFOs off empties them. Switching them on does
// too on hardware, but not here: Linux enables the received-data interrupt first, and a byte that comes
// between the two would be lost. The transmit FIFO is always empty, so resetting it does nothing.
void Serial::write_fifo_control(uint8_t value) {
  const bool enable = (value & kFcrEnable) != 0;
  const bool switched_off = state_.fifo_enabled && !enable;
  if (switched_off || (enable && (value & kFcrResetReceive) != 0)) {
    state_.rx_head = 0;
    state_.rx_count = 0;
  }
  state_.fifo_enabled = enable;
  if (enable) state_.rx_trigger = kTriggerLevels[value >> kFcrTriggerShift];
  tell_may_send();
  update_irq();
  offer_input_space();
}

void Serial::write_modem_control(uint8_t value) {
  const uint8_t before = modem_status();
  state_.mcr = value & kMcrMask;
  const uint8_t after = modem_status();
  // Delta bits lie four below their lines; the ring indicator's reports only its end.
  unsigned changed = (before ^ after) >> 4;
  if ((after & kMsrRing) != 0) changed &= ~unsigned{kMsrRingEnded};
  state_.msr_delta = static_cast<uint8_t>(state_.msr_delta | changed);
  check_opened();
  update_irq();
  offer_input_space();
}

void Serial::check_opened() {
  if (opened_ || loopback()) return;
  if ((state_.ier & kIerReceived) == 0 || (state_.mcr & kMcrOut2) == 0) return;
  opened_ = true;
  if (on_opened_) on_opened_();
}

void Serial::tell_may_send() const {
  if (state_.fifo_enabled && on_may_send_) on_may_send_();
}

void Serial::offer_input_space() {
  if (!input_refused_ || state_.rx_count > 0 || !takes_input()) return;
  input_refused_ = false;
  if (on_input_space_) on_input_space_();
}

// A PC gates INTR with the OUT2 pin, which loopback holds inactive (8.8).
void Serial::update_irq() {
  const bool gated = (state_.mcr & kMcrOut2) == 0 || loopback();
  const bool level = !gated && interrupt_id() != kIirNone;
  if (level == irq_level_) return;
  irq_level_ = level;
  irq_.set(level);
}

}  // namespace snug
