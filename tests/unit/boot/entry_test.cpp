#include "boot/entry.h"

#include <asm/bootparam.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "boot/acpi.h"
#include "boot/cmdline.h"
#include "boot/e820.h"
#include "boot/pvh.h"
#include "boot/zero_page.h"
#include "tests/unit/boot/images.h"
#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

using testing::HasSubstr;

TEST(Cmdline, JoinsPartsThatAreNotEmpty) {
  const std::string_view parts[] = {"console=ttyS0", "", "quiet"};
  EXPECT_EQ(*join_cmdline(parts, 100), "console=ttyS0 quiet");
  EXPECT_EQ(*join_cmdline({}, 0), "");
}

TEST(Cmdline, SaysLengthAndLimit) {
  EXPECT_TRUE(check_cmdline(std::string(2047, 'x'), 2047));
  const auto result = check_cmdline(std::string(2048, 'x'), 2047);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("2048"));
  EXPECT_THAT(result.error().message, HasSubstr("2047"));
}

TEST(Cmdline, NamesTheByteThatIsWrong) {
  const auto text = [](std::string_view line) {
    const auto result = check_cmdline(line, 100);
    return result ? "" : result.error().message;
  };
  EXPECT_THAT(text("ab\ncd"), HasSubstr("byte 3 is a newline"));
  EXPECT_THAT(text(std::string_view("\0", 1)), HasSubstr("byte 1 is a NUL"));
  EXPECT_THAT(text("a\tb"), HasSubstr("byte 2 is a tab"));
  EXPECT_THAT(text("a\x7f"), HasSubstr("0x7f"));
  EXPECT_THAT(text("\xc3\xa9"), HasSubstr("byte 1"));
  EXPECT_EQ(text(" ~!\"='x'"), "");
}

std::vector<E820Entry> map_of(uint64_t size) { return memory_map(*GuestMemory::create(size)); }

TEST(MemoryMap, IsAscendingAndDoesNotOverlap) {
  for (const uint64_t size : {kMiB, 2 * kMiB, 128 * kMiB, 3 * kGiB, 3 * kGiB + kMiB, 8 * kGiB}) {
    const auto entries = map_of(size);
    uint64_t end = 0;
    uint64_t ram = 0;
    for (const E820Entry& entry : entries) {
      EXPECT_GE(entry.gpa, end);
      EXPECT_GT(entry.size, 0u);
      end = entry.gpa + entry.size;
      if (entry.type == E820Type::kRam) ram += entry.size;
    }
    EXPECT_EQ(ram, size - (kMiB - map::kLowRamEnd)) << size;
  }
}

TEST(MemoryMap, ReservesEcam) {
  const auto entries = map_of(8 * kGiB);
  EXPECT_THAT(entries, testing::Contains(testing::Truly([](const E820Entry& e) {
                return e.gpa == map::kEcam && e.size == map::kEcamSize && e.type == E820Type::kReserved;
              })));
  EXPECT_EQ(entries.back().gpa, 4 * kGiB);
  EXPECT_EQ(entries.back().size, 5 * kGiB);
}

