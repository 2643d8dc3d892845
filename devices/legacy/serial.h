// A 16550A UART (National Semiconductor PC16550D data sheet, SNLS378), as COM1 of a PC wires it: its
// interrupt reaches the machine through OUT2.
//
// Knows no terminal: sent bytes go to a SerialOutput at once, so the transmitter is always empty; received
// bytes are pushed in by whoever owns the console and stay there until the guest has room.
//
// Owner: the machine, as Synced<Serial>; irq and output must outlive it.
// Thread: read() and write() on vCPU threads, receive() and the rest on any, all with the device's lock held.
// The guest controls every register and when, if ever, it reads input.
#pragma once

#include <array>
#include <functional>

#include "devices/byte_registers.h"
#include "vmm/core/interrupt.h"

namespace snug {

// Where sent bytes go. Called on vCPU threads with the UART's lock held: must not block and must not call
// the UART back.
class SerialOutput {
 public:
  virtual ~SerialOutput() = default;
  virtual void transmit(std::span<const std::byte> bytes) = 0;
};

// What the guest can observe, with nothing of the host in it.
struct SerialState {
  static constexpr size_t kFifoSize = 16;

  uint8_t ier = 0;
  uint8_t lcr = 0;
  uint8_t mcr = 0;
  uint8_t scr = 0;
  uint8_t divisor_low = 0;
  uint8_t divisor_high = 0;
  uint8_t rx_trigger = 1;  // bytes; from FCR
  uint8_t msr_delta = 0;   // MSR bits 0-3
  bool fifo_enabled = false;
  bool overrun = false;
  bool tx_empty_pending = false;  // THRE interrupt not yet identified
  std::array<uint8_t, kFifoSize> rx{};
  uint8_t rx_head = 0;
  uint8_t rx_count = 0;
};

class Serial final : public ByteRegisters {
 public:
  struct Stats {
    uint64_t bytes_out = 0;  // to the output; looped-back bytes do not count
    uint64_t bytes_in = 0;   // accepted from the console
  };

  Serial(IrqLine& irq, SerialOutput& output) : irq_(irq), output_(output) {}

  // All callbacks: set once, before the guest runs. Called with the device's lock held, so they may only
  // post (write an eventfd): no blocking, no call back into the UART.
  //
  // The guest has drained its FIFO after receive() had refused something.
  void on_input_space(std::function<void()> callback) { on_input_space_ = std::move(callback); }
  // The guest's driver has enabled receive interrupts: its console is open. Once per reset().
  void on_opened(std::function<void()> callback) { on_opened_ = std::move(callback); }

  // The guest has switched the FIFOs on. Its driver then sends no byte without having been shown, not long
  // before, that the transmitter is empty: `callback` is called each time it is shown, and when they are
  // switched on.
  void on_may_send(std::function<void()> callback) { on_may_send_ = std::move(callback); }

  // Input from the console: takes the first bytes, as many as fit the FIFO (16, or 1 while the guest has
  // FIFOs off; 0 in loopback, and while a guest that has opened its port has receive interrupts masked), and
  // returns how many. After fewer than offered, on_input_space tells when to go on. A guest that opens its
  // port empties the FIFO; input meant for its login waits for on_opened.
  size_t receive(std::span<const std::byte> bytes);

  // Power-on state (the MR pin). Input not yet read is lost.
  void reset();

  // For snapshots.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);  // into one just made

  bool opened() const { return opened_; }
  const Stats& stats() const { return stats_; }
  const SerialState& state() const { return state_; }

 private:
  uint8_t read_byte(uint64_t offset) override;
  void write_byte(uint64_t offset, uint8_t value) override;

  bool loopback() const;
  bool takes_input() const;
  uint8_t modem_status() const;
  uint8_t interrupt_id() const;
  uint8_t take_interrupt_id();
  uint8_t take_received();
  uint8_t take_line_status();
  uint8_t take_modem_status();
  size_t rx_capacity() const { return state_.fifo_enabled ? SerialState::kFifoSize : 1; }
  void push_received(uint8_t byte);
  void send(uint8_t byte);
  void write_interrupt_enable(uint8_t value);
  void write_fifo_control(uint8_t value);
  void write_modem_control(uint8_t value);
  void check_opened();
  void offer_input_space();
  void tell_may_send() const;
  void update_irq();

  IrqLine& irq_;
  SerialOutput& output_;
  std::function<void()> on_input_space_;
  std::function<void()> on_opened_;
  std::function<void()> on_may_send_;
  SerialState state_;
  Stats stats_;
  bool irq_level_ = false;
  bool input_refused_ = false;
  bool opened_ = false;
};

}  // namespace snug
