#include "devices/pci/root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <map>

#include "devices/pci/windows.h"
#include "tests/unit/devices/fakes.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/core/address_map.h"

namespace snug::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr PciIdentity kDisk = {.vendor = 0x1af4, .device = 0x1042, .class_code = 0x018000, .revision = 1};

// A device with a 64-bit BAR that notes what the root complex tells it.
class TestDevice final : public PciDevice {
 public:
  TestDevice() : PciDevice(kDisk) {
    config_.add_bar(0, PciBarKind::kMemory64, 0x4000);
    config_.place_bar(0, map::kPciMmio32);
    config_.add_bar(2, PciBarKind::kMemory32, 0x1000);
    config_.place_bar(2, map::kPciMmio32 + 0x4000);
    config_.write16(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster);
  }
  void before_config_read(uint16_t offset, size_t length) override { note(reads_, offset, length); }
  void after_config_write(uint16_t offset, size_t length) override { note(writes_, offset, length); }
  void bar_changed(const PciBar&, const PciBar& now) override { moves_.push_back(now); }
  bool config_is_memory() const override { return config_.read8(pci::kInterruptLine) != 0x77; }

  using Accesses = std::vector<std::pair<unsigned, size_t>>;
  Accesses take_reads() { return std::exchange(reads_, {}); }
  Accesses take_writes() { return std::exchange(writes_, {}); }
  std::vector<PciBar> take_moves() { return std::exchange(moves_, {}); }

 private:
  static void note(Accesses& accesses, unsigned offset, size_t length) {
    EXPECT_LE(offset % 4 + length, 4u) << "across a dword";
    EXPECT_LE(offset + length, ConfigSpace::kSize);
    accesses.emplace_back(offset, length);
  }
  Accesses reads_, writes_;
  std::vector<PciBar> moves_;
};

struct BarMove {
  unsigned slot, index;
  uint64_t address;
  bool enabled;
  bool operator==(const BarMove&) const = default;
};

class RecordingListener final : public PciBarListener {
 public:
  void config_is_memory(uint8_t slot, bool is_memory) override { memory_.emplace_back(slot, is_memory); }
  void bar_changed(uint8_t slot, const PciBar&, const PciBar& now) override {
    moves_.push_back({slot, now.index, now.address, now.enabled});
  }
  std::vector<BarMove> take() { return std::exchange(moves_, {}); }
  std::vector<std::pair<unsigned, bool>> take_memory() { return std::exchange(memory_, {}); }

 private:
  std::vector<BarMove> moves_;
  std::vector<std::pair<unsigned, bool>> memory_;
};

// A guest that reads configuration space by both mechanisms.
class PciRootTest : public testing::Test {
 protected:
  PciRootTest() {
    EXPECT_TRUE(root_.lock()->add(3, device_));
    EXPECT_TRUE(mmio_.add({map::kEcam, PciRoot::kEcamSize}, "ECAM", ecam_));
    EXPECT_TRUE(ports_.bus().add({map::kPortPciConfig, PciConfigPorts::kPorts}, "PCI", config_ports_));
    device_.lock()->take_moves();
  }

  static uint64_t ecam_address(unsigned slot, unsigned function, unsigned offset) {
    return map::kEcam + (slot << 15) + (function << 12) + offset;
  }
  uint64_t read(uint64_t address, size_t width) {
    std::array<std::byte, 8> bytes{};
    mmio_.read(address, std::span(bytes).first(width));
    return load_le(bytes);
  }
  void write(uint64_t address, uint64_t value, size_t width) {
    std::array<std::byte, 8> bytes{};
    store_le(bytes, value);
    mmio_.write(address, std::span(bytes).first(width));
  }
  void select(unsigned slot, unsigned function, unsigned offset) {
    ports_.out32(0xcf8, 0x80000000 | slot << 11 | function << 8 | (offset & 0xfc));
  }
  uint32_t conf1_read(unsigned slot, unsigned function, unsigned offset) {
    select(slot, function, offset);
    return ports_.in32(0xcfc);
  }

