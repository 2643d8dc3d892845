#include "devices/legacy/serial.h"

#include <gtest/gtest.h>

#include "tests/unit/devices/serial_driver.h"

namespace snug::test {
namespace {

constexpr unsigned kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScr = 7;
constexpr uint8_t kOut2 = 0x08, kLoop = 0x10;

std::string random_text(Random& random, size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random.next());
  return text;
}

TEST(Serial, PowerOnState) {
  SerialMachine machine;
  EXPECT_EQ(machine.in(kIer), 0x00);
  EXPECT_EQ(machine.in(kIir), 0x01);
  EXPECT_EQ(machine.in(kLcr), 0x00);
  EXPECT_EQ(machine.in(kMcr), 0x00);
  EXPECT_EQ(machine.in(kLsr), 0x60);
  EXPECT_EQ(machine.in(kMsr), 0xb0);
}

TEST(Serial, IsFoundAs16550A) {
  SerialMachine machine;
  SerialDriver driver(machine);
  EXPECT_EQ(driver.autoconfig(), "16550A");
  EXPECT_EQ(machine.opened_calls(), 0u) << "a probe is no open";
  EXPECT_FALSE(machine.irq().level());
  EXPECT_EQ(machine.sent(), "");
}

TEST(Serial, OpensAndTellsOnce) {
  SerialMachine machine;
  SerialDriver driver(machine);
  ASSERT_EQ(driver.autoconfig(), "16550A");
  EXPECT_EQ(driver.startup(), "");
  EXPECT_EQ(machine.opened_calls(), 1u);
  driver.shutdown();
  EXPECT_EQ(driver.startup(), "");
  EXPECT_EQ(machine.opened_calls(), 1u);
  machine.serial().lock()->reset();
  EXPECT_FALSE(machine.serial().lock()->opened());
  EXPECT_EQ(driver.startup(), "");
  EXPECT_EQ(machine.opened_calls(), 2u);
  EXPECT_TRUE(machine.serial().lock()->opened());
}

TEST(Serial, SendsByInterrupts) {
  SerialMachine machine;
  SerialDriver driver(machine);
  ASSERT_EQ(driver.autoconfig(), "16550A");
  ASSERT_EQ(driver.startup(), "");
  Random random(1);
  const std::string text = random_text(random, 1000);
  driver.write(text);
  EXPECT_EQ(machine.sent(), text);
  driver.write("again");
  EXPECT_EQ(machine.sent(), text + "again");
  EXPECT_EQ(machine.serial().lock()->stats().bytes_out, 1005u);
}

TEST(Serial, SendsByPolling) {
  SerialMachine machine;
  for (const char c : std::string("earlyprintk")) {
    ASSERT_EQ(machine.in(kLsr)&0x60, 0x60);
    machine.out(kData, static_cast<uint8_t>(c));
  }
  EXPECT_EQ(machine.sent(), "earlyprintk");
}

// What a machine that keeps the sent bytes back goes by: from then on a driver looks before it sends.
TEST(Serial, TellsThatBytesMayComeOnceFifosAreOn) {
  SerialMachine machine;
  int calls = 0;
  machine.serial().lock()->on_may_send([&] { ++calls; });
  machine.in(kLsr);
  machine.out(kIer, 0x02);
  machine.in(kIir);
  EXPECT_EQ(calls, 0) << "FIFOs are off";
  machine.out(kFcr, 0x01);
  EXPECT_EQ(calls, 1);
  machine.in(kLsr);
  EXPECT_EQ(calls, 2) << "shown in the line status";
  machine.out(kIer, 0);
  machine.out(kIer, 0x02);
  EXPECT_EQ(machine.in(kIir), 0xc2);
  EXPECT_EQ(calls, 3) << "shown as the interrupt's reason";
  machine.in(kIir);
  EXPECT_EQ(calls, 3) << "no interrupt";
  machine.out(kFcr, 0);
  machine.in(kLsr);
  EXPECT_EQ(calls, 3);
}

TEST(Serial, TransmitterInterruptEdges) {
  SerialMachine machine;
  machine.out(kMcr, kOut2);
  machine.out(kIer, 0x02);
  EXPECT_TRUE(machine.irq().level()) << "enabled while empty";
  EXPECT_EQ(machine.in(kIir), 0x02);
  EXPECT_FALSE(machine.irq().level()) << "identifying it acknowledges it";
  EXPECT_EQ(machine.in(kIir), 0x01);
  machine.out(kIer, 0x02);
  EXPECT_FALSE(machine.irq().level()) << "enabled already";
  machine.out(kData, 'x');
  EXPECT_TRUE(machine.irq().level()) << "sent and empty again";
  machine.out(kIer, 0);
  EXPECT_FALSE(machine.irq().level());
  EXPECT_EQ(machine.in(kIir), 0x01);
}

TEST(Serial, IdentifyingAnotherInterruptKeepsTheTransmitters) {
  SerialMachine machine;
  machine.out(kMcr, kOut2);
  machine.out(kIer, 0x03);
  machine.receive("r");
  EXPECT_EQ(machine.in(kIir), 0x04);
  EXPECT_EQ(machine.in(kData), 'r');
  EXPECT_EQ(machine.in(kIir), 0x02);
  EXPECT_EQ(machine.in(kIir), 0x01);
}

TEST(Serial, ReceivesTenMegabytesWithoutLoss) {
  SerialMachine machine;
  SerialDriver driver(machine);
  ASSERT_EQ(driver.autoconfig(), "16550A");
  ASSERT_EQ(driver.startup(), "");
  Random random(2);
  const std::string text = random_text(random, 10 << 20);
  std::string received;
  size_t pushed = 0;
  unsigned waits = 0;
  while (pushed < text.size()) {
    // The pump offers chunks of any size, and when refused waits to be called.
    const size_t chunk = std::min<size_t>(1 + random.below(40), text.size() - pushed);
    const unsigned calls = machine.space_calls();
    const size_t taken = machine.receive(text.substr(pushed, chunk));
    pushed += taken;
    const bool refused = taken < chunk;
    if (!refused && random.below(4) != 0) continue;
    driver.serve_interrupts();
    received += driver.take_received();
    waits += refused ? 1 : 0;
    ASSERT_EQ(machine.space_calls(), calls + (refused ? 1 : 0));
  }
  driver.serve_interrupts();
  received += driver.take_received();
  EXPECT_TRUE(received == text);
  EXPECT_GT(waits, 1000u);
  EXPECT_EQ(machine.serial().lock()->stats().bytes_in, text.size());
}

TEST(Serial, TriggerLevelsAndTimeout) {
  SerialMachine machine;
  machine.out(kMcr, kOut2);
  machine.out(kIer, 0x01);
  const unsigned levels[] = {1, 4, 8, 14};
  for (unsigned i = 0; i < 4; ++i) {
    machine.out(kFcr, static_cast<uint8_t>(0x03 | i << 6));
    for (unsigned count = 1; count <= 16; ++count) {
      ASSERT_EQ(machine.receive("x"), 1u);
      EXPECT_EQ(machine.in(kIir), count >= levels[i] ? 0xc4 : 0xcc) << levels[i] << " " << count;
      EXPECT_TRUE(machine.irq().level());
    }
    EXPECT_EQ(machine.receive("x"), 0u);
    for (unsigned count = 16; count > 0; --count) EXPECT_EQ(machine.in(kData), 'x');
    EXPECT_FALSE(machine.irq().level());
    EXPECT_EQ(machine.in(kIir), 0xc1);
  }
}

TEST(Serial, WithoutFifosOneByteFits) {
  SerialMachine machine;
  EXPECT_EQ(machine.receive("ab"), 1u);
  EXPECT_EQ(machine.in(kLsr), 0x61);
  EXPECT_EQ(machine.receive("b"), 0u);
  EXPECT_EQ(machine.space_calls(), 0u);
  EXPECT_EQ(machine.in(kData), 'a');
  EXPECT_EQ(machine.space_calls(), 1u);
  EXPECT_EQ(machine.in(kLsr), 0x60);
  EXPECT_EQ(machine.in(kData), 0) << "an empty register";
  EXPECT_EQ(machine.space_calls(), 1u) << "nothing was refused since";
}

TEST(Serial, FifoControl) {
  SerialMachine machine;
  machine.out(kFcr, 0xc6);
  EXPECT_EQ(machine.in(kIir), 0x01) << "without bit 0 the others do not count";
  machine.out(kFcr, 0x01);
  EXPECT_EQ(machine.receive("0123456789abcdefg"), 16u);
  machine.out(kFcr, 0x01);
  EXPECT_EQ(machine.in(kLsr), 0x61) << "enabling twice resets nothing";
  machine.out(kFcr, 0x03);
  EXPECT_EQ(machine.in(kLsr), 0x60);
  EXPECT_EQ(machine.space_calls(), 1u);
  EXPECT_EQ(machine.receive("x"), 1u);
  machine.out(kFcr, 0x00);
  EXPECT_EQ(machine.in(kLsr), 0x60) << "switching it off empties the FIFO";
}

// Linux's 8250 driver: FIFO reset and off, interrupts on, FIFO on.
TEST(Serial, InputThatComesWhileTheFifoIsSwitchedOnStays) {
  SerialMachine machine;
  machine.out(kFcr, 0x01);
  machine.out(kFcr, 0x07);
  machine.out(kFcr, 0x00);
  machine.out(kMcr, kOut2);
  machine.out(kIer, 0x05);
  EXPECT_EQ(machine.receive("echo"), 1u);
  machine.out(kFcr, 0x01);
  machine.out(kFcr, 0x81);
  EXPECT_EQ(machine.in(kData), 'e');
  EXPECT_EQ(machine.receive("cho"), 3u);
  EXPECT_EQ(machine.in(kData), 'c');
}

TEST(Serial, AnOpenedPortTakesNothingWhileReceiveInterruptsAreMasked) {
  SerialMachine machine;
  machine.out(kFcr, 0x01);
  machine.out(kMcr, kOut2);
  machine.out(kIer, 0x05);
  EXPECT_EQ(machine.receive("a"), 1u);
  machine.out(kIer, 0x00);  // a message is printed, or the port is shut
  EXPECT_EQ(machine.receive("b"), 0u);
  EXPECT_EQ(machine.in(kData), 'a');
  EXPECT_EQ(machine.space_calls(), 0u) << "space in the FIFO is not enough";
  machine.out(kIer, 0x05);
  EXPECT_EQ(machine.space_calls(), 1u);
  EXPECT_EQ(machine.receive("b"), 1u);
  EXPECT_EQ(machine.in(kData), 'b');
}

TEST(Serial, LoopbackMapsModemLines) {
  SerialMachine machine;
  const uint8_t lines[][2] = {{0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40},
                              {0x08, 0x80}, {0x0f, 0xf0}, {0x00, 0x00}};
  for (const auto& [mcr, msr] : lines) {
    machine.out(kMcr, kLoop | mcr);
    EXPECT_EQ(machine.in(kMsr)&0xf0, msr);
  }
  machine.out(kMcr, 0xe0);
  EXPECT_EQ(machine.in(kMcr), 0) << "bits 5-7 are always 0";
}

TEST(Serial, ModemDeltas) {
  SerialMachine machine;
  machine.out(kMcr, kLoop | 0x0f);
  machine.in(kMsr);
  EXPECT_EQ(machine.in(kMsr), 0xf0) << "reading clears them";
  machine.out(kMcr, kLoop);
  EXPECT_EQ(machine.in(kMsr), 0x0f);
  machine.out(kMcr, kLoop | 0x04);
  EXPECT_EQ(machine.in(kMsr), 0x40) << "the start of a ring is no event";
  machine.out(kMcr, kLoop | 0x02);
  EXPECT_EQ(machine.in(kMsr), 0x15);
  // Back on the cable the deltas interrupt.
  machine.out(kIer, 0x08);
  machine.out(kMcr, kOut2);
  EXPECT_TRUE(machine.irq().level());
  EXPECT_EQ(machine.in(kIir), 0x00);
  EXPECT_EQ(machine.in(kMsr), 0xba);
  EXPECT_FALSE(machine.irq().level());
}

TEST(Serial, LoopbackReturnsData) {
  SerialMachine machine;
  machine.out(kFcr, 0x01);
  machine.out(kIer, 0x05);
  machine.out(kMcr, kLoop | kOut2);
  for (uint8_t i = 0; i < 16; ++i) machine.out(kData, i);
  EXPECT_EQ(machine.in(kLsr), 0x61);
  EXPECT_FALSE(machine.irq().level()) << "OUT2 is inactive in loopback";
  machine.out(kData, 99);
  EXPECT_EQ(machine.in(kIir), 0xc6);
  EXPECT_EQ(machine.in(kLsr), 0x63) << "overrun";
  EXPECT_EQ(machine.in(kLsr), 0x61) << "reading clears it";
  for (uint8_t i = 0; i < 16; ++i) EXPECT_EQ(machine.in(kData), i);
  EXPECT_EQ(machine.in(kLsr), 0x60);
  EXPECT_EQ(machine.sent(), "");
  EXPECT_EQ(machine.serial().lock()->stats().bytes_out, 0u);
}

TEST(Serial, LoopbackHoldsInputBack) {
  SerialMachine machine;
  machine.out(kFcr, 0x01);
  machine.out(kMcr, kLoop);
  EXPECT_EQ(machine.receive("typed"), 0u);
  EXPECT_EQ(machine.space_calls(), 0u);
  machine.out(kMcr, 0);
  EXPECT_EQ(machine.space_calls(), 1u);
  EXPECT_EQ(machine.receive("typed"), 5u);
}

TEST(Serial, Out2GatesTheInterrupt) {
  SerialMachine machine;
  machine.out(kIer, 0x01);
  machine.receive("x");
  EXPECT_FALSE(machine.irq().level());
  EXPECT_EQ(machine.in(kIir), 0x04);
  EXPECT_EQ(machine.opened_calls(), 0u);
  machine.out(kMcr, kOut2);
  EXPECT_TRUE(machine.irq().level());
  EXPECT_EQ(machine.opened_calls(), 1u);
  machine.out(kMcr, kOut2 | kLoop);
  EXPECT_FALSE(machine.irq().level());
  machine.out(kMcr, kOut2);
  EXPECT_TRUE(machine.irq().level());
  machine.serial().lock()->reset();
  EXPECT_FALSE(machine.irq().level());
}

TEST(Serial, DivisorLatchHidesData) {
  SerialMachine machine;
  machine.receive("k");
  machine.out(kLcr, 0x83);
  machine.out(kData, 0x34);
  machine.out(kIer, 0x12);
  EXPECT_EQ(machine.in(kData), 0x34);
  EXPECT_EQ(machine.in(kIer), 0x12);
  machine.out(kLcr, 0x03);
  EXPECT_EQ(machine.sent(), "");
  EXPECT_EQ(machine.in(kIer), 0);
  EXPECT_EQ(machine.in(kData), 'k');
}

TEST(Serial, ResetLetsRefusedInputGoOn) {
  SerialMachine machine;
  machine.receive("ab");
  machine.serial().lock()->reset();
  EXPECT_EQ(machine.space_calls(), 1u);
  EXPECT_EQ(machine.receive("b"), 1u);
}

TEST(Serial, WideAccessesAreSuccessiveBytes) {
  SerialMachine machine;
  machine.ports().out32(SerialMachine::kBase + 4, 0x5a00000b);
  EXPECT_EQ(machine.in(kMcr), 0x0b);
  EXPECT_EQ(machine.in(kScr), 0x5a);
  EXPECT_EQ(machine.ports().in32(SerialMachine::kBase + 4), 0x5ab0600bu);
  machine.ports().out16(SerialMachine::kBase, 0x0141);
  EXPECT_EQ(machine.sent(), "A");
  EXPECT_EQ(machine.in(kIer), 0x01);
}

}  // namespace
}  // namespace snug::test
