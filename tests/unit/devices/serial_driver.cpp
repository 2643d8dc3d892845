#include "tests/unit/devices/serial_driver.h"

#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

constexpr unsigned kTx = 0, kRx = 0, kDll = 0, kIer = 1, kDlm = 1, kIir = 2, kFcr = 2, kEfr = 2, kLcr = 3,
                   kMcr = 4, kLsr = 5, kMsr = 6;

}  // namespace

SerialMachine::SerialMachine() {
  EXPECT_TRUE(ports_.bus().add({kBase, 8}, "serial", serial_));
  auto serial = serial_.lock();
  serial->on_input_space([this] { ++space_calls_; });
  serial->on_opened([this] { ++opened_calls_; });
}

size_t SerialMachine::receive(const std::string& text) {
  return serial_.lock()->receive(std::as_bytes(std::span(text)));
}

void SerialMachine::transmit(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) sent_.push_back(static_cast<char>(byte));
}

std::string SerialDriver::autoconfig() {
  // Is there a UART at all: the interrupt enable register keeps four bits.
  const uint8_t saved_ier = machine_.in(kIer);
  machine_.out(kIer, 0);
  machine_.ports().out8(map::kPortPostCode, 0xff);
  const uint8_t cleared = machine_.in(kIer)&0x0f;
  machine_.out(kIer, 0x0f);
  machine_.ports().out8(map::kPortPostCode, 0);
  const uint8_t set = machine_.in(kIer);
  machine_.out(kIer, saved_ier);
  if (cleared != 0 || set != 0x0f) return "no UART: IER does not keep its bits";

  // Loopback: OUT2 comes back as carrier, RTS as clear-to-send.
  const uint8_t saved_mcr = machine_.in(kMcr);
  const uint8_t saved_lcr = machine_.in(kLcr);
  machine_.out(kMcr, 0x10 | 0x08 | 0x02);
  const uint8_t status = machine_.in(kMsr)&0xf0;
  machine_.out(kMcr, saved_mcr);
  if (status != (0x80 | 0x10)) return "no UART: loopback fails";

  machine_.out(kLcr, 0xbf);
  machine_.out(kEfr, 0);
  machine_.out(kLcr, 0);
  machine_.out(kFcr, 0x01);
  std::string type;
  switch (machine_.in(kIir)&0xc0) {
    case 0x00:
      type = "8250 or 16450";
      break;
    case 0x80:
      type = "16550";
      break;
    case 0xc0:
      type = probe_16550a_variants();
      break;
    default:
      type = "unknown";
      break;
  }
  machine_.out(kLcr, saved_lcr);
  machine_.out(kMcr, saved_mcr);
  machine_.out(kFcr, 0x01);
  machine_.out(kFcr, 0x07);
  machine_.out(kFcr, 0x00);
  machine_.in(kRx);
  machine_.out(kIer, 0);
  return type;
}

// Chips that look like a 16550A and have more: none of their extras may answer.
std::string SerialDriver::probe_16550a_variants() {
  machine_.out(kLcr, 0x80);
  if (machine_.in(kEfr) == 0) return "16C950 family: EFR with DLAB";
  machine_.out(kLcr, 0xbf);
  if (machine_.in(kEfr) == 0) return "16650V2: EFR with LCR 0xbf";

  // National Semiconductor: EXCR1 shows the loopback bit inverted or not, depending on the bank.
  machine_.out(kLcr, 0);
  const uint8_t mcr = machine_.in(kMcr);
  machine_.out(kLcr, 0xe0);
  uint8_t excr1 = machine_.in(2);
  if (((excr1 ^ mcr) & 0x10) == 0) {
    machine_.out(kLcr, 0);
    machine_.out(kMcr, mcr ^ 0x10);
    machine_.out(kLcr, 0xe0);
    excr1 = machine_.in(2);
    machine_.out(kLcr, 0);
    machine_.out(kMcr, mcr);
    if (((excr1 ^ mcr) & 0x10) != 0) return "NS16550A";
  }

  // TI16750: a 64-byte FIFO that can only be enabled with DLAB set.
  machine_.out(kLcr, 0);
  machine_.out(kFcr, 0x01 | 0x20);
  const uint8_t plain = machine_.in(kIir)&0xe0;
  machine_.out(kFcr, 0x01);
  machine_.out(kLcr, 0x80);
  machine_.out(kFcr, 0x01 | 0x20);
  const uint8_t latched = machine_.in(kIir)&0xe0;
  machine_.out(kFcr, 0x01);
  machine_.out(kLcr, 0);
  if (plain == 0xc0 && latched == 0xe0) return "16750";

  // XScale: a unit enable bit in IER.
  const uint8_t ier = machine_.in(kIer);
  machine_.out(kIer, static_cast<uint8_t>(ier & ~0x40));
  if ((machine_.in(kIer)&0x40) == 0) {
    machine_.out(kIer, ier | 0x40);
    if ((machine_.in(kIer)&0x40) != 0) return "XScale";
    machine_.out(kIer, ier);
  }
  return "16550A";
}