  // As Linux scans a bus: vendor and device, then functions if the header says that there are more.
  template <class Read>
  std::map<std::pair<unsigned, unsigned>, uint32_t> scan(Read read32) {
    std::map<std::pair<unsigned, unsigned>, uint32_t> found;
    for (unsigned slot = 0; slot < 32; ++slot) {
      for (unsigned function = 0; function < 8; ++function) {
        const uint32_t id = read32(slot, function, 0u);
        if (id != 0xffffffff && id != 0 && (id & 0xffff) != 0xffff) found[{slot, function}] = id;
        if (function == 0 && (read32(slot, function, 0x0c) & 0x00800000) == 0) break;
      }
    }
    return found;
  }

  RecordingListener listener_;
  Synced<TestDevice> device_;
  Synced<PciRoot> root_{&listener_};
  Synced<PciEcam> ecam_{root_};
  Synced<PciConfigPorts> config_ports_{root_};
  Bus mmio_{"MMIO"};
  Ports ports_;
};

TEST_F(PciRootTest, ScanFindsTheSameByBothMechanisms) {
  const auto by_ecam = scan([this](unsigned slot, unsigned function, unsigned offset) {
    return static_cast<uint32_t>(read(ecam_address(slot, function, offset), 4));
  });
  const auto by_ports = scan([this](unsigned slot, unsigned function, unsigned offset) {
    return conf1_read(slot, function, offset);
  });
  EXPECT_THAT(by_ecam, ElementsAre(std::pair{std::pair{0u, 0u}, 0x00081b36u},
                                   std::pair{std::pair{3u, 0u}, 0x10421af4u}));
  EXPECT_EQ(by_ecam, by_ports);
  EXPECT_EQ(conf1_read(0, 0, 0x08) >> 8, 0x060000u) << "a host bridge";
}

// pci_check_type1() and what it must not be confused by.
TEST_F(PciRootTest, LinuxDetectsMechanism1) {
  ports_.out8(0xcfb, 0x01);
  const uint32_t saved = ports_.in32(0xcf8);
  ports_.out32(0xcf8, 0x80000000);
  EXPECT_EQ(ports_.in32(0xcf8), 0x80000000u);
  EXPECT_EQ(ports_.in16(0xcfc + 2), 0x0008u);
  ports_.out32(0xcf8, saved);
  EXPECT_EQ(ports_.in32(0xcf8), 0u) << "the byte write was no address";
}

TEST_F(PciRootTest, ConfigAddressIsADwordRegister) {
  select(3, 0, 0);
  ports_.out8(0xcf8, 0x04);
  ports_.out16(0xcf8, 0x0004);
  ports_.out8(0xcf9, 0x06);
  EXPECT_EQ(ports_.in32(0xcfc), 0x10421af4u);
  EXPECT_EQ(ports_.in8(0xcf9), 0xff);
  EXPECT_EQ(ports_.in16(0xcfa), 0xffff);
  EXPECT_EQ(ports_.in32(0xcfa), 0xffffffffu) << "half address, half data";
  ports_.out32(0xcf8, 0xffffffff);
  EXPECT_EQ(ports_.in32(0xcf8), 0x80fffffcu);
}

TEST_F(PciRootTest, ConfigDataOfAnyWidth) {
  select(3, 0, 0);
  EXPECT_EQ(ports_.in8(0xcfc), 0xf4);
  EXPECT_EQ(ports_.in8(0xcff), 0x10);
  EXPECT_EQ(ports_.in16(0xcfd), 0x421a);
  EXPECT_EQ(ports_.in16(0xcfe), 0x1042);
  select(3, 0, 0x3c);
  ports_.out8(0xcfc, 0x0a);
  EXPECT_EQ(conf1_read(3, 0, 0x3c), 0x0au);
  ports_.out32(0xcf8, 0x00001800);
  EXPECT_EQ(ports_.in32(0xcfc), 0xffffffffu) << "not enabled";
  ports_.out32(0xcf8, 0x80011800);
  EXPECT_EQ(ports_.in32(0xcfc), 0xffffffffu) << "bus 1";
}

TEST_F(PciRootTest, AbsentFunctionsReadAllOnes) {
  EXPECT_EQ(read(ecam_address(3, 1, 0), 4), 0xffffffffu);
  EXPECT_EQ(read(ecam_address(4, 0, 0), 8), ~uint64_t{0});
  EXPECT_EQ(read(ecam_address(31, 7, 0xffc), 4), 0xffffffffu);
  write(ecam_address(4, 0, 0), 0, 8);
  EXPECT_EQ(conf1_read(3, 7, 0), 0xffffffffu);
}

