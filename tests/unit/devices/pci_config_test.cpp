#include <gtest/gtest.h>

#include <array>

#include "devices/pci/config_space.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

constexpr PciIdentity kIdentity = {.vendor = 0x1af4,
                                   .device = 0x1042,
                                   .class_code = 0x018000,
                                   .revision = 1,
                                   .subsystem_vendor = 0x1af4,
                                   .subsystem = 0x1100};

uint64_t guest_in(const ConfigSpace& config, uint64_t offset, size_t width) {
  std::array<std::byte, 8> bytes{};
  config.guest_read(offset, std::span(bytes).first(width));
  return load_le(std::span(bytes).first(width));
}

void guest_out(ConfigSpace& config, uint64_t offset, uint64_t value, size_t width) {
  std::array<std::byte, 8> bytes{};
  store_le(bytes, value);
  config.guest_write(offset, std::span(bytes).first(width));
}

TEST(ConfigSpaceTest, Header) {
  const ConfigSpace config(kIdentity);
  EXPECT_EQ(guest_in(config, 0x00, 4), 0x10421af4u);
  EXPECT_EQ(guest_in(config, 0x04, 4), 0u);
  EXPECT_EQ(guest_in(config, 0x08, 4), 0x01800001u);
  EXPECT_EQ(guest_in(config, 0x0c, 4), 0u);
  EXPECT_EQ(guest_in(config, 0x2c, 4), 0x11001af4u);
  EXPECT_EQ(guest_in(config, 0x34, 1), 0u);
  EXPECT_EQ(guest_in(config, 0x100, 4), 0xffffffffu) << "no extended space";
}

TEST(ConfigSpaceTest, PageIsAlignedAndCurrent) {
  ConfigSpace config(kIdentity);
  const auto page = config.page();
  EXPECT_EQ(page.size(), 4096u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(page.data()) % 4096, 0u);
  guest_out(config, 0x3c, 0x0b, 1);
  EXPECT_EQ(page[0x3c], std::byte{0x0b});
}

TEST(ConfigSpaceTest, OnlyOpenBitsChange) {
  ConfigSpace config(kIdentity);
  for (uint64_t offset = 0; offset < ConfigSpace::kSize; offset += 4)
    guest_out(config, offset, 0xffffffff, 4);
  EXPECT_EQ(guest_in(config, 0x00, 4), 0x10421af4u);
  EXPECT_EQ(guest_in(config, 0x04, 4), 0x00000546u);
  EXPECT_EQ(guest_in(config, 0x08, 4), 0x01800001u);
  EXPECT_EQ(guest_in(config, 0x0c, 4), 0x000000ffu);
  for (uint64_t bar = 0x10; bar < 0x28; bar += 4) EXPECT_EQ(guest_in(config, bar, 4), 0u) << "no BAR";
  EXPECT_EQ(guest_in(config, 0x30, 4), 0u) << "no ROM";
  EXPECT_EQ(guest_in(config, 0x3c, 4), 0x000000ffu);
}

TEST(ConfigSpaceTest, WriteOneToClear) {
  ConfigSpace config(kIdentity);
  config.write16(pci::kStatus, 0xf910);
  guest_out(config, 0x06, 0x8010, 2);
  EXPECT_EQ(guest_in(config, 0x06, 2), 0x7910u);
  guest_out(config, 0x07, 0x10, 1);
  EXPECT_EQ(guest_in(config, 0x06, 2), 0x6910u);
  guest_out(config, 0x06, 0xffff, 2);
  EXPECT_EQ(guest_in(config, 0x06, 2), 0x0010u);
}

TEST(ConfigSpaceTest, InertRegistersHaveNoOpenBit) {
  ConfigSpace config(kIdentity);
  config.add_bar(2, PciBarKind::kMemory64, 0x1000);
  config.allow_clear<uint8_t>(0x40, 0x80);
  for (uint16_t offset = 0; offset < ConfigSpace::kConventional; offset += 4) {
    const bool open = offset == pci::kCommand || offset == pci::kCacheLineSize || offset == pci::kBar0 + 8 ||
                      offset == pci::kBar0 + 12 || offset == pci::kInterruptLine || offset == 0x40;
    EXPECT_EQ(config.inert(offset), !open) << offset;
  }
}

TEST(ConfigSpaceTest, Capabilities) {
  ConfigSpace config(kIdentity);
  EXPECT_EQ(guest_in(config, 0x06, 2), 0u);
  const std::array<std::byte, 10> msix{std::byte{3}};
  const std::array<std::byte, 13> vendor{std::byte{16}};
  EXPECT_EQ(config.add_capability(pci::kCapabilityMsix, msix), 0x40);
  EXPECT_EQ(config.add_capability(pci::kCapabilityVendor, vendor), 0x4c);
  EXPECT_EQ(config.add_capability(pci::kCapabilityVendor, vendor), 0x5c);
  EXPECT_EQ(guest_in(config, 0x06, 2), 0x0010u);
  EXPECT_EQ(guest_in(config, 0x34, 1), 0x40u);
  EXPECT_EQ(guest_in(config, 0x40, 4), 0x00034c11u);
  EXPECT_EQ(guest_in(config, 0x4c, 4), 0x00105c09u);
  EXPECT_EQ(guest_in(config, 0x5c, 4), 0x00100009u);
  guest_out(config, 0x42, 0xc000, 2);
  EXPECT_EQ(guest_in(config, 0x42, 2), 0x0003u);
  config.allow_write<uint16_t>(0x42, 0xc000);
  guest_out(config, 0x42, 0xffff, 2);
  EXPECT_EQ(guest_in(config, 0x42, 2), 0xc003u);
}