std::string SerialDriver::startup() {
  machine_.out(kFcr, 0x01);
  machine_.out(kFcr, 0x07);
  machine_.out(kFcr, 0x00);
  for (const unsigned reg : {kLsr, kRx, kIir, kMsr}) machine_.in(reg);
  if (machine_.in(kLsr) == 0xff) return "LSR is 0xff";

  // Does enabling the transmitter interrupt raise it, and does it do so again?
  if ((machine_.in(kLsr)&0x20) == 0) return "the transmitter is not empty";
  machine_.out(kIer, 0x02);
  const uint8_t first = machine_.in(kIir);
  machine_.out(kIer, 0);
  machine_.out(kIer, 0x02);
  const uint8_t second = machine_.in(kIir);
  machine_.out(kIer, 0);
  if ((first & 1) != 0) return "enabling the THRE interrupt does not raise it";
  if ((second & 1) != 0) return "THRE does not reassert";

  machine_.out(kLcr, 0x03);
  machine_.out(kMcr, 0x08);
  machine_.out(kIer, 0x02);
  const uint8_t lsr = machine_.in(kLsr);
  const uint8_t iir = machine_.in(kIir);
  machine_.out(kIer, 0);
  if ((lsr & 0x40) != 0 && (iir & 1) != 0) return "TXEN does not work";
  for (const unsigned reg : {kLsr, kRx, kIir, kMsr}) machine_.in(reg);

  // set_termios: 115200n8, FIFO trigger at 8 bytes.
  set_interrupts(0x05);
  machine_.out(kLcr, 0x83);
  machine_.out(kDll, 0x01);
  machine_.out(kDlm, 0x00);
  machine_.out(kLcr, 0x03);
  machine_.out(kFcr, 0x01);
  machine_.out(kFcr, 0x81);
  machine_.out(kMcr, 0x0b);
  return "";
}

void SerialDriver::shutdown() {
  set_interrupts(0);
  machine_.out(kMcr, 0);
  machine_.out(kFcr, 0x01);
  machine_.out(kFcr, 0x07);
  machine_.out(kFcr, 0x00);
  machine_.in(kRx);
}

void SerialDriver::set_interrupts(uint8_t ier) {
  ier_ = ier;
  machine_.out(kIer, ier);
}

void SerialDriver::write(const std::string& text) {
  queue_.insert(queue_.end(), text.begin(), text.end());
  if ((ier_ & 0x02) == 0) set_interrupts(ier_ | 0x02);
  serve_interrupts();
}

void SerialDriver::serve_interrupts() {
  while (machine_.irq().take_edge()) handle_interrupt();
  EXPECT_FALSE(machine_.irq().level()) << "the line is high and no edge will tell";
}

// As on a shared edge-triggered line: goes on until the chip has nothing to report.
void SerialDriver::handle_interrupt() {
  while ((machine_.in(kIir)&1) == 0) {
    const uint8_t status = machine_.in(kLsr);
    if ((status & 0x01) != 0) receive_characters(status);
    machine_.in(kMsr);
    if ((status & 0x20) != 0 && (ier_ & 0x02) != 0) transmit_characters();
  }
}

void SerialDriver::receive_characters(uint8_t line_status) {
  for (int i = 0; i < 256 && (line_status & 0x01) != 0; ++i) {
    received_.push_back(static_cast<char>(machine_.in(kRx)));
    line_status = machine_.in(kLsr);
  }
}

void SerialDriver::transmit_characters() {
  if (queue_.empty()) return set_interrupts(static_cast<uint8_t>(ier_ & ~0x02));
  for (int i = 0; i < 16 && !queue_.empty(); ++i) {
    machine_.out(kTx, static_cast<uint8_t>(queue_.front()));
    queue_.pop_front();
  }
  if (queue_.empty()) set_interrupts(static_cast<uint8_t>(ier_ & ~0x02));
}

}  // namespace snug::test
