#include "devices/acpi/power.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/devices/fakes.h"
#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class AcpiPowerTest : public testing::Test {
 protected:
  AcpiPowerTest() { EXPECT_TRUE(ports_.bus().add({map::kPortAcpi, AcpiPower::kPorts}, "acpi", power_)); }
  FakeIrqLine irq_;
  FakeLifecycle lifecycle_;
  Synced<AcpiPower> power_{irq_, lifecycle_};
  Ports ports_;
};

TEST_F(AcpiPowerTest, SleepS5PowersOff) {
  for (unsigned value = 0; value < 0x100; ++value) {
    ports_.out8(map::kAcpiSleepControl, static_cast<uint8_t>(value));
    const bool off = (value & 0x20) != 0 && ((value >> 2) & 7) == map::kAcpiSleepTypeS5;
    EXPECT_EQ(lifecycle_.take().size(), off ? 1u : 0u) << value;
  }
  // As Linux does it: the type alone is never written, SLP_EN comes with it.
  ports_.out8(map::kAcpiSleepStatus, 0x80);
  ports_.out8(map::kAcpiSleepControl, map::kAcpiSleepTypeS5 << 2 | 0x20);
  EXPECT_THAT(lifecycle_.take(), ElementsAre(RecordedEvent{GuestEvent::kPowerOff, 0}));
  EXPECT_EQ(ports_.in8(map::kAcpiSleepStatus), 0);
}

TEST_F(AcpiPowerTest, ResetRegister) {
  ports_.out8(map::kAcpiReset, 0x00);
  ports_.out8(map::kAcpiReset, 0x06);
  EXPECT_THAT(lifecycle_.take(), IsEmpty());
  ports_.out8(map::kAcpiReset, map::kAcpiResetValue);
  EXPECT_THAT(lifecycle_.take(), ElementsAre(RecordedEvent{GuestEvent::kReset, 0}));
}

TEST_F(AcpiPowerTest, PowerButton) {
  EXPECT_EQ(ports_.in8(map::kAcpiEvents), 0);
  power_.lock()->press_power_button();
  power_.lock()->press_power_button();
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(ports_.in8(map::kAcpiEvents), map::kAcpiEventPowerButton);
  ports_.out8(map::kAcpiEvents, static_cast<uint8_t>(~map::kAcpiEventPowerButton));
  EXPECT_TRUE(irq_.level()) << "another event was acknowledged";
  ports_.out8(map::kAcpiEvents, map::kAcpiEventPowerButton);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(ports_.in8(map::kAcpiEvents), 0);
  ports_.out8(map::kAcpiEvents, 0xff);
  EXPECT_FALSE(irq_.level()) << "a guest cannot raise events";
  power_.lock()->press_power_button();
  EXPECT_TRUE(irq_.level());
}

}  // namespace
}  // namespace snug::test
