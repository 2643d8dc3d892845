// The small devices on I/O ports: i8042, debug exit, guest status, POST code, pvpanic.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/legacy/debug_exit.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pvpanic.h"
#include "tests/unit/devices/fakes.h"
#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr RecordedEvent kResetEvent{GuestEvent::kReset, 0};

class I8042Test : public testing::Test {
 protected:
  I8042Test() { EXPECT_TRUE(ports_.bus().add({map::kPortI8042, I8042::kPorts}, "i8042", i8042_)); }
  FakeLifecycle lifecycle_;
  Synced<I8042> i8042_{lifecycle_};
  Ports ports_;
};

TEST_F(I8042Test, LinuxRebootsThroughIt) {
  EXPECT_EQ(ports_.in8(0x64) & 0x02, 0) << "the driver waits for the input buffer";
  ports_.out8(0x64, 0xfe);
  EXPECT_THAT(lifecycle_.take(), ElementsAre(kResetEvent));
}

TEST_F(I8042Test, OnlyPulsesOfLine0Reset) {
  for (unsigned command = 0; command < 0x100; ++command) {
    ports_.out8(0x64, static_cast<uint8_t>(command));
    const bool resets = command >= 0xf0 && command % 2 == 0;
    EXPECT_EQ(lifecycle_.take().size(), resets ? 1u : 0u) << command;
    EXPECT_EQ(ports_.in8(0x64) & 0x03, 0) << command;
  }
}

TEST_F(I8042Test, OutputPortBit0Resets) {
  ports_.out8(0x60, 0x00);
  EXPECT_THAT(lifecycle_.take(), IsEmpty());
  ports_.out8(0x64, 0xd1);
  ports_.out8(0x60, 0xdf);  // A20 on
  ports_.out8(0x60, 0x00);
  EXPECT_THAT(lifecycle_.take(), IsEmpty()) << "the command takes one byte";
  ports_.out8(0x64, 0xd1);
  ports_.out8(0x64, 0xff);
  ports_.out8(0x60, 0x00);
  EXPECT_THAT(lifecycle_.take(), IsEmpty()) << "another command cancels it";
  ports_.out8(0x64, 0xd1);
  ports_.out8(0x60, 0xfe);
  EXPECT_THAT(lifecycle_.take(), ElementsAre(kResetEvent));
}

TEST_F(I8042Test, SystemControlPort) {
  const uint8_t first = ports_.in8(0x61);
  EXPECT_EQ(first & 0xc0, 0) << "no NMI reasons";
  EXPECT_EQ((first ^ ports_.in8(0x61)) & 0x10, 0x10) << "refresh toggles";
  // Linux's PIT calibration: gate on, speaker off, wait for the output.
  ports_.out8(0x61, static_cast<uint8_t>((ports_.in8(0x61) & ~0x02) | 0x01));
  EXPECT_EQ(ports_.in8(0x61) & 0x23, 0x21);
  EXPECT_EQ(ports_.in8(0x62), 0xff);
  EXPECT_EQ(ports_.in8(0x63), 0xff);
}

TEST(DebugExitTest, PostsTheValue) {
  FakeLifecycle lifecycle;
  Synced<DebugExit> device(lifecycle);
  Ports ports;
  ASSERT_TRUE(ports.bus().add({map::kPortDebugExit, DebugExit::kPorts}, "debug exit", device));
  ports.out8(map::kPortDebugExit, 0x10);
  ports.out16(map::kPortDebugExit, 0x1234);
  ports.out32(map::kPortDebugExit, 0xdeadbeef);
  EXPECT_THAT(lifecycle.take(), ElementsAre(RecordedEvent{GuestEvent::kDebugExit, 0x10},
                                            RecordedEvent{GuestEvent::kDebugExit, 0x1234},
                                            RecordedEvent{GuestEvent::kDebugExit, 0xdeadbeef}));
  EXPECT_EQ(ports.in32(map::kPortDebugExit), 0u);
}

TEST(GuestStatusTest, KeepsTheByte) {
  Synced<GuestStatus> device;
  Ports ports;
  ASSERT_TRUE(ports.bus().add({map::kPortGuestStatus, GuestStatus::kPorts}, "status", device));
  ports.out8(map::kPortGuestStatus, 42);
  EXPECT_EQ(device.lock()->status(), 42);
  EXPECT_EQ(ports.in8(map::kPortGuestStatus), 42);
}

TEST(PostCodeTest, KeepsTheLast) {
  Synced<PostCode> device;
  Ports ports;
  ASSERT_TRUE(ports.bus().add({map::kPortPostCode, PostCode::kPorts}, "POST", device));
  ports.out8(map::kPortPostCode, 0x55);
  EXPECT_EQ(device.lock()->last(), 0x55);
  EXPECT_EQ(ports.in8(map::kPortPostCode), 0x55);
}

TEST(PvpanicTest, ReportsEvents) {
  FakeLifecycle lifecycle;
  Synced<Pvpanic> device(lifecycle);
  Ports ports;
  ASSERT_TRUE(ports.bus().add({map::kPortPvpanic, Pvpanic::kPorts}, "pvpanic", device));
  EXPECT_FALSE(device.lock()->has_driver());
  EXPECT_EQ(ports.in8(map::kPortPvpanic), 0x03);
  EXPECT_TRUE(device.lock()->has_driver());
  ports.out8(map::kPortPvpanic, 0x01);
  EXPECT_THAT(lifecycle.take(), ElementsAre(RecordedEvent{GuestEvent::kPanic, 0}));
  ports.out8(map::kPortPvpanic, 0x02);
  EXPECT_THAT(lifecycle.take(), ElementsAre(RecordedEvent{GuestEvent::kCrashLoaded, 0}));
  ports.out8(map::kPortPvpanic, 0xfc);
  EXPECT_THAT(lifecycle.take(), IsEmpty()) << "events that were not offered";
  ports.out8(map::kPortPvpanic, 0x03);
  EXPECT_THAT(lifecycle.take(), IsEmpty()) << "said before";
}

}  // namespace
}  // namespace snug::test
