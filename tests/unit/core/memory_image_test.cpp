// RAM as a sparse file, and RAM that begins with one.
#include "vmm/core/memory_image.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/core/address_map.h"
#include "vmm/core/touched_pages.h"

namespace snug {
namespace {

UniqueFd empty_file() { return UniqueFd(::memfd_create("image", MFD_CLOEXEC)); }

uint64_t bytes_stored(const UniqueFd& file) {
  struct stat status {};
  EXPECT_EQ(::fstat(file.get(), &status), 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

class MemoryImageTest : public testing::TestWithParam<bool> {
 protected:
  // With or without the kernel's word on what was touched.
  MemoryImageTest() {
    if (GetParam()) pagemap_ = open_pagemap();
  }
  Result<void> write(const GuestMemory& memory, const UniqueFd& file) {
    return MemoryImageWriter(memory, pagemap_, file.get()).write_all();
  }
  UniqueFd pagemap_;
};
INSTANTIATE_TEST_SUITE_P(Pagemap, MemoryImageTest, testing::Bool());

TEST_P(MemoryImageTest, WhatWasWrittenIsThereAgainAndZerosTakeNoRoom) {
  const auto memory = GuestMemory::create(8 * kMiB);
  ASSERT_TRUE(memory);
  for (const uint64_t gpa : {uint64_t{0}, uint64_t{4096 * 5 + 7}, 8 * kMiB - 1})
    ASSERT_TRUE(memory->store(gpa, uint8_t{0x5a}));
  ASSERT_TRUE(memory->store(uint64_t{4096 * 9}, uint8_t{0}));  // touched, and zero
  const UniqueFd file = empty_file();
  ASSERT_TRUE(write(*memory, file));
  EXPECT_LE(bytes_stored(file), 3 * 4096u);

  const auto again = GuestMemory::create(8 * kMiB);
  ASSERT_TRUE(map_memory_image(*again, file.get()));
  for (const uint64_t gpa : {uint64_t{0}, uint64_t{4096 * 5 + 7}, 8 * kMiB - 1})
    EXPECT_EQ(again->load<uint8_t>(gpa), 0x5a);
  EXPECT_EQ(again->load<uint8_t>(1), 0);
  // Its own from now on, and the file stays as it is.
  ASSERT_TRUE(again->store(uint64_t{0}, uint8_t{1}));
  std::array<std::byte, 1> first{};
  ASSERT_EQ(::pread(file.get(), first.data(), 1, 0), 1);
  EXPECT_EQ(first[0], std::byte{0x5a});
  // Pages that the guest gives back are zero, not the file's.
  ASSERT_TRUE(again->discard(4096 * 5, 4096));
  EXPECT_EQ(again->load<uint8_t>(4096 * 5 + 7), 0);
}

TEST_P(MemoryImageTest, WhatOthersHaveAsWellIsACopy) {
  // Above the hole, too.
  const uint64_t size = map::kHoleStart + 2 * kMiB;
  const auto places = {uint64_t{0}, uint64_t{4096 * 5 + 7}, map::kHoleStart - 1, map::kHoleEnd + 4096 * 3,
                       map::kHoleEnd + 2 * kMiB - 1};
  const auto memory = GuestMemory::create_shared(size);
  ASSERT_TRUE(memory);
  for (const uint64_t gpa : places) ASSERT_TRUE(memory->store(gpa, uint8_t{0x5a}));
  const UniqueFd file = empty_file();
  ASSERT_TRUE(write(*memory, file));
  EXPECT_LE(bytes_stored(file), 5 * 4096u);

  const auto again = GuestMemory::create_shared(size);
  ASSERT_TRUE(map_memory_image(*again, file.get()));
  const auto other = GuestMemory::attach(*duplicate(again->file()), size);
  ASSERT_TRUE(other);
  for (const uint64_t gpa : places) EXPECT_EQ(other->load<uint8_t>(gpa), 0x5a) << gpa;
  EXPECT_EQ(other->load<uint8_t>(1), 0);
  ASSERT_TRUE(again->store(uint64_t{0}, uint8_t{1}));
  EXPECT_EQ(other->load<uint8_t>(0), 1);
  std::array<std::byte, 1> first{};
  ASSERT_EQ(::pread(file.get(), first.data(), 1, 0), 1);
  EXPECT_EQ(first[0], std::byte{0x5a});
}

TEST_P(MemoryImageTest, WhatWasMappedAndNeverTouchedIsPartOfIt) {
  const auto memory = GuestMemory::create(2 * kMiB);
  const UniqueFd kernel = empty_file();
  const std::string page(4096, 'k');
  ASSERT_EQ(::write(kernel.get(), page.data(), page.size()), 4096);
  ASSERT_TRUE(memory->map_file(kernel.get(), 0, kMiB, 4096));
  const UniqueFd file = empty_file();
  ASSERT_TRUE(write(*memory, file));
  const auto again = GuestMemory::create(2 * kMiB);
  ASSERT_TRUE(map_memory_image(*again, file.get()));
  EXPECT_EQ(again->load<uint8_t>(kMiB + 17), 'k');
}

std::vector<uint64_t> taken(const GuestMemory& memory) {
  std::vector<uint64_t> bits(dirty_words(memory.size()));
  memory.notes().take(bits);
  return bits;
}

std::vector<uint64_t> pages_of(std::span<const uint64_t> bits) {
  std::vector<uint64_t> pages;
  for (uint64_t page = 0; page < bits.size() * kPagesOfWord; ++page)
    if ((bits[page / kPagesOfWord] >> (page % kPagesOfWord) & 1) != 0) pages.push_back(page);
  return pages;
}

TEST_P(MemoryImageTest, WhatChangesMeanwhileIsWrittenAgain) {
  for (const auto& memory : {GuestMemory::create(8 * kMiB), GuestMemory::create_shared(8 * kMiB)}) {
    for (uint64_t page = 0; page < 64; ++page) ASSERT_TRUE(memory->store(page * 4096, uint8_t{1}));
    const UniqueFd file = empty_file();
    taken(*memory);
    MemoryImageWriter writer(*memory, pagemap_, file.get());
    ASSERT_TRUE(writer.write_all());
    ASSERT_TRUE(memory->store(uint64_t{4096 * 3}, uint8_t{2}));     // another value
    ASSERT_TRUE(memory->store(uint64_t{4096 * 1000}, uint8_t{3}));  // a page that was not there
    ASSERT_TRUE(memory->zero(4096 * 5, 4096));                      // zeros
    ASSERT_TRUE(memory->discard(4096 * 7, 4096));                   // gone
    const auto dirty = taken(*memory);
    EXPECT_EQ(pages_of(dirty), (std::vector<uint64_t>{3, 5, 7, 1000}));
    ASSERT_TRUE(writer.write_pages(dirty));
    EXPECT_LE(bytes_stored(file), 63 * 4096u);
    const auto again = GuestMemory::create(8 * kMiB);
    ASSERT_TRUE(map_memory_image(*again, file.get()));
    for (uint64_t page = 0; page < 64; ++page) {
      const uint8_t expected = page == 3 ? 2 : page == 5 || page == 7 ? 0 : 1;
      EXPECT_EQ(again->load<uint8_t>(page * 4096), expected) << page;
    }
    EXPECT_EQ(again->load<uint8_t>(4096 * 1000), 3);
  }
}

TEST_P(MemoryImageTest, PagesAboveTheHoleFollowThoseBelowIt) {
  const auto memory = GuestMemory::create(map::kHoleStart + 8 * kMiB);
  const UniqueFd file = empty_file();
  MemoryImageWriter writer(*memory, pagemap_, file.get());
  // All of 3 GiB would be looked at without a page map.
  if (!GetParam()) return;
  taken(*memory);
  ASSERT_TRUE(writer.write_all());
  ASSERT_TRUE(memory->store(map::kHoleStart - 4096, uint8_t{4}));
  ASSERT_TRUE(memory->store(map::kHoleEnd + 4096 * 2, uint8_t{5}));
  const auto dirty = taken(*memory);
  EXPECT_EQ(pages_of(dirty), (std::vector<uint64_t>{map::kHoleStart / 4096 - 1, map::kHoleStart / 4096 + 2}));
  ASSERT_TRUE(writer.write_pages(dirty));
  EXPECT_EQ(bytes_stored(file), 2 * 4096u);
  const auto again = GuestMemory::create(memory->size());
  ASSERT_TRUE(map_memory_image(*again, file.get()));
  EXPECT_EQ(again->load<uint8_t>(map::kHoleStart - 4096), 4);
  EXPECT_EQ(again->load<uint8_t>(map::kHoleEnd + 4096 * 2), 5);
}

TEST_P(MemoryImageTest, HolesOfWhatItBeganWithStayHoles) {
  const auto first = GuestMemory::create(8 * kMiB);
  for (const uint64_t page : {10, 11, 900}) ASSERT_TRUE(first->store(page * 4096, uint8_t{9}));
  const UniqueFd file = empty_file();
  ASSERT_TRUE(write(*first, file));
  const uint64_t stored = bytes_stored(file);
  const auto second = GuestMemory::create(8 * kMiB);
  ASSERT_TRUE(map_memory_image(*second, file.get()));
  ASSERT_TRUE(second->store(uint64_t{500 * 4096}, uint8_t{7}));
  const UniqueFd other = empty_file();
  ASSERT_TRUE(write(*second, other));
  // A file in memory gets the page that is written to, and no other.
  if (GetParam()) {
    EXPECT_LE(bytes_stored(file), stored + 4096) << "holes were looked at";
  }
  EXPECT_EQ(bytes_stored(other), stored + 4096);
  const auto third = GuestMemory::create(8 * kMiB);
  ASSERT_TRUE(map_memory_image(*third, other.get()));
  for (const uint64_t page : {10, 11, 900}) EXPECT_EQ(third->load<uint8_t>(page * 4096), 9);
  EXPECT_EQ(third->load<uint8_t>(500 * 4096), 7);
}

TEST_P(MemoryImageTest, AFileOfAnotherSizeIsRefused) {
  const auto memory = GuestMemory::create(2 * kMiB);
  const UniqueFd file = empty_file();
  EXPECT_FALSE(map_memory_image(*memory, file.get()));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(4 * kMiB)), 0);
  EXPECT_FALSE(map_memory_image(*memory, file.get()));
}

// Of another process's writes only the file tells.
TEST_P(MemoryImageTest, MemoryOfSeveralProcessesIsWrittenAndCopied) {
  const auto memory = GuestMemory::create_shared(2 * kMiB);
  ASSERT_TRUE(memory->store(uint64_t{4096 * 3}, uint8_t{7}));
  const uint8_t other = 8;
  ASSERT_EQ(::pwrite(memory->file(), &other, 1, 4096 * 100), 1);
  const UniqueFd file = empty_file();
  ASSERT_TRUE(write(*memory, file));
  EXPECT_LE(bytes_stored(file), 2 * 4096u);
  for (const auto& again : {GuestMemory::create_shared(2 * kMiB), GuestMemory::create(2 * kMiB)}) {
    ASSERT_TRUE(map_memory_image(*again, file.get()));
    EXPECT_EQ(again->load<uint8_t>(4096 * 3), 7);
    EXPECT_EQ(again->load<uint8_t>(4096 * 100), 8);
    EXPECT_EQ(again->load<uint8_t>(4096 * 101), 0);
  }
}

// --- pages that a guest writes to at once ----------------------------------------------------------------

class TouchedPages : public testing::Test {
 protected:
  // RAM that begins with a file, of which each page has its number.
  GuestMemory begin() {
    auto memory = GuestMemory::create(kSize);
    EXPECT_TRUE(memory);
    EXPECT_TRUE(map_memory_image(*memory, file_.get()));
    return std::move(*memory);
  }
  void SetUp() override {
    const auto memory = GuestMemory::create(kSize);
    ASSERT_TRUE(memory);
    for (uint64_t gpa = 0; gpa < kSize; gpa += 4096) ASSERT_TRUE(memory->store(gpa, gpa / 4096 + 1));
    ASSERT_TRUE(MemoryImageWriter(*memory, pagemap_, file_.get()).write_all());
  }
  // Which pages the process has as its own.
  std::vector<uint64_t> own(const GuestMemory& memory) {
    std::vector<uint64_t> found;
    const std::string text = touched_pages(memory, pagemap_);
    for (size_t at = 0; at < text.size(); at += 8) {
      std::array<uint32_t, 2> run{};
      std::memcpy(run.data(), text.data() + at, 8);
      for (uint32_t i = 0; i < run[1]; ++i) found.push_back(run[0] + i);
    }
    return found;
  }
  static std::string run(uint32_t first, uint32_t count) {
    const std::array<uint32_t, 2> numbers{first, count};
    return {reinterpret_cast<const char*>(numbers.data()), sizeof numbers};
  }

