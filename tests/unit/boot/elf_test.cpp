#include "boot/elf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "boot/kernel.h"
#include "tests/unit/boot/images.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

using test::Bytes;
using test::Elf;
using testing::HasSubstr;

Bytes contents(const GuestMemory& memory, uint64_t gpa, size_t size) {
  Bytes bytes(size);
  EXPECT_TRUE(memory.read(gpa, bytes));
  return bytes;
}

class ElfKernel : public testing::Test {
 protected:
  Result<LoadedKernel> load(std::span<const std::byte> file) {
    return load_kernel(test::file_of(file).get(), memory_);
  }
  Result<LoadedKernel> load(const Elf& elf) { return load(elf.build()); }
  // The error's whole text; empty when it loaded.
  std::string refusal(const Elf& elf) {
    const auto result = load(elf);
    return result ? "" : result.error().text();
  }

  GuestMemory memory_ = *GuestMemory::create(16 * kMiB);
};

TEST_F(ElfKernel, LoadsSegmentsAtTheirPhysicalAddress) {
  const Elf elf = test::small_kernel();
  const auto kernel = load(elf);
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_EQ(kernel->protocol, EntryProtocol::kLinux64);
  EXPECT_EQ(kernel->entry, 0x100010u);
  EXPECT_EQ(kernel->start, 0x100000u);
  EXPECT_EQ(kernel->end, 0x200000u + 20000 + 0x5000);
  EXPECT_FALSE(kernel->setup_header);
  for (const auto& segment : elf.segments)
    EXPECT_TRUE(contents(memory_, segment.gpa, segment.content.size()) == segment.content);
  EXPECT_TRUE(contents(memory_, 0x200000 + 10000, 10000 + 0x5000) == Bytes(10000 + 0x5000)) << "bss";
}

TEST_F(ElfKernel, TranslatesAVirtualEntry) {
  Elf elf = test::small_kernel();
  elf.entry = 0xffffffff80200004;
  const auto kernel = load(elf);
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->entry, 0x200004u);
}

TEST_F(ElfKernel, RefusesAnEntryOutside) {
  for (const uint64_t entry : {uint64_t{0}, uint64_t{0xfffff}, uint64_t{0x100000 + 20000}, UINT64_MAX,
                               uint64_t{0xffffffff800fffff}}) {
    Elf elf = test::small_kernel();
    elf.entry = entry;
    EXPECT_THAT(refusal(elf), HasSubstr("entry point")) << entry;
  }
}

TEST_F(ElfKernel, PvhNoteWithoutLinuxMeansPvh) {
  for (const bool is_64 : {true, false}) {
    Elf elf = test::small_kernel();
    elf.is_64 = is_64;
    elf.machine = is_64 ? 62 : 3;
    elf.segments.push_back({.type = 4, .content = test::pvh_note(0x100020), .alignment = 4});
    const auto kernel = load(elf);
    ASSERT_TRUE(kernel) << kernel.error().text();
    EXPECT_EQ(kernel->protocol, EntryProtocol::kPvh);
    EXPECT_EQ(kernel->entry, 0x100020u);
  }
}

TEST_F(ElfKernel, LinuxNoteMeansTheLinuxEntry) {
  Elf elf = test::small_kernel();
  Bytes notes = test::note("Linux", 0x100, test::bytes_of("salt"));
  const Bytes pvh = test::pvh_note(0x100020);
  notes.insert(notes.end(), pvh.begin(), pvh.end());
  elf.segments.push_back({.type = 4, .content = notes, .alignment = 4});
  const auto kernel = load(elf);
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->protocol, EntryProtocol::kLinux64);
  EXPECT_EQ(kernel->entry, 0x100010u);
  EXPECT_EQ(kernel->cmdline_max, 2047u);
}

TEST_F(ElfKernel, RefusesAPvhEntryOutside) {
  Elf elf = test::small_kernel();
  elf.segments.push_back({.type = 4, .content = test::pvh_note(0x300000), .alignment = 4});
  EXPECT_THAT(refusal(elf), HasSubstr("PVH entry point"));
}

