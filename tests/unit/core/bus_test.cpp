#include "vmm/core/bus.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <thread>

#include "vmm/base/endian.h"

namespace snug {
namespace {

class Cell final : public BusDevice {
 public:
  void read(uint64_t offset, std::span<std::byte> data) override { store_le(data, offset + value); }
  void write(uint64_t, std::span<const std::byte> data) override { value = load_le(data); }
  uint64_t value = 0;
};

uint64_t read(Bus& bus, uint64_t address, size_t width, bool* claimed = nullptr) {
  std::array<std::byte, 8> data{};
  const bool ok = bus.read(address, std::span(data).first(width));
  if (claimed != nullptr) *claimed = ok;
  return load_le(std::span(data).first(width));
}

TEST(Bus, FindsTheDeviceAndItsOffset) {
  Bus bus("test");
  Synced<Cell> low, high;
  high.lock()->value = 0x100;
  ASSERT_TRUE(bus.add({0x10, 8}, "low", low));
  ASSERT_TRUE(bus.add({0x18, 8}, "high", high));
  EXPECT_EQ(read(bus, 0x13, 1), 3u);
  EXPECT_EQ(read(bus, 0x1f, 2, nullptr), 0xffffu) << "an access that crosses the end is nobody's";
  EXPECT_EQ(read(bus, 0x18, 2), 0x100u);
  EXPECT_EQ(bus.device_at(0x1f), "high");
  EXPECT_EQ(bus.device_at(0x20), "");
}

TEST(Bus, UnmappedReadsAreAllOnes) {
  Bus bus("test");
  bool claimed = true;
  EXPECT_EQ(read(bus, 0x1000, 4, &claimed), 0xffffffffu);
  EXPECT_FALSE(claimed);
  const std::array<std::byte, 4> data{};
  EXPECT_FALSE(bus.write(0x1000, data));
}

TEST(Bus, RefusesOverlapsNamingBoth) {
  Bus bus("test");
  Synced<Cell> a, b;
  ASSERT_TRUE(bus.add({0x100, 0x10}, "serial", a));
  for (const AddressRange range :
       {AddressRange{0xf8, 9}, {0x100, 0x10}, {0x10f, 1}, {0x104, 2}, {0, 0x1000}}) {
    const auto added = bus.add(range, "clock", b);
    ASSERT_FALSE(added);
    EXPECT_NE(added.error().message.find("serial"), std::string::npos);
    EXPECT_NE(added.error().message.find("clock"), std::string::npos);
  }
  EXPECT_TRUE(bus.add({0xf8, 8}, "before", b));
  EXPECT_TRUE(bus.add({0x110, 8}, "behind", b));
}

TEST(Bus, RefusesEmptyAndWrappingRanges) {
  Bus bus("test");
  Synced<Cell> cell;
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(bus.add({0x100, 0}, "empty", cell));
  EXPECT_FALSE(bus.add({kMax, 2}, "wraps", cell));
  EXPECT_TRUE(bus.add({kMax, 1}, "last", cell));
  EXPECT_EQ(read(bus, kMax, 1), 0u);
  EXPECT_EQ(read(bus, kMax, 8), kMax);
}

TEST(Bus, ARemovedRangeIsFree) {
  Bus bus("test");
  Synced<Cell> cell;
  ASSERT_TRUE(bus.add({0x100, 0x10}, "cell", cell));
  bus.remove(0x100);
  EXPECT_EQ(bus.device_at(0x100), "");
  EXPECT_TRUE(bus.add({0x108, 0x10}, "cell", cell));
}

TEST(Bus, ManyThreadsOneDevice) {
  Bus bus("test");
  Synced<Cell> cell;
  ASSERT_TRUE(bus.add({0, 8}, "cell", cell));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&bus] {
      const std::array<std::byte, 4> data{};
      for (int i = 0; i < 2000; ++i) {
        bus.write(0, data);
        read(bus, 0, 4);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(cell.lock()->value, 0u);
}

}  // namespace
}  // namespace snug
