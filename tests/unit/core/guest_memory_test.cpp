#include "vmm/core/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <limits>
#include <thread>
#include <utility>

#include "vmm/base/checked.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/address_map.h"

namespace snug {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(GuestMemory, SmallMemoryIsOneRegion) {
  const auto memory = GuestMemory::create(64 * kMiB);
  ASSERT_TRUE(memory);
  ASSERT_EQ(memory->regions().size(), 1u);
  EXPECT_EQ(memory->end(), 64 * kMiB);
  EXPECT_EQ(memory->low_end(), 64 * kMiB);
}

TEST(GuestMemory, LargeMemoryGoesOnBehindTheHole) {
  const auto memory = GuestMemory::create(5 * kGiB);
  ASSERT_TRUE(memory);
  ASSERT_EQ(memory->regions().size(), 2u);
  EXPECT_EQ(memory->low_end(), map::kHoleStart);
  EXPECT_EQ(memory->regions()[1].gpa, map::kHoleEnd);
  EXPECT_EQ(memory->end(), 6 * kGiB);
  EXPECT_FALSE(memory->contains(map::kHoleStart, 1));
  EXPECT_FALSE(memory->contains(map::kHoleStart - 1, 2));
  EXPECT_FALSE(memory->contains(map::kHoleStart - 1, map::kHoleEnd)) << "a range across the hole is not RAM";
  EXPECT_TRUE(memory->store<uint64_t>(6 * kGiB - 8, 0x1122334455667788));
  EXPECT_EQ(memory->load<uint64_t>(6 * kGiB - 8), 0x1122334455667788u);
  EXPECT_FALSE(memory->store<uint64_t>(6 * kGiB - 7, 1));
}

TEST(GuestMemory, RefusesOddSizes) {
  EXPECT_FALSE(GuestMemory::create(0));
  EXPECT_FALSE(GuestMemory::create(kMiB + 1));
  EXPECT_FALSE(GuestMemory::create(kMax & ~4095ull));
}

TEST(GuestMemory, RangesThatWrapAreNotRam) {
  const auto memory = GuestMemory::create(kMiB);
  ASSERT_TRUE(memory);
  for (const uint64_t gpa : {uint64_t{0}, kMiB - 1, kMiB, kMax - 7, kMax})
    EXPECT_FALSE(memory->contains(gpa, kMax)) << gpa;
  std::array<std::byte, 16> buffer;
  buffer.fill(std::byte{0x55});
  EXPECT_FALSE(memory->read(kMax - 7, buffer));
  EXPECT_FALSE(memory->read(kMiB - 15, buffer));
  EXPECT_EQ(buffer[0], std::byte{0x55}) << "nothing is copied when the range is not all RAM";
  EXPECT_TRUE(memory->read(kMiB - 16, buffer));
  std::vector<iovec> iovecs;
  EXPECT_FALSE(memory->append_iovec(kMiB - 1, 2, iovecs));
  EXPECT_TRUE(iovecs.empty());
}

TEST(GuestMemory, ReadsFilesInPlace) {
  const auto memory = GuestMemory::create(kMiB);
  ASSERT_TRUE(memory);
  const UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::write(file.get(), "abcdef", 6), 6);
  ASSERT_TRUE(memory->read_file(file.get(), 2, 0x1000, 4));
  EXPECT_EQ(memory->load<char>(0x1003), 'f');
  const auto short_file = memory->read_file(file.get(), 2, 0x1000, 5);
  ASSERT_FALSE(short_file);
  EXPECT_NE(short_file.error().message.find("too early"), std::string::npos);
  EXPECT_FALSE(memory->read_file(file.get(), 0, kMiB - 2, 4));
}

// A ring's index: the guest counts on while it is read.
TEST(GuestMemory, NumbersAreReadInOnePiece) {
  const GuestMemory memory = std::move(*GuestMemory::create(kMiB));
  auto* const index = reinterpret_cast<uint16_t*>(memory.regions().front().host + 0x1002);
  std::atomic<bool> done = false;
  std::thread guest([&] {
    while (!done) {
      std::atomic_ref(*index).store(0x44ff, std::memory_order_relaxed);
      std::atomic_ref(*index).store(0x4500, std::memory_order_relaxed);
    }
  });
  int halves = 0;
  for (int i = 0; i < 100'000'000; ++i) {
    const uint16_t now = memory.load<uint16_t>(0x1002).value();
    halves += now != 0x44ff && now != 0x4500 && now != 0;
  }
  done = true;
  guest.join();
  EXPECT_EQ(halves, 0);
}