TEST_F(ElfKernel, Refuses32BitWithoutPvh) {
  Elf elf = test::small_kernel();
  elf.is_64 = false;
  elf.machine = 3;
  EXPECT_THAT(refusal(elf), HasSubstr("32-bit ELF"));
}

TEST_F(ElfKernel, SaysWhatOtherElfFilesAre) {
  Elf elf = test::small_kernel();
  elf.machine = 183;
  EXPECT_THAT(refusal(elf), HasSubstr("ARM64"));
  elf = test::small_kernel();
  elf.type = 3;
  EXPECT_THAT(refusal(elf), HasSubstr("user program"));
  elf.type = 1;
  EXPECT_THAT(refusal(elf), HasSubstr("module"));
  elf.type = 4;
  EXPECT_THAT(refusal(elf), HasSubstr("core dump"));
  elf = test::small_kernel();
  elf.segments.push_back({.type = 3, .content = test::bytes_of("/lib64/ld.so")});
  EXPECT_THAT(refusal(elf), HasSubstr("user program"));
  elf = test::small_kernel();
  elf.segments.push_back({.type = 4, .content = test::note("GNU", 1, Bytes(16))});
  EXPECT_THAT(refusal(elf), HasSubstr("user program"));
}

TEST_F(ElfKernel, SaysHowMuchMemoryWouldDo) {
  Elf elf = test::small_kernel();
  elf.segments[1].gpa = 95 * kMiB;
  elf.segments[1].memory_size = kMiB;
  EXPECT_THAT(refusal(elf), HasSubstr("raise memory to at least 96M"));
  elf.segments[1].memory_size = kMiB + 1;
  EXPECT_THAT(refusal(elf), HasSubstr("raise memory to at least 97M"));
}

TEST_F(ElfKernel, RefusesPlacesThatAreNotRam) {
  Elf elf = test::small_kernel();
  elf.segments[0].gpa = 0xfffff;
  EXPECT_THAT(refusal(elf), HasSubstr("below 1 MiB"));
  elf.segments[0].gpa = 0;
  EXPECT_THAT(refusal(elf), HasSubstr("below 1 MiB"));
  elf = test::small_kernel();
  elf.segments[1].gpa = 0xc0000000 - 100;
  EXPECT_THAT(refusal(elf), HasSubstr("below 4 GiB"));
  elf.segments[1].gpa = 5 * kGiB;
  EXPECT_THAT(refusal(elf), HasSubstr("below 4 GiB"));
}

TEST_F(ElfKernel, RefusesNumbersThatWrap) {
  Elf elf = test::small_kernel();
  elf.segments[1].gpa = UINT64_MAX - 10;
  EXPECT_THAT(refusal(elf), HasSubstr("wraps"));
  elf = test::small_kernel();
  elf.segments[1].memory_size = UINT64_MAX;
  EXPECT_THAT(refusal(elf), HasSubstr("wraps"));
  elf = test::small_kernel();
  elf.segments[1].file_offset = UINT64_MAX - 10;
  EXPECT_THAT(refusal(elf), HasSubstr("wraps"));
  elf = test::small_kernel();
  elf.segments[1].file_offset = INT64_MAX;
  EXPECT_THAT(refusal(elf), HasSubstr("cut short"));
  elf = test::small_kernel();
  elf.segments[1].file_size = UINT64_MAX - 0x10000;
  elf.segments[1].memory_size = UINT64_MAX - 0x200000;
  EXPECT_NE(refusal(elf), "");
}

TEST_F(ElfKernel, RefusesMoreBytesThanMemory) {
  Elf elf = test::small_kernel();
  elf.segments[0].memory_size = elf.segments[0].content.size() - 1;
  EXPECT_THAT(refusal(elf), HasSubstr("more bytes in the file"));
}

TEST_F(ElfKernel, RefusesOverlappingSegments) {
  Elf elf = test::small_kernel();
  elf.segments[1].gpa = elf.segments[0].gpa + 1;
  EXPECT_THAT(refusal(elf), HasSubstr("overlap"));
}