// The struct of the kernel's own header, field by field.
TEST(ZeroPageLayout, AgreesWithTheKernels) {
#define SAME(ours, theirs)                                            \
  EXPECT_EQ(offsetof(ZeroPage, ours), offsetof(boot_params, theirs)); \
  EXPECT_EQ(sizeof(std::declval<ZeroPage>().ours), sizeof(std::declval<boot_params>().theirs))
  SAME(acpi_rsdp_addr, acpi_rsdp_addr);
  SAME(ext_ramdisk_image, ext_ramdisk_image);
  SAME(ext_ramdisk_size, ext_ramdisk_size);
  SAME(ext_cmd_line_ptr, ext_cmd_line_ptr);
  SAME(e820_entries, e820_entries);
  SAME(sentinel, sentinel);
  SAME(header.setup_sects, hdr.setup_sects);
  SAME(header.root_flags, hdr.root_flags);
  SAME(header.syssize, hdr.syssize);
  SAME(header.root_dev, hdr.root_dev);
  SAME(header.boot_flag, hdr.boot_flag);
  SAME(header.jump, hdr.jump);
  SAME(header.magic, hdr.header);
  SAME(header.version, hdr.version);
  SAME(header.type_of_loader, hdr.type_of_loader);
  SAME(header.loadflags, hdr.loadflags);
  SAME(header.setup_move_size, hdr.setup_move_size);
  SAME(header.code32_start, hdr.code32_start);
  SAME(header.ramdisk_image, hdr.ramdisk_image);
  SAME(header.ramdisk_size, hdr.ramdisk_size);
  SAME(header.heap_end_ptr, hdr.heap_end_ptr);
  SAME(header.ext_loader_type, hdr.ext_loader_type);
  SAME(header.cmd_line_ptr, hdr.cmd_line_ptr);
  SAME(header.initrd_addr_max, hdr.initrd_addr_max);
  SAME(header.kernel_alignment, hdr.kernel_alignment);
  SAME(header.relocatable_kernel, hdr.relocatable_kernel);
  SAME(header.min_alignment, hdr.min_alignment);
  SAME(header.xloadflags, hdr.xloadflags);
  SAME(header.cmdline_size, hdr.cmdline_size);
#undef SAME
  EXPECT_EQ(offsetof(ZeroPage, e820_table), offsetof(boot_params, e820_table));
  EXPECT_EQ(sizeof(ZeroPage), sizeof(boot_params));
  EXPECT_EQ(sizeof(ZeroPageE820), sizeof(boot_e820_entry));
  EXPECT_LE(kSetupHeaderOffset + sizeof(setup_header), kSetupHeaderOffset + kSetupHeaderMax);
}

class Entry : public testing::Test {
 protected:
  boot_params zero_page() { return *memory_.load<boot_params>(map::kZeroPage); }

  GuestMemory memory_ = *GuestMemory::create(16 * kMiB);
  LoadedKernel kernel_{
      .entry = 0x100010, .start = kMiB, .end = 2 * kMiB, .initrd_max = 0x7fffffff, .cmdline_max = 2047};
};

TEST_F(Entry, Linux64) {
  const auto state = prepare_entry(memory_, kernel_, InitrdPlacement{0x300000, 0x1234}, "quiet");
  ASSERT_TRUE(state) << state.error().text();
  EXPECT_EQ(state->rip, 0x100010u);
  EXPECT_EQ(state->rsi, map::kZeroPage);
  EXPECT_EQ(state->cr3, map::kBootPageTables);
  EXPECT_EQ(state->rflags, 2u);
  EXPECT_EQ(state->cr0 & 0x80000001u, 0x80000001u);
  EXPECT_EQ(state->efer, 0x500u);
  EXPECT_EQ(state->code.selector, 0x10);
  EXPECT_EQ(state->data.selector, 0x18);
  EXPECT_TRUE(state->code.type_attributes & 1 << 13) << "64-bit code";
  const boot_params page = zero_page();
  EXPECT_EQ(+page.hdr.type_of_loader, 0xff);
  EXPECT_EQ(+page.hdr.header, 0x53726448u);
  EXPECT_NE(+page.hdr.version, 0);
  EXPECT_EQ(+page.hdr.ramdisk_image, 0x300000u);
  EXPECT_EQ(+page.hdr.ramdisk_size, 0x1234u);
  EXPECT_EQ(+page.hdr.cmd_line_ptr, map::kCmdline);
  EXPECT_EQ(+page.sentinel, 0);
  EXPECT_EQ(+page.acpi_rsdp_addr, 0u);
  EXPECT_EQ(page.e820_entries, memory_map(memory_).size());
  EXPECT_EQ(+page.e820_table[0].size, map::kLowRamEnd);
  const auto line = memory_.load<std::array<char, 6>>(map::kCmdline);
  EXPECT_EQ(std::string_view(line->data()), "quiet");
}

TEST_F(Entry, GdtAgreesWithTheHiddenParts) {
  const auto state = prepare_entry(memory_, kernel_, std::nullopt, "");
  ASSERT_TRUE(state);
  for (const SegmentState& segment : {state->code, state->data, state->task}) {
    ASSERT_LE(segment.selector + 7u, state->gdt_limit);
    const uint64_t descriptor = *memory_.load<uint64_t>(state->gdt_base + segment.selector);
    EXPECT_EQ(descriptor >> 40 & 0xf0ff, segment.type_attributes);
    const uint64_t limit = (descriptor & 0xffff) | (descriptor >> 32 & 0xf0000);
    EXPECT_EQ(segment.type_attributes & 1 << 15 ? limit << 12 | 0xfff : limit, segment.limit);
  }
}