TEST(GuestMemory, NumbersThatAreNotAlignedAreReadAndWrittenToo) {
  const GuestMemory memory = std::move(*GuestMemory::create(kMiB));
  ASSERT_TRUE(memory.store<uint32_t>(0x1003, 0x12345678));
  EXPECT_EQ(memory.load<uint32_t>(0x1003), 0x12345678u);
  EXPECT_EQ(memory.load<uint8_t>(0x1004), 0x56u);
  EXPECT_FALSE(memory.load<uint64_t>(kMiB - 4).has_value());
  EXPECT_FALSE(memory.store<uint16_t>(kMiB - 1, 1));
}

TEST(GuestMemory, DiscardedPagesAreZero) {
  const auto memory = GuestMemory::create(kMiB);
  ASSERT_TRUE(memory);
  for (uint64_t gpa = 0; gpa < 8 * 4096; gpa += 4096) ASSERT_TRUE(memory->store<uint64_t>(gpa, 1));
  EXPECT_TRUE(memory->discard(4096, 2 * 4096));
  EXPECT_TRUE(memory->discard(0, 0));
  for (uint64_t page = 0; page < 8; ++page)
    EXPECT_EQ(*memory->load<uint64_t>(page * 4096), page == 1 || page == 2 ? 0u : 1u) << page;
  std::array<unsigned char, 4> resident{};
  ASSERT_TRUE(memory->discard(4 * 4096, 2 * 4096));
  ASSERT_EQ(::mincore(memory->regions()[0].host + 3 * 4096, 4 * 4096, resident.data()), 0);
  EXPECT_EQ(resident, (std::array<unsigned char, 4>{1, 0, 0, 1}));
  EXPECT_FALSE(memory->discard(100, 4096));
  EXPECT_FALSE(memory->discard(4096, 100));
  EXPECT_FALSE(memory->discard(kMiB - 4096, 2 * 4096));
  EXPECT_FALSE(memory->discard(kMax & ~4095ull, 4096));
  EXPECT_FALSE(memory->discard(4096, kMax & ~4095ull));
  EXPECT_EQ(*memory->load<uint64_t>(7 * 4096), 1u);
}

// What a file was mapped over must not come back with the file's content.
TEST(GuestMemory, DiscardedPagesOfAFileAreZeroToo) {
  const auto memory = GuestMemory::create(kMiB);
  ASSERT_TRUE(memory);
  const UniqueFd file(::memfd_create("pages", MFD_CLOEXEC));
  const std::vector<std::byte> content(4 * 4096, std::byte{0x77});
  ASSERT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  constexpr uint64_t kHigh = 0x20000, kLow = 0x10000;
  ASSERT_TRUE(memory->map_file(file.get(), 0, kHigh, 4 * 4096));
  ASSERT_TRUE(memory->map_file(file.get(), 0, kLow, 2 * 4096));
  const auto first_byte = [&](uint64_t gpa) { return *memory->load<uint8_t>(gpa); };
  // Of RAM, both files and RAM again.
  ASSERT_TRUE(memory->store<uint8_t>(kLow - 4096, 1));
  ASSERT_TRUE(memory->store<uint8_t>(kLow + 2 * 4096, 1));
  ASSERT_TRUE(memory->discard(kLow - 4096, kHigh + 4096 - (kLow - 4096)));
  for (const uint64_t gpa : {kLow - 4096, kLow, kLow + 4096, kLow + 2 * 4096, kHigh})
    EXPECT_EQ(first_byte(gpa), 0) << gpa;
  for (uint64_t page = 1; page < 4; ++page) EXPECT_EQ(first_byte(kHigh + page * 4096), 0x77) << page;
  // Inside of one, and again.
  ASSERT_TRUE(memory->discard(kHigh + 2 * 4096, 4096));
  ASSERT_TRUE(memory->store<uint8_t>(kHigh + 2 * 4096, 5));
  ASSERT_TRUE(memory->discard(kHigh + 2 * 4096, 4096));
  EXPECT_EQ(first_byte(kHigh + 2 * 4096), 0);
  EXPECT_EQ(first_byte(kHigh + 4096), 0x77);
  EXPECT_EQ(first_byte(kHigh + 3 * 4096), 0x77);
}

}  // namespace
}  // namespace snug
