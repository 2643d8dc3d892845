#include "vmm/core/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <limits>

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

}  // namespace
}  // namespace snug