TEST_F(Entry, PagesMapTheFirst4GibToThemselves) {
  ASSERT_TRUE(prepare_entry(memory_, kernel_, std::nullopt, ""));
  constexpr uint64_t kAddress = 0x000ffffffffff000;
  for (uint64_t address = 0; address < 4 * kGiB; address += 510 * kMiB) {
    uint64_t table = map::kBootPageTables;
    for (const unsigned shift : {39u, 30u, 21u}) {
      const uint64_t entry = *memory_.load<uint64_t>(table + (address >> shift) % 512 * 8);
      ASSERT_EQ(entry & 7, 7u) << address;
      EXPECT_EQ((entry & 0x80) != 0, shift == 21);
      table = entry & kAddress;
    }
    EXPECT_EQ(table, align_down(address, 2 * kMiB));
  }
}

TEST_F(Entry, TheKernelsOwnHeaderIsPassedOn) {
  const auto file = test::bzimage_of(PayloadFormat::kLz4, test::small_kernel().build()).build();
  const auto kernel = load_kernel(test::file_of(file).get(), memory_);
  ASSERT_TRUE(kernel);
  ASSERT_TRUE(prepare_entry(memory_, *kernel, std::nullopt, "x"));
  const boot_params page = zero_page();
  EXPECT_EQ(+page.hdr.version, 0x020f);
  EXPECT_EQ(+page.hdr.init_size, 0x100000u);
  EXPECT_EQ(+page.hdr.pref_address, 0x200000u);
  EXPECT_EQ(+page.hdr.type_of_loader, 0xff);
  EXPECT_EQ(+page.hdr.ramdisk_size, 0u);
}

TEST_F(Entry, FindsTheAcpiTables) {
  ASSERT_TRUE(write_acpi_tables(memory_, *build_acpi_tables({})));
  ASSERT_TRUE(prepare_entry(memory_, kernel_, std::nullopt, ""));
  EXPECT_EQ(zero_page().acpi_rsdp_addr, map::kAcpiTables);
}

TEST_F(Entry, Pvh) {
  kernel_.protocol = EntryProtocol::kPvh;
  const auto state = prepare_entry(memory_, kernel_, InitrdPlacement{0x300000, 0x1234}, "quiet");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->rbx, map::kPvhStartInfo);
  EXPECT_EQ(state->cr0 & 0x80000001u, 1u) << "protected mode, no paging";
  EXPECT_EQ(state->cr4, 0u);
  EXPECT_EQ(state->efer, 0u);
  EXPECT_EQ(state->code.type_attributes, 0xc09b);
  const auto info = *memory_.load<PvhStartInfo>(map::kPvhStartInfo);
  EXPECT_EQ(info.magic, kPvhMagic);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.cmdline, map::kCmdline);
  ASSERT_EQ(info.module_count, 1u);
  const auto module = *memory_.load<PvhModule>(info.module_list);
  EXPECT_EQ(module.gpa, 0x300000u);
  EXPECT_EQ(module.size, 0x1234u);
  const auto map = memory_map(memory_);
  ASSERT_EQ(info.memory_map_entries, map.size());
  const auto last =
      *memory_.load<PvhMemoryMapEntry>(info.memory_map + (map.size() - 1) * sizeof(PvhMemoryMapEntry));
  EXPECT_EQ(last.gpa, map.back().gpa);
  EXPECT_EQ(*memory_.load<uint64_t>(map::kBootPageTables), 0u) << "no page tables";
}

TEST_F(Entry, RefusesABadCommandLine) {
  EXPECT_FALSE(prepare_entry(memory_, kernel_, std::nullopt, "a\nb"));
  EXPECT_FALSE(prepare_entry(memory_, kernel_, std::nullopt, std::string(2048, 'x')));
}

}  // namespace
}  // namespace snug::boot
