// Kernels put at random addresses: relocation lists, where a kernel may go, and whole bzImages with both.
#include "boot/kaslr.h"

#include <gtest/gtest.h>

#include <cstring>

#include "boot/kernel.h"
#include "boot/prepared.h"
#include "boot/zero_page.h"
#include "tests/unit/boot/images.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

using test::Bytes;

constexpr uint64_t kStart = 2 * kMiB;
constexpr uint64_t kSize = 0x6000;
constexpr uint64_t kKernelMap = 0xffffffff80000000;

Bytes words(std::initializer_list<uint32_t> list) {
  Bytes bytes(list.size() * sizeof(uint32_t));
  std::memcpy(bytes.data(), std::data(list), bytes.size());
  return bytes;
}

// As a kernel's list has it: the low half of the virtual address.
constexpr uint32_t at(uint64_t offset) { return static_cast<uint32_t>(kKernelMap + kStart + offset); }

TEST(Relocations, ThreeListsAreRead) {
  const auto found =
      parse_relocations(words({0, at(0), at(8), 0, at(16), 0, at(20), at(24), at(kSize - 4)}), kStart, kSize);
  ASSERT_TRUE(found);
  using Kind = Relocations::Kind;
  const auto list = [&](Kind kind) {
    const auto span = found->of(kind);
    return std::vector<uint32_t>(span.begin(), span.end());
  };
  EXPECT_EQ(list(Kind::kAdd64), (std::vector<uint32_t>{0, 8}));
  EXPECT_EQ(list(Kind::kSubtract32), (std::vector<uint32_t>{16}));
  EXPECT_EQ(list(Kind::kAdd32), (std::vector<uint32_t>{20, 24, kSize - 4}));
}

TEST(Relocations, NewerKernelsHaveNoneToSubtract) {
  const auto found = parse_relocations(words({0, at(0), 0, at(20)}), kStart, kSize);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->of(Relocations::kAdd64).size(), 1u);
  EXPECT_TRUE(found->of(Relocations::kSubtract32).empty());
  EXPECT_EQ(found->of(Relocations::kAdd32).size(), 1u);
}

TEST(Relocations, AnythingElseIsNone) {
  EXPECT_FALSE(parse_relocations({}, kStart, kSize));
  EXPECT_FALSE(parse_relocations(words({0, 0, 0}), kStart, kSize)) << "empty lists";
  EXPECT_FALSE(parse_relocations(words({at(0), 0, at(4), 0, at(8)}), kStart, kSize)) << "no zero first";
  EXPECT_FALSE(parse_relocations(words({0, at(0), at(8), at(16)}), kStart, kSize)) << "one list";
  EXPECT_FALSE(parse_relocations(words({0, at(0), 0, 0, at(8), 0, at(16)}), kStart, kSize)) << "four lists";
  EXPECT_FALSE(parse_relocations(words({0, at(0), 0, 0, at(kSize)}), kStart, kSize)) << "behind the kernel";
  EXPECT_FALSE(parse_relocations(words({0, at(0) - 8, 0, 0, at(8)}), kStart, kSize)) << "before the kernel";
  EXPECT_FALSE(parse_relocations(words({0, 0x1000, 0, 0, at(8)}), kStart, kSize)) << "not the kernel's half";
  Bytes odd = words({0, at(0), 0, 0, at(8)});
  odd.pop_back();
  EXPECT_FALSE(parse_relocations(odd, kStart, kSize));
}

TEST(KaslrPlaces, StayInsideAndReachBothEnds) {
  constexpr uint64_t kEnd = kStart + 3 * kMiB;
  Placement placement{.randomise = true, .reserve_above = kMiB};
  uint64_t most = 0;
  uint64_t most_virtual = 0;
  for (uint64_t random = 0; random < 600; ++random) {
    placement.physical_random = placement.virtual_random = random;
    const uint64_t offset = physical_offset(placement, kStart, kEnd, 64 * kMiB, 2 * kMiB);
    EXPECT_EQ(offset % (2 * kMiB), 0u);
    EXPECT_LE(kEnd + offset + kMiB, 64 * kMiB);
    most = std::max(most, offset);
    const uint64_t moved = virtual_offset(placement, kStart, kEnd, 2 * kMiB);
    EXPECT_EQ(moved % (2 * kMiB), 0u);
    EXPECT_LE(kEnd + moved, kGiB);
    most_virtual = std::max(most_virtual, moved);
  }
  EXPECT_EQ(most, 58 * kMiB);
  EXPECT_EQ(most_virtual, kGiB - 6 * kMiB);
}

