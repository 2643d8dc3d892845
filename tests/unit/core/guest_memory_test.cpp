#include "vmm/core/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <limits>
#include <string>
#include <string_view>
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

// --- files beside RAM -------------------------------------------------------------------------------

constexpr uint64_t kFileGpa = 4 * kGiB;
using Access = GuestMemory::Access;

UniqueFd file_of(uint64_t bytes, std::string_view text) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(::pwrite(file.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return file;
}

GuestMemory::FileRegion region_of(const UniqueFd& file, uint64_t bytes, Access access,
                                  uint64_t gpa = kFileGpa) {
  GuestMemory::FileRegion region{};
  region.gpa = gpa;
  region.size = align_up(bytes, GuestMemory::kFileGranule);
  region.access = access;
  region.fd = file.get();
  region.bytes = bytes;
  return region;
}

TEST(GuestMemory, AFileBesideRamIsTheFileItself) {
  auto memory = GuestMemory::create(kMiB);
  const UniqueFd file = file_of(2 * kMiB, "abcd");
  ASSERT_TRUE(memory->add_file(region_of(file, 2 * kMiB, Access::kReadWrite), "it"));
  EXPECT_EQ(memory->load<char>(kFileGpa + 1), 'b');
  EXPECT_TRUE(memory->store(kFileGpa + 2 * kMiB - 8, uint64_t{0x1122334455667788}));
  uint64_t there = 0;
  EXPECT_EQ(::pread(file.get(), &there, sizeof there, 2 * kMiB - 8), 8);
  EXPECT_EQ(there, 0x1122334455667788u);
  ASSERT_EQ(::pwrite(file.get(), "X", 1, 5), 1);
  EXPECT_EQ(memory->load<char>(kFileGpa + 5), 'X');
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->files()[0].host) % GuestMemory::kFileGranule, 0u);
}

TEST(GuestMemory, AFileBesideRamIsNoRam) {
  auto memory = GuestMemory::create(kMiB);
  const UniqueFd file = file_of(2 * kMiB, "abcd");
  ASSERT_TRUE(memory->add_file(region_of(file, 2 * kMiB, Access::kReadWrite), "it"));
  EXPECT_EQ(memory->regions().size(), 1u);
  EXPECT_EQ(memory->end(), kMiB);
  EXPECT_EQ(memory->end_of_all(), kFileGpa + 2 * kMiB);
  EXPECT_FALSE(memory->contains(kFileGpa, 1));
  EXPECT_TRUE(memory->reaches(kFileGpa, 2 * kMiB, Access::kReadWrite));
  EXPECT_FALSE(memory->reaches(kFileGpa, 2 * kMiB + 1, Access::kRead));
  EXPECT_FALSE(memory->reaches(kFileGpa - 1, 2, Access::kRead));
  EXPECT_FALSE(memory->reaches(kFileGpa + 1, kMax, Access::kRead));
  EXPECT_TRUE(memory->reaches(0, kMiB, Access::kReadWrite));
  EXPECT_FALSE(memory->discard(kFileGpa, 4096)) << "the balloon";
  EXPECT_FALSE(memory->zero(kFileGpa, 4096));
  EXPECT_FALSE(memory->read_file(file.get(), 0, kFileGpa, 4));
  EXPECT_FALSE(memory->map_file(file.get(), 0, kFileGpa, 4096));
  EXPECT_EQ(memory->load<char>(kFileGpa + 3), 'd');
}

TEST(GuestMemory, AReadOnlyFileIsReadAndNotWritten) {
  auto memory = GuestMemory::create(kMiB);
  const UniqueFd file = file_of(5000, "abcd");
  ASSERT_TRUE(memory->add_file(region_of(file, 5000, Access::kRead), "it"));
  EXPECT_EQ(memory->load<uint32_t>(kFileGpa), 0x64636261u);
  EXPECT_EQ(memory->load<uint64_t>(kFileGpa + 2 * kMiB - 8), 0u) << "what is behind the file is zero";
  EXPECT_FALSE(memory->store(kFileGpa, uint32_t{0}));
  EXPECT_FALSE(memory->write(kFileGpa + 1, std::array<std::byte, 3>{}));
  EXPECT_FALSE(memory->reaches(kFileGpa, 1, Access::kReadWrite));
  EXPECT_TRUE(memory->reaches(kFileGpa, 2 * kMiB, Access::kRead));
  // Nor does the kernel write there for a device that has taken its buffer for another.
  std::vector<iovec> parts;
  ASSERT_TRUE(memory->append_iovec(kFileGpa, 4, parts));
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  ASSERT_EQ(::write(ends[1], "evil", 4), 4);
  EXPECT_EQ(::readv(ends[0], parts.data(), 1), -1);
  EXPECT_EQ(errno, EFAULT);
  for (const int end : ends) ::close(end);
  EXPECT_EQ(memory->load<char>(kFileGpa), 'a');
}