TEST_F(ElfKernel, RefusesBrokenProgramHeaders) {
  Elf elf = test::small_kernel();
  for (const uint64_t phoff : {uint64_t{1} << 40, UINT64_MAX, UINT64_MAX - 100, uint64_t{65536}}) {
    elf.phoff = phoff;
    EXPECT_THAT(refusal(elf), HasSubstr("program headers")) << phoff;
  }
  elf.phoff = 40000;  // allowed, but behind the end of the file
  EXPECT_NE(refusal(elf), "");
  elf = test::small_kernel();
  elf.phnum = 0;
  EXPECT_THAT(refusal(elf), HasSubstr("nothing to load"));
  elf.phnum = 0xffff;
  EXPECT_THAT(refusal(elf), HasSubstr("program headers"));
  elf = test::small_kernel();
  elf.phentsize = 32;
  EXPECT_THAT(refusal(elf), HasSubstr("program headers"));
  elf = test::small_kernel();
  for (auto& segment : elf.segments) segment.type = 2;
  EXPECT_THAT(refusal(elf), HasSubstr("anything to load"));
}

TEST_F(ElfKernel, FindsProgramHeadersFarFromTheStart) {
  Elf elf = test::small_kernel();
  Bytes file = elf.build();
  const Bytes headers(file.begin() + 64, file.begin() + 64 + 2 * 56);
  const uint64_t at = file.size();
  file.insert(file.end(), headers.begin(), headers.end());
  std::memcpy(file.data() + 32, &at, sizeof at);
  std::fill_n(file.begin() + 64, headers.size(), std::byte{0xee});
  ASSERT_GT(at, 2048u) << "further than the loader reads at first";
  EXPECT_TRUE(load(file));
}

TEST_F(ElfKernel, RefusesATruncatedFile) {
  const Bytes file = test::small_kernel().build();
  for (size_t keep = 1; keep < file.size(); keep += keep < 200 ? 1 : 997)
    EXPECT_FALSE(load(std::span(file).first(keep))) << keep;
}

TEST(ElfNotes, StopWhereTheyStopMakingSense) {
  for (const size_t size : {0u, 11u, 12u, 16u}) {
    ElfNoteFacts facts;
    scan_notes(Bytes(size, std::byte{0xff}), 4, facts);
    EXPECT_FALSE(facts.pvh_entry);
  }
  // A good one, then rubbish.
  Bytes notes = test::pvh_note(0x1234);
  notes.insert(notes.end(), 40, std::byte{0xff});
  ElfNoteFacts facts;
  scan_notes(notes, 4, facts);
  EXPECT_EQ(facts.pvh_entry, 0x1234u);
}

TEST(ElfNotes, PaddingOfEight) {
  // A descriptor of 20 bytes: the next note starts 4 bytes later than with a padding of 4.
  Bytes notes = test::note("GNU", 5, Bytes(20));
  notes.resize(40);
  const Bytes pvh = test::pvh_note(7);
  notes.insert(notes.end(), pvh.begin(), pvh.end());
  ElfNoteFacts facts;
  scan_notes(notes, 8, facts);
  EXPECT_EQ(facts.pvh_entry, 7u);
}

TEST(ElfSinkTest, PlacesAStreamWhateverItsPieces) {
  const Elf elf = test::small_kernel(100000);
  const Bytes file = elf.build();
  for (const size_t step : {size_t{1}, size_t{4096}, size_t{70000}, file.size()}) {
    const auto memory = *GuestMemory::create(16 * kMiB);
    ElfSink sink(memory, 0);
    for (size_t at = 0; at < file.size(); at += step)
      ASSERT_TRUE(sink.write(std::span(file).subspan(at, std::min(step, file.size() - at))));
    const auto image = sink.finish();
    ASSERT_TRUE(image) << image.error().text();
    for (const auto& segment : elf.segments)
      EXPECT_TRUE(contents(memory, segment.gpa, segment.content.size()) == segment.content) << step;
  }
}

TEST(ElfSinkTest, NoticesAMissingEnd) {
  const Bytes file = test::small_kernel(100000).build();
  const auto memory = *GuestMemory::create(16 * kMiB);
  ElfSink sink(memory, 0);
  ASSERT_TRUE(sink.write(std::span(file).first(file.size() - 1)));
  EXPECT_FALSE(sink.finish());
}

}  // namespace
}  // namespace snug::boot