TEST(KaslrPlaces, WhereThereIsNoRoomItStays) {
  Placement placement{.randomise = true, .reserve_above = kMiB, .physical_random = 1, .virtual_random = 1};
  EXPECT_EQ(physical_offset(placement, kStart, 64 * kMiB, 64 * kMiB, 2 * kMiB), 0u);
  placement.reserve_above = UINT64_MAX;
  EXPECT_EQ(physical_offset(placement, kStart, 4 * kMiB, 64 * kMiB, 2 * kMiB), 0u);
  EXPECT_EQ(virtual_offset(placement, kStart, kGiB + 1, 2 * kMiB), 0u);
  placement = {.randomise = false, .reserve_above = 0, .physical_random = 1, .virtual_random = 1};
  EXPECT_EQ(physical_offset(placement, kStart, 4 * kMiB, 64 * kMiB, 2 * kMiB), 0u);
  EXPECT_EQ(virtual_offset(placement, kStart, 4 * kMiB, 2 * kMiB), 0u);
}

TEST(Relocate, NeverWritesOutsideOfTheKernel) {
  const GuestMemory memory = *GuestMemory::create(16 * kMiB);
  for (const uint32_t offset : {uint32_t{kSize - 7}, uint32_t{kSize}, UINT32_MAX}) {
    Relocations relocations;
    relocations.counts[Relocations::kAdd64] = 1;
    relocations.offsets = std::make_shared<const uint32_t>(offset);
    EXPECT_FALSE(relocate(memory, relocations, kStart, kSize, 1)) << offset;
    EXPECT_EQ(memory.load<uint64_t>(kStart + kSize - 8), uint64_t{0});
  }
}

// A kernel of one segment, linked at 2 MiB, with one address of each kind, its relocations behind it.
class KaslrKernel : public testing::Test {
 protected:
  static constexpr uint64_t kValue64 = kKernelMap + kStart + 0x123;
  static constexpr uint32_t kValueMinus32 = 0x1000;
  static constexpr uint32_t kValue32 = 0x80200456;

  static Bytes elf() {
    test::Segment segment{
        .gpa = kStart, .virtual_address = kKernelMap + kStart, .content = test::pattern(kSize)};
    std::memcpy(segment.content.data(), &kValue64, sizeof kValue64);
    std::memcpy(segment.content.data() + 0x1ffe, &kValueMinus32, sizeof kValueMinus32);
    std::memcpy(segment.content.data() + kSize - 4, &kValue32, sizeof kValue32);
    Bytes file = test::Elf{.entry = kStart + 0x10, .segments = {segment}}.build();
    // One section header, which ends the ELF file.
    const uint64_t shoff = file.size();
    const uint16_t entry_size = 64;
    const uint16_t count = 1;
    std::memcpy(file.data() + 0x28, &shoff, sizeof shoff);
    std::memcpy(file.data() + 0x3a, &entry_size, sizeof entry_size);
    std::memcpy(file.data() + 0x3c, &count, sizeof count);
    file.resize(file.size() + entry_size);
    const Bytes tail = words({0, at(0), 0, at(0x1ffe), 0, at(kSize - 4)});
    file.insert(file.end(), tail.begin(), tail.end());
    return file;
  }
  static Bytes bzimage(PayloadFormat format) {
    Bytes file = test::bzimage_of(format, elf()).build();
    const uint32_t alignment = 2 * kMiB;
    std::memcpy(file.data() + 0x230, &alignment, sizeof alignment);
    file[0x234] = std::byte{1};  // relocatable
    return file;
  }
  // Places 1 in each list: 2 MiB up in memory, 4 MiB up in virtual addresses.
  static constexpr Placement kPlacement{
      .randomise = true, .reserve_above = 0, .physical_random = 1, .virtual_random = 2};

