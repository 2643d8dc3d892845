#include "boot/kernel.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/unit/boot/images.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug::boot {
namespace {

using test::Bytes;
using test::BzImage;
using testing::HasSubstr;

class Kernel : public testing::TestWithParam<PayloadFormat> {
 protected:
  Result<LoadedKernel> load(std::span<const std::byte> file) {
    return load_kernel(test::file_of(file).get(), memory_);
  }
  Result<LoadedKernel> load(const BzImage& image) { return load(image.build()); }
  std::string refusal(std::span<const std::byte> file) {
    const auto result = load(file);
    return result ? "" : result.error().text();
  }
  std::string refusal(const BzImage& image) { return refusal(image.build()); }
  bool untouched(uint64_t gpa, size_t size) {
    Bytes bytes(size);
    EXPECT_TRUE(memory_.read(gpa, bytes));
    return bytes == Bytes(size);
  }

  GuestMemory memory_ = *GuestMemory::create(16 * kMiB);
  const test::Elf elf_ = test::small_kernel();
};

using KernelPerFormat = Kernel;
INSTANTIATE_TEST_SUITE_P(Formats, KernelPerFormat,
                         testing::Values(PayloadFormat::kElf, PayloadFormat::kGzip, PayloadFormat::kBzip2,
                                         PayloadFormat::kLzma, PayloadFormat::kXz, PayloadFormat::kLz4,
                                         PayloadFormat::kZstd),
                         [](const auto& format) { return std::string(payload_format_name(format.param)); });

TEST_P(KernelPerFormat, IsUnpackedAndEnteredAtTheElf) {
  const auto kernel = load(test::bzimage_of(GetParam(), elf_.build()));
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_EQ(kernel->protocol, EntryProtocol::kLinux64);
  EXPECT_EQ(kernel->entry, 0x100010u);
  EXPECT_EQ(kernel->start, 0x100000u);
  EXPECT_EQ(kernel->end, 0x200000u + 20000 + 0x5000);
  EXPECT_EQ(kernel->initrd_max, 0x7fffffffu);
  EXPECT_EQ(kernel->cmdline_max, 2047u);
  EXPECT_THAT(kernel->format, HasSubstr(std::string(payload_format_name(GetParam()))));
  ASSERT_TRUE(kernel->setup_header);
  EXPECT_EQ(kernel->setup_header->version, 0x020f);
  for (const auto& segment : elf_.segments) {
    Bytes bytes(segment.content.size());
    ASSERT_TRUE(memory_.read(segment.gpa, bytes));
    EXPECT_TRUE(bytes == segment.content);
  }
}

TEST_P(KernelPerFormat, RefusesATruncatedFile) {
  const Bytes file = test::bzimage_of(GetParam(), elf_.build()).build();
  for (size_t keep = 1; keep < file.size(); keep += 101)
    EXPECT_FALSE(load(std::span(file).first(keep))) << keep;
}

TEST_P(KernelPerFormat, RefusesATruncatedPayload) {
  BzImage image = test::bzimage_of(GetParam(), elf_.build());
  image.payload.erase(image.payload.begin() + 400, image.payload.begin() + 600);
  EXPECT_NE(refusal(image), "");
}

// Fuzzing in small: nothing that a mutation does may crash, and every refusal says something.
TEST_P(KernelPerFormat, SurvivesMutations) {
  const Bytes file = test::bzimage_of(GetParam(), elf_.build()).build();
  test::Random random(42 + static_cast<uint64_t>(GetParam()));
  for (int i = 0; i < 400; ++i) {
    Bytes broken = file;
    for (uint64_t n = 1 + random.below(4); n > 0; --n) {
      // Mostly the headers: that is where numbers are.
      const size_t at = random.below(4) != 0 ? 0x1f1 + random.below(0x80) : random.below(broken.size());
      broken[at] = static_cast<std::byte>(random.next());
    }
    const auto result = load(broken);
    if (!result) {
      EXPECT_FALSE(result.error().message.empty());
    }
  }
}

TEST_F(Kernel, InitSizeCountsAsOccupied) {
  BzImage image = test::bzimage_of(PayloadFormat::kLz4, elf_.build());
  image.init_size = 8 * kMiB;
  const auto kernel = load(image);
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->end, 9 * kMiB);
  image.init_size = 0xffffffff;
  EXPECT_NE(refusal(image), "");
  image.init_size = 31 * kMiB;
  EXPECT_THAT(refusal(image), HasSubstr("raise memory to at least 32M"));
}

TEST_F(Kernel, UnknownPayloadIsEnteredAtItsOwnEntry) {
  BzImage image;
  image.payload = test::pattern(3000);
  const Bytes file = image.build();
  const auto kernel = load(file);
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_EQ(kernel->protocol, EntryProtocol::kLinux64);
  EXPECT_EQ(kernel->start, 0x200000u);
  EXPECT_EQ(kernel->entry, 0x200200u);
  EXPECT_EQ(kernel->end, 0x300000u);
  Bytes code(file.size() - 2048);
  ASSERT_TRUE(memory_.read(0x200000, code));
  EXPECT_TRUE(std::equal(code.begin(), code.end(), file.begin() + 2048));
}

