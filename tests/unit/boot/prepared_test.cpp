#include "boot/prepared.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/unit/boot/images.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

using test::Bytes;

Bytes content_of(int fd) {
  Bytes bytes(static_cast<size_t>(::lseek(fd, 0, SEEK_END)));
  EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  return bytes;
}

class Prepared : public testing::Test {
 protected:
  // Loads `file` into `original_` and leaves the prepared kernel in `prepared_`.
  void prepare(const Bytes& file) {
    auto kernel = load_kernel(test::file_of(file).get(), original_);
    ASSERT_TRUE(kernel) << kernel.error().text();
    kernel_ = *kernel;
    const auto written = write_prepared(prepared_.get(), kernel_, original_);
    ASSERT_TRUE(written) << written.error().text();
  }
  Result<LoadedKernel> map(const Bytes& content) {
    return map_prepared(test::file_of(content).get(), mapped_);
  }

  GuestMemory original_ = *GuestMemory::create(16 * kMiB);
  GuestMemory mapped_ = *GuestMemory::create(16 * kMiB);
  UniqueFd prepared_ = test::file_of({});
  LoadedKernel kernel_;
};

TEST_F(Prepared, GivesTheSameMemoryAndFacts) {
  for (const bool packed : {false, true}) {
    SCOPED_TRACE(packed ? "bzImage" : "ELF");
    prepared_ = test::file_of({});
    original_ = *GuestMemory::create(16 * kMiB);
    mapped_ = *GuestMemory::create(16 * kMiB);
    const Bytes elf = test::small_kernel().build();
    prepare(packed ? test::bzimage_of(PayloadFormat::kLz4, elf).build() : elf);
    const auto kernel = map_prepared(prepared_.get(), mapped_);
    ASSERT_TRUE(kernel) << kernel.error().text();
    EXPECT_EQ(kernel->protocol, kernel_.protocol);
    EXPECT_EQ(kernel->entry, kernel_.entry);
    EXPECT_EQ(kernel->start, kernel_.start);
    EXPECT_EQ(kernel->end, kernel_.end);
    EXPECT_EQ(kernel->format, kernel_.format);
    EXPECT_EQ(kernel->is_linux, kernel_.is_linux);
    EXPECT_EQ(kernel->initrd_max, kernel_.initrd_max);
    EXPECT_EQ(kernel->cmdline_max, kernel_.cmdline_max);
    ASSERT_EQ(kernel->setup_header.has_value(), kernel_.setup_header.has_value());
    if (kernel->setup_header) {
      EXPECT_EQ(kernel->setup_header->raw, kernel_.setup_header->raw);
      EXPECT_EQ(kernel->setup_header->init_size, kernel_.setup_header->init_size);
      EXPECT_EQ(kernel->setup_header->payload_offset, kernel_.setup_header->payload_offset);
    }
    Bytes loaded(16 * kMiB), shared(16 * kMiB);
    ASSERT_TRUE(original_.read(0, loaded));
    ASSERT_TRUE(mapped_.read(0, shared));
    EXPECT_TRUE(loaded == shared);
  }
}

TEST_F(Prepared, WhatOneGuestWritesNoOtherSees) {
  prepare(test::small_kernel().build());
  ASSERT_TRUE(map_prepared(prepared_.get(), mapped_));
  ASSERT_TRUE(mapped_.store(0x100010, uint64_t{0x1122334455667788}));
  const GuestMemory other = *GuestMemory::create(16 * kMiB);
  ASSERT_TRUE(map_prepared(prepared_.get(), other));
  EXPECT_EQ(other.load<uint64_t>(0x100010), original_.load<uint64_t>(0x100010));
}

TEST_F(Prepared, NeedsAsMuchMemoryAsTheKernelItself) {
  prepare(test::small_kernel().build());
  const GuestMemory small = *GuestMemory::create(2 * kMiB);
  EXPECT_FALSE(map_prepared(prepared_.get(), small));
}

TEST_F(Prepared, CutShortIsRefusedAtEveryLength) {
  prepare(test::small_kernel().build());
  const Bytes whole = content_of(prepared_.get());
  for (size_t size = 0; size < whole.size(); size += size < 4096 ? 97 : 4096)
    EXPECT_FALSE(map(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)))) << size;
}

// Every bit of the header wrong in turn: whatever is accepted lies inside the guest's memory.
TEST_F(Prepared, DamagedHeadersDoNoHarm) {
  prepare(test::bzimage_of(PayloadFormat::kElf, test::small_kernel().build()).build());
  const Bytes whole = content_of(prepared_.get());
  const UniqueFd file = test::file_of(whole);
  for (size_t bit = 0; bit < 800 * 8; ++bit) {
    std::byte byte = whole[bit / 8] ^ (std::byte{1} << (bit % 8));
    ASSERT_EQ(::pwrite(file.get(), &byte, 1, static_cast<off_t>(bit / 8)), 1);
    const GuestMemory memory = *GuestMemory::create(16 * kMiB);
    if (const auto kernel = map_prepared(file.get(), memory)) {
      EXPECT_GE(kernel->start, kMiB) << bit;
      EXPECT_LE(kernel->end, 16 * kMiB) << bit;
    } else {
      EXPECT_EQ(memory.load<uint64_t>(0x100010), uint64_t{0}) << bit;
    }
    ASSERT_EQ(::pwrite(file.get(), &whole[bit / 8], 1, static_cast<off_t>(bit / 8)), 1);
  }
}

}  // namespace
}  // namespace snug::boot
