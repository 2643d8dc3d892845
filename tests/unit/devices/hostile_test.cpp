// Every port of every device, every width and alignment, values from a fixed sequence. The sanitizers and the
// devices' own assertions are the judges; here only what must hold after anything is looked at.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>

#include "devices/acpi/power.h"
#include "devices/legacy/debug_exit.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pvpanic.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/serial.h"
#include "devices/pci/windows.h"
#include "tests/unit/devices/fakes.h"
#include "vmm/base/endian.h"
#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

class CountingLifecycle final : public LifecycleSink {
 public:
  void guest_event(GuestEvent, uint32_t) override { ++count; }
  uint64_t count = 0;
};

class CountingOutput final : public SerialOutput {
 public:
  void transmit(std::span<const std::byte> bytes) override { count += bytes.size(); }
  uint64_t count = 0;
};

class HostileDevice final : public PciDevice {
 public:
  HostileDevice() : PciDevice({.vendor = 0x1af4, .device = 0x1041, .class_code = 0x020000}) {
    config_.add_bar(0, PciBarKind::kMemory64Prefetchable, uint64_t{1} << 40);
    config_.add_bar(2, PciBarKind::kMemory32, uint64_t{1} << 31);
    config_.add_bar(5, PciBarKind::kMemory32, 16);
  }
};

class Machine {
 public:
  Machine() {
    add(map::kPortSerial, 8, serial);
    add(map::kPortI8042, I8042::kPorts, i8042);
    add(map::kPortRtc, Rtc::kPorts, rtc);
    add(map::kPortPostCode, PostCode::kPorts, post_code);
    add(map::kPortDebugExit, DebugExit::kPorts, debug_exit);
    add(map::kPortGuestStatus, GuestStatus::kPorts, guest_status);
    add(map::kPortPvpanic, Pvpanic::kPorts, pvpanic);
    add(map::kPortAcpi, AcpiPower::kPorts, power);
    add(map::kPortPciConfig, PciConfigPorts::kPorts, pci_ports);
    EXPECT_TRUE(root.lock()->add(1, device));
    EXPECT_TRUE(mmio.add({map::kEcam, PciRoot::kEcamSize}, "ECAM", ecam));
  }

  template <class Device>
  void add(uint16_t start, uint64_t size, Synced<Device>& added) {
    EXPECT_TRUE(ports.add({start, size}, "device", added));
    ranges.push_back({start, size});
  }

  FakeIrqLine serial_irq, acpi_irq;
  CountingLifecycle lifecycle;
  CountingOutput output;
  std::chrono::sys_time<std::chrono::nanoseconds> now{};
  Synced<Serial> serial{serial_irq, output};
  Synced<I8042> i8042{lifecycle};
  Synced<Rtc> rtc{[this] { return now; }};
  Synced<PostCode> post_code;
  Synced<DebugExit> debug_exit{lifecycle};
  Synced<GuestStatus> guest_status;
  Synced<Pvpanic> pvpanic{lifecycle};
  Synced<AcpiPower> power{acpi_irq, lifecycle};
  Synced<HostileDevice> device;
  Synced<PciRoot> root;
  Synced<PciEcam> ecam{root};
  Synced<PciConfigPorts> pci_ports{root};
  Bus ports{"port"}, mmio{"MMIO"};
  std::vector<AddressRange> ranges;
};

TEST(Hostile, EveryPortWidthAndAlignment) {
  auto machine = std::make_unique<Machine>();
  Random random(3);
  std::array<std::byte, 16> bytes{};
  for (int round = 0; round < 2000; ++round) {
    for (const auto& range : machine->ranges) {
      for (uint64_t offset = 0; offset < range.size; ++offset) {
        for (size_t width = 0; width <= 9; ++width) {
          const auto data = std::span(bytes).first(width);
          store_le(bytes, random.next() >> random.below(60));
          if (random.below(2) == 0) {
            machine->ports.write(range.start + offset, data);
          } else {
            machine->ports.read(range.start + offset, data);
          }
        }
      }
    }
    if (random.below(4) == 0) machine->serial.lock()->receive(std::span(bytes).first(random.below(17)));
    if (random.below(8) == 0) machine->power.lock()->press_power_button();
    const auto host_time = static_cast<int64_t>(random.next() >> random.below(64));
    machine->now = std::chrono::sys_time<std::chrono::nanoseconds>(std::chrono::nanoseconds(host_time));
  }
  EXPECT_EQ(machine->serial.lock()->stats().bytes_out, machine->output.count);
  EXPECT_LE(machine->serial.lock()->state().rx_count, SerialState::kFifoSize);
  EXPECT_GT(machine->lifecycle.count, 0u);
}

TEST(Hostile, EveryEcamByteAndWidth) {
  auto machine = std::make_unique<Machine>();
  Random random(4);
  std::array<std::byte, 16> bytes{};
  for (uint64_t offset = 0; offset < PciRoot::kEcamSize; ++offset) {
    for (size_t width = 1; width <= 9; ++width) {
      const auto data = std::span(bytes).first(width);
      store_le(bytes, random.next());
      if (random.below(2) == 0) {
        machine->mmio.write(map::kEcam + offset, data);
      } else {
        machine->mmio.read(map::kEcam + offset, data);
      }
    }
    // Most of ECAM is empty: stay longer where something answers.
    if (offset % 0x8000 == 0x1000) offset += 0x6000;
  }
  const auto identity = machine->device.lock()->config().read32(pci::kVendorId);
  EXPECT_EQ(identity, 0x10411af4u);
  EXPECT_EQ(machine->device.lock()->config().read8(pci::kHeaderType), 0);
}

}  // namespace
}  // namespace snug::test