  void expect_moved(const GuestMemory& memory, const LoadedKernel& kernel) {
    EXPECT_EQ(kernel.start, kStart + 2 * kMiB);
    EXPECT_EQ(kernel.entry, kStart + 2 * kMiB + 0x10);
    EXPECT_TRUE(kernel.randomised);
    EXPECT_FALSE(kernel.relocations);
    EXPECT_EQ(memory.load<uint64_t>(kernel.start), kValue64 + 4 * kMiB);
    EXPECT_EQ(memory.load<uint32_t>(kernel.start + 0x1ffe), kValueMinus32 - static_cast<uint32_t>(4 * kMiB));
    EXPECT_EQ(memory.load<uint32_t>(kernel.start + kSize - 4), kValue32 + static_cast<uint32_t>(4 * kMiB));
    EXPECT_EQ(memory.load<uint64_t>(kStart), uint64_t{0}) << "nothing where it was linked to";
    EXPECT_EQ(make_zero_page(kernel, {}, std::nullopt, 0).header.loadflags & 2, 2);
  }

  const GuestMemory memory_ = *GuestMemory::create(16 * kMiB);
};

TEST_F(KaslrKernel, IsMovedWhateverItsPayload) {
  for (const auto format :
       {PayloadFormat::kElf, PayloadFormat::kGzip, PayloadFormat::kLz4, PayloadFormat::kZstd,
        PayloadFormat::kXz, PayloadFormat::kLzma, PayloadFormat::kBzip2}) {
    SCOPED_TRACE(payload_format_name(format));
    const GuestMemory memory = *GuestMemory::create(16 * kMiB);
    auto kernel = load_kernel(test::file_of(bzimage(format)).get(), memory, kPlacement);
    ASSERT_TRUE(kernel) << kernel.error().text();
    ASSERT_TRUE(kernel->relocations);
    ASSERT_TRUE(randomise_addresses(memory, *kernel, kPlacement));
    expect_moved(memory, *kernel);
  }
}

TEST_F(KaslrKernel, UnaskedItStaysAsItIs) {
  auto kernel = load_kernel(test::file_of(bzimage(PayloadFormat::kLz4)).get(), memory_);
  ASSERT_TRUE(kernel) << kernel.error().text();
  ASSERT_TRUE(randomise_addresses(memory_, *kernel, {}));
  EXPECT_EQ(kernel->start, kStart);
  EXPECT_FALSE(kernel->randomised);
  EXPECT_EQ(memory_.load<uint64_t>(kStart), kValue64);
  EXPECT_EQ(make_zero_page(*kernel, {}, std::nullopt, 0).header.loadflags & 2, 0);
}

TEST_F(KaslrKernel, OneThatCannotBeMovedStays) {
  Bytes file = bzimage(PayloadFormat::kLz4);
  file[0x234] = std::byte{0};
  auto kernel = load_kernel(test::file_of(file).get(), memory_, kPlacement);
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_EQ(kernel->start, kStart);
  EXPECT_FALSE(kernel->relocations);
}

// What is kept is not moved; each guest that maps it is, by its own random numbers.
TEST_F(KaslrKernel, PreparedAtOnePlaceIsMappedAtAnother) {
  const Placement elsewhere{.randomise = true, .reserve_above = 0, .physical_random = 3, .virtual_random = 9};
  const auto loaded = load_kernel(test::file_of(bzimage(PayloadFormat::kGzip)).get(), memory_, elsewhere);
  ASSERT_TRUE(loaded) << loaded.error().text();
  const UniqueFd prepared = test::file_of({});
  ASSERT_TRUE(write_prepared(prepared.get(), *loaded, memory_));
  for (int round = 0; round < 2; ++round) {
    const GuestMemory memory = *GuestMemory::create(16 * kMiB);
    auto kernel = map_prepared(prepared.get(), memory, kPlacement);
    ASSERT_TRUE(kernel) << kernel.error().text();
    ASSERT_TRUE(randomise_addresses(memory, *kernel, kPlacement));
    expect_moved(memory, *kernel);
  }
  const GuestMemory memory = *GuestMemory::create(16 * kMiB);
  const auto unmoved = map_prepared(prepared.get(), memory);
  ASSERT_TRUE(unmoved) << unmoved.error().text();
  EXPECT_EQ(unmoved->start, kStart);
  EXPECT_EQ(memory.load<uint64_t>(kStart), kValue64);
}

}  // namespace
}  // namespace snug::boot