TEST(GuestMemory, FilesBesideRamHaveTheirPlaces) {
  auto memory = GuestMemory::create(5 * kGiB);
  const UniqueFd file = file_of(4 * kMiB, "");
  const auto refused = [&](uint64_t gpa, uint64_t size, uint64_t bytes, Access access) {
    auto region = region_of(file, bytes, access, gpa);
    region.size = size;
    return !memory->add_file(region, "it");
  };
  EXPECT_TRUE(refused(6 * kGiB - 2 * kMiB, 2 * kMiB, kMiB, Access::kRead)) << "on RAM";
  EXPECT_TRUE(refused(3 * kGiB, 2 * kMiB, kMiB, Access::kRead)) << "in the hole";
  EXPECT_TRUE(refused(6 * kGiB + 4096, 2 * kMiB, kMiB, Access::kRead));
  EXPECT_TRUE(refused(6 * kGiB, kMiB, kMiB, Access::kRead));
  EXPECT_TRUE(refused(6 * kGiB, 2 * kMiB, 0, Access::kRead));
  EXPECT_TRUE(refused(6 * kGiB, 2 * kMiB, 3 * kMiB, Access::kRead));
  EXPECT_TRUE(refused(6 * kGiB, 2 * kMiB, kMiB, Access::kReadWrite))
      << "what is written behind it would be lost";
  EXPECT_TRUE(refused(kMax - 2 * kMiB + 1, 2 * kMiB, kMiB, Access::kRead));
  EXPECT_FALSE(refused(6 * kGiB, 2 * kMiB, kMiB, Access::kRead));
  EXPECT_TRUE(refused(6 * kGiB, 2 * kMiB, kMiB, Access::kRead)) << "on another file";
  EXPECT_FALSE(refused(6 * kGiB + 2 * kMiB, 4 * kMiB, 4 * kMiB, Access::kReadWrite));
  EXPECT_EQ(memory->files().size(), 2u);
  for (uint64_t i = 2; i < GuestMemory::kFilesMax; ++i)
    EXPECT_FALSE(refused(7 * kGiB + i * 2 * kMiB, 2 * kMiB, kMiB, Access::kRead));
  EXPECT_TRUE(refused(8 * kGiB, 2 * kMiB, kMiB, Access::kRead)) << "too many";
}

TEST(GuestMemory, APageThatAFileHasLostEndsTheProcessWithItsName) {
  const auto touch = [](uint64_t gpa) {
    auto memory = GuestMemory::create(kMiB);
    const UniqueFd file = file_of(2 * kMiB, "abcd");
    ASSERT_TRUE(memory->add_file(region_of(file, 2 * kMiB, Access::kReadWrite), "disk /x/data.img"));
    ASSERT_TRUE(watch_lost_pages(STDERR_FILENO));
    ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
    if (gpa == 0) ::raise(SIGBUS);
    (void)memory->load<char>(gpa);
    ::_exit(memory->load<char>(kFileGpa) == 'a' ? 0 : 1);
  };
  const testing::ExitedWithCode bus_error(128 + SIGBUS);
  EXPECT_EXIT(touch(kFileGpa + 1), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(touch(kFileGpa + 4096), bus_error, "disk /x/data.img: .*has become shorter");
  EXPECT_EXIT(touch(0), bus_error, "got a bus error");
}

TEST(GuestMemory, FilesOfManyMachinesAreWatchedOneBehindTheOther) {
  const UniqueFd file = file_of(2 * kMiB, "abcd");
  for (int machine = 0; machine < 200; ++machine) {
    auto memory = GuestMemory::create(kMiB);
    ASSERT_TRUE(memory->add_file(region_of(file, 2 * kMiB, Access::kRead), std::string(1000, 'n')));
    const GuestMemory moved = std::move(*memory);
    EXPECT_EQ(moved.load<char>(kFileGpa), 'a');
  }
}

}  // namespace
}  // namespace snug
