// A driver for the UART that goes through the steps of Linux's 8250 driver: the same registers in the same
// order, with the same conclusions.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "devices/legacy/serial.h"
#include "tests/unit/devices/fakes.h"

namespace snug::test {

// The UART on a port bus, with both its ends in the test's hands.
class SerialMachine final : public SerialOutput {
 public:
  SerialMachine();

  static constexpr uint16_t kBase = 0x3f8;
  uint8_t in(unsigned reg) { return ports_.in8(kBase + reg); }
  void out(unsigned reg, uint8_t value) { ports_.out8(kBase + reg, value); }
  Ports& ports() { return ports_; }

  size_t receive(const std::string& text);
  const std::string& sent() const { return sent_; }
  FakeIrqLine& irq() { return irq_; }
  Synced<Serial>& serial() { return serial_; }
  unsigned space_calls() const { return space_calls_; }
  unsigned opened_calls() const { return opened_calls_; }

 private:
  void transmit(std::span<const std::byte> bytes) override;

  FakeIrqLine irq_;
  std::string sent_;
  unsigned space_calls_ = 0;
  unsigned opened_calls_ = 0;
  Synced<Serial> serial_{irq_, static_cast<SerialOutput&>(*this)};
  Ports ports_;
};

class SerialDriver {
 public:
  explicit SerialDriver(SerialMachine& machine) : machine_(machine) {}

  // What autoconfig() finds: "16550A", or what made it think otherwise.
  std::string autoconfig();
  // Opens the port; what it found wrong on the way, "" when nothing.
  std::string startup();
  void shutdown();

  // Queues text and lets interrupts send it.
  void write(const std::string& text);
  // Runs the interrupt handler for every edge of the line; fails the test when the line stays high behind it.
  void serve_interrupts();
  const std::string& received() const { return received_; }
  std::string take_received() { return std::exchange(received_, {}); }

 private:
  std::string probe_16550a_variants();
  void handle_interrupt();
  void receive_characters(uint8_t line_status);
  void transmit_characters();
  void set_interrupts(uint8_t ier);

  SerialMachine& machine_;
  uint8_t ier_ = 0;
  std::deque<char> queue_;
  std::string received_;
};

}  // namespace snug::test