// All ones, read back, restore: PCI Local Bus 3.0, 6.2.5.1.
uint64_t size_of_bar(ConfigSpace& config, uint64_t offset, size_t width) {
  uint64_t old = guest_in(config, offset, 4), mask = 0;
  guest_out(config, offset, 0xffffffff, 4);
  mask = guest_in(config, offset, 4);
  guest_out(config, offset, old, 4);
  if (width == 8) {
    old = guest_in(config, offset + 4, 4);
    guest_out(config, offset + 4, 0xffffffff, 4);
    mask |= guest_in(config, offset + 4, 4) << 32;
    guest_out(config, offset + 4, old, 4);
  }
  mask &= ~uint64_t{0xf};
  return width == 8 ? ~mask + 1 : (~mask + 1) & 0xffffffff;
}

TEST(ConfigSpaceTest, BarSizing) {
  for (uint64_t size = 16; size <= 2 * kGiB; size *= 2) {
    ConfigSpace config(kIdentity);
    config.add_bar(1, PciBarKind::kMemory32, size);
    EXPECT_EQ(guest_in(config, 0x14, 4), 0u);
    EXPECT_EQ(size_of_bar(config, 0x14, 4), size);
  }
  for (uint64_t size = 16; size <= 256 * kGiB; size *= 2) {
    ConfigSpace config(kIdentity);
    config.add_bar(4, PciBarKind::kMemory64Prefetchable, size);
    EXPECT_EQ(guest_in(config, 0x20, 4), 0xcu);
    EXPECT_EQ(size_of_bar(config, 0x20, 8), size);
    config.place_bar(4, 0x40'0000'0000);
    EXPECT_EQ(size_of_bar(config, 0x20, 8), size);
    EXPECT_EQ(config.bar(4).address, 0x40'0000'0000u);
  }
}

TEST(ConfigSpaceTest, BarAddresses) {
  ConfigSpace config(kIdentity);
  config.add_bar(0, PciBarKind::kMemory32, 0x4000);
  config.add_bar(2, PciBarKind::kMemory64, 64 * kKiB);
  config.place_bar(0, 0xc0004000);
  EXPECT_EQ(config.bar(0), (PciBar{0, PciBarKind::kMemory32, 0x4000, 0xc0004000, false}));
  config.write16(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster);
  EXPECT_TRUE(config.bus_master());
  EXPECT_EQ(config.bar(0), (PciBar{0, PciBarKind::kMemory32, 0x4000, 0xc0004000, true}));
  guest_out(config, 0x18, 0x1234567890abcdef, 8);
  EXPECT_EQ(config.bar(2).address, 0x1234567890ab0000u);
  EXPECT_EQ(guest_in(config, 0x18, 4), 0x90ab0004u);
  EXPECT_EQ(config.bar(1).size, 0u);
  EXPECT_EQ(config.bar(3).size, 0u) << "the upper half is no BAR";
  EXPECT_EQ(config.bar(99).size, 0u);
}

TEST(ConfigSpaceTest, AccessesPastTheEnd) {
  ConfigSpace config(kIdentity);
  EXPECT_EQ(guest_in(config, 0xffe, 8), ~uint64_t{0});
  EXPECT_EQ(guest_in(config, 0x1000, 4), 0xffffffffu);
  EXPECT_EQ(guest_in(config, ~uint64_t{0}, 8), ~uint64_t{0});
  guest_out(config, 0xfe, 0, 8);
  guest_out(config, 0xffe, 0, 8);
  guest_out(config, ~uint64_t{0}, 0, 8);
  EXPECT_EQ(guest_in(config, 0x100, 4), 0xffffffffu);
}

TEST(ConfigSpaceDeathTest, SetUpMistakesAssert) {
  ConfigSpace config(kIdentity);
  config.add_bar(0, PciBarKind::kMemory64, 4096);
  EXPECT_DEATH(config.add_bar(0, PciBarKind::kMemory32, 4096), "bars_");
  EXPECT_DEATH(config.add_bar(1, PciBarKind::kMemory32, 4096), "writable_");
  EXPECT_DEATH(config.add_bar(5, PciBarKind::kMemory64, 4096), "kBarCount");
  EXPECT_DEATH(config.add_bar(2, PciBarKind::kMemory32, 4095), "has_single_bit");
  EXPECT_DEATH(config.place_bar(0, 4097), "size");
  const std::array<std::byte, 254> large{};
  EXPECT_DEATH(config.add_capability(pci::kCapabilityVendor, large), "kConventional");
}

}  // namespace
}  // namespace snug::test