TEST_F(Kernel, LzoIsEnteredAtItsOwnEntry) {
  BzImage image;
  image.payload = test::bytes_of(std::string_view("\x89LZO\0\r\n\x1a\n", 9));
  image.payload.resize(100);
  const auto kernel = load(image);
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_THAT(kernel->format, HasSubstr("LZO"));
  EXPECT_EQ(kernel->entry, 0x200200u);
}

TEST_F(Kernel, PackedSomethingElseIsEnteredAtItsOwnEntry) {
  const auto kernel = load(test::bzimage_of(PayloadFormat::kGzip, test::pattern(100000)));
  ASSERT_TRUE(kernel) << kernel.error().text();
  EXPECT_EQ(kernel->entry, 0x200200u);
  EXPECT_TRUE(untouched(0x100000, 0x100000));
}

TEST_F(Kernel, ThirtyTwoBitKernelsAreRefused) {
  test::Elf elf = elf_;
  elf.is_64 = false;
  elf.machine = 3;
  BzImage image = test::bzimage_of(PayloadFormat::kGzip, elf.build());
  image.xloadflags = 0;
  EXPECT_THAT(refusal(image), HasSubstr("32-bit"));
}

TEST_F(Kernel, OldProtocolsHaveNoXloadflagsButAnElfInside) {
  BzImage image = test::bzimage_of(PayloadFormat::kGzip, elf_.build());
  image.version = 0x0208;
  EXPECT_TRUE(load(image));
  image.version = 0x0207;
  EXPECT_THAT(refusal(image), HasSubstr("32-bit Linux kernel, or one older"));
  image.version = 0x0205;
  EXPECT_THAT(refusal(image), HasSubstr("2.05"));
}

TEST_F(Kernel, RefusesHeadersThatLie) {
  BzImage image = test::bzimage_of(PayloadFormat::kLz4, elf_.build());
  image.payload_offset = 0xffffff00;
  EXPECT_THAT(refusal(image), HasSubstr("cut short"));
  image.payload_offset.reset();
  image.payload_length = 0xffffffff;
  EXPECT_THAT(refusal(image), HasSubstr("cut short"));
  image.payload_length = 3;  // too short to be anything: its own entry then
  EXPECT_TRUE(load(image));
  image = {};
  image.payload = test::pattern(100);
  image.pref_address = UINT64_MAX - 100;
  EXPECT_NE(refusal(image), "");
  image.pref_address = 0x1000;
  EXPECT_THAT(refusal(image), HasSubstr("below 1 MiB"));
  image.pref_address = 0;  // unstated: kernel_alignment
  const auto kernel = load(image);
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->start, 0x200000u);
  image.loadflags = 0;
  EXPECT_THAT(refusal(image), HasSubstr("zImage"));
}

TEST_F(Kernel, RefusesAStatedSizeThatIsABomb) {
  BzImage image = test::bzimage_of(PayloadFormat::kLz4, elf_.build());
  std::memset(image.payload.data() + image.payload.size() - 4, 0x7f, 4);
  EXPECT_THAT(refusal(image), HasSubstr("would unpack to"));
}

TEST_F(Kernel, SaysWhatAFileSeemsToBe) {
  const auto starting = [](std::string_view text, size_t at = 0) {
    Bytes bytes(4096, std::byte{0x91});
    std::memcpy(bytes.data() + at, text.data(), text.size());
    return bytes;
  };
  EXPECT_THAT(refusal(Bytes{}), HasSubstr("empty file"));
  EXPECT_THAT(refusal(starting("070701")), HasSubstr("initrd"));
  EXPECT_THAT(refusal(starting("\x1f\x8b")), HasSubstr("gzip"));
  EXPECT_THAT(refusal(starting("ARM\x64", 56)), HasSubstr("ARM64"));
  EXPECT_THAT(refusal(test::bytes_of("#!/bin/sh\necho\n")), HasSubstr("script"));
  EXPECT_THAT(refusal(test::bytes_of("\n<!DOCTYPE html><html>")), HasSubstr("HTML"));
  EXPECT_THAT(refusal(test::bytes_of("just words\n")), HasSubstr("text file"));
  EXPECT_THAT(refusal(starting("QFI\xfb")), HasSubstr("qcow2"));
  EXPECT_THAT(refusal(starting("\x55\xaa", 510)), HasSubstr("disk image"));
  EXPECT_THAT(refusal(Bytes(4096)), HasSubstr("zeros"));
  EXPECT_THAT(refusal(starting("\x01\x02")), HasSubstr("first bytes 01 02 91"));
}

TEST_F(Kernel, RefusesWhatIsNoFile) {
  const auto text = [this](int fd) {
    const auto result = load_kernel(fd, memory_);
    return result ? "" : result.error().text();
  };
  const auto directory = open_file("/", O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(directory);
  EXPECT_THAT(text(directory->get()), HasSubstr("directory"));
  const auto null = open_file("/dev/null", O_RDONLY);
  ASSERT_TRUE(null);
  EXPECT_THAT(text(null->get()), HasSubstr("not a regular file"));
  EXPECT_NE(text(-1), "");
}

}  // namespace
}  // namespace snug::boot