  static constexpr uint64_t kSize = 32 * kMiB;
  UniqueFd pagemap_ = open_pagemap();
  UniqueFd file_ = empty_file();
};

TEST_F(TouchedPages, AreTheOnesThatWereWrittenToAndTheNextOnesFromTheStart) {
  const GuestMemory memory = begin();
  EXPECT_EQ(touched_pages(memory, pagemap_), "");
  for (const uint64_t page : {7, 8, 9, 4000}) ASSERT_TRUE(memory.store(page * 4096 + 8, uint64_t{1}));
  EXPECT_EQ(memory.load<uint64_t>(uint64_t{100} * 4096), 101U);  // reading is no writing
  const std::string touched = touched_pages(memory, pagemap_);
  EXPECT_EQ(touched, run(7, 3) + run(4000, 1));
  const GuestMemory next = begin();
  own_pages(next, touched);
  EXPECT_EQ(own(next), (std::vector<uint64_t>{7, 8, 9, 4000}));
  for (const uint64_t page : {6, 7, 4000}) EXPECT_EQ(next.load<uint64_t>(page * 4096), page + 1);
}

TEST_F(TouchedPages, MayBeAnything) {
  const GuestMemory memory = begin();
  own_pages(memory, "");
  own_pages(memory, "seven b");
  own_pages(memory, run(8192, 1) + run(0xffffffff, 0xffffffff));
  own_pages(memory, run(8191, 2));
  own_pages(memory, run(5, 0));
  EXPECT_EQ(own(memory), std::vector<uint64_t>());
  own_pages(memory, run(9000, 1) + run(3, 1) + "x");
  EXPECT_EQ(own(memory), std::vector<uint64_t>{3});
  own_pages(memory, run(10, 4097));  // too many
  EXPECT_EQ(own(memory), std::vector<uint64_t>{3});
}

TEST_F(TouchedPages, NoneWhereThereAreTooMany) {
  const GuestMemory memory = begin();
  for (uint64_t page = 0; page < 4097; ++page) ASSERT_TRUE(memory.store(page * 4096, uint64_t{1}));
  EXPECT_EQ(touched_pages(memory, pagemap_), "");
}

}  // namespace
}  // namespace snug