TEST_F(PciRootTest, AccessesAcrossFunctions) {
  // The last function of slot 2, then the first of slot 3.
  EXPECT_EQ(read(ecam_address(2, 7, 0xffc), 8), 0x10421af4ffffffffu);
  EXPECT_EQ(read(ecam_address(2, 7, 0xffe), 4), 0x1af4ffffu);
  EXPECT_EQ(read(ecam_address(3, 0, 0xfff), 2), 0xffffu);
  device_.lock()->take_writes();
  write(ecam_address(2, 7, 0xffe), 0, 8);
  EXPECT_THAT(device_.lock()->take_writes(), ElementsAre(std::pair{0u, size_t{4}}, std::pair{4u, size_t{2}}));
}

TEST_F(PciRootTest, UnalignedAccessesAreSplitAtDwords) {
  EXPECT_EQ(read(ecam_address(3, 0, 1), 8), 0x0100'0000'0610'421au)
      << "vendor ID, device ID, command, status, revision";
  EXPECT_THAT(device_.lock()->take_reads(),
              ElementsAre(std::pair{1u, size_t{3}}, std::pair{4u, size_t{4}}, std::pair{8u, size_t{1}}));
}

TEST_F(PciRootTest, SizingTellsAboutDecodingOnly) {
  const uint64_t command = ecam_address(3, 0, 4), bar = ecam_address(3, 0, 0x10);
  const uint16_t old_command = static_cast<uint16_t>(read(command, 2));
  write(command, old_command & ~3u, 2);
  EXPECT_THAT(listener_.take(), ElementsAre(BarMove{3, 0, map::kPciMmio32, false},
                                            BarMove{3, 2, map::kPciMmio32 + 0x4000, false}));
  const uint64_t old = read(bar, 4), old_high = read(bar + 4, 4);
  write(bar, 0xffffffff, 4);
  EXPECT_EQ(read(bar, 4), 0xffffc004u);
  write(bar, old, 4);
  write(bar + 4, 0xffffffff, 4);
  EXPECT_EQ(read(bar + 4, 4), 0xffffffffu);
  write(bar + 4, old_high, 4);
  EXPECT_THAT(listener_.take(), IsEmpty());
  write(command, old_command, 2);
  EXPECT_THAT(listener_.take(), ElementsAre(BarMove{3, 0, map::kPciMmio32, true},
                                            BarMove{3, 2, map::kPciMmio32 + 0x4000, true}));
  EXPECT_EQ(device_.lock()->take_moves().size(), 4u);
}

TEST_F(PciRootTest, MovingABar) {
  write(ecam_address(3, 0, 0x18), 0xd0000fff, 4);
  EXPECT_THAT(listener_.take(), ElementsAre(BarMove{3, 2, 0xd0000000, true}));
  write(ecam_address(3, 0, 0x18), 0xd0000000, 4);
  EXPECT_THAT(listener_.take(), IsEmpty()) << "where it was";
  write(ecam_address(3, 0, 0x10), 0x40'0000'0000, 8);
  EXPECT_THAT(listener_.take(), ElementsAre(BarMove{3, 0, 0, true}, BarMove{3, 0, 0x40'0000'0000, true}))
      << "dword by dword";
}

TEST_F(PciRootTest, SlotsAreTakenOnce) {
  Synced<TestDevice> other;
  EXPECT_FALSE(root_.lock()->add(3, other));
  EXPECT_FALSE(root_.lock()->add(0, other)) << "the host bridge";
  EXPECT_FALSE(root_.lock()->add(32, other));
  EXPECT_TRUE(root_.lock()->add(31, other));
}

TEST_F(PciRootTest, TellsWhenReadsHaveToBePreparedFor) {
  write(ecam_address(3, 0, pci::kInterruptLine), 0x77, 1);
  EXPECT_THAT(listener_.take_memory(), ElementsAre(std::pair(3u, false)));
  write(ecam_address(3, 0, pci::kCacheLineSize), 8, 1);
  EXPECT_THAT(listener_.take_memory(), IsEmpty());
  write(ecam_address(3, 0, pci::kInterruptLine), 11, 1);
  EXPECT_THAT(listener_.take_memory(), ElementsAre(std::pair(3u, true)));
}

}  // namespace
}  // namespace snug::test
