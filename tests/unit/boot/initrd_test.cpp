#include "boot/initrd.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "tests/unit/boot/images.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

using test::Bytes;
using testing::HasSubstr;

Bytes cpio(size_t size, uint32_t seed = 3) {
  Bytes bytes = test::pattern(size, seed);
  const Bytes magic = test::bytes_of("070701");
  std::ranges::copy(magic, bytes.begin());
  return bytes;
}

class Initrd : public testing::Test {
 protected:
  Result<InitrdPlacement> load(std::initializer_list<Bytes> files) {
    std::vector<UniqueFd> owners;
    std::vector<int> fds;
    for (const Bytes& file : files) {
      owners.push_back(test::file_of(file));
      fds.push_back(owners.back().get());
    }
    return load_initrds(fds, memory_, kernel_);
  }
  std::string refusal(std::initializer_list<Bytes> files) {
    const auto result = load(files);
    return result ? "" : result.error().text();
  }
  Bytes contents(uint64_t gpa, size_t size) {
    Bytes bytes(size);
    EXPECT_TRUE(memory_.read(gpa, bytes));
    return bytes;
  }

  GuestMemory memory_ = *GuestMemory::create(32 * kMiB);
  LoadedKernel kernel_{.start = kMiB, .end = 16 * kMiB + 5, .initrd_max = 0x7fffffff, .cmdline_max = 2047};
};

TEST_F(Initrd, LiesAsHighAsPossible) {
  const Bytes file = cpio(10001);
  const auto placed = load({file});
  ASSERT_TRUE(placed) << placed.error().text();
  EXPECT_EQ(placed->gpa, 32 * kMiB - 3 * 4096);
  EXPECT_EQ(placed->size, 10001u);
  EXPECT_TRUE(contents(placed->gpa, file.size()) == file);
}

TEST_F(Initrd, RespectsTheKernelsLimit) {
  kernel_.initrd_max = 20 * kMiB - 1;
  const auto placed = load({cpio(4096)});
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->gpa, 20 * kMiB - 4096);
}

TEST_F(Initrd, SeveralAreConcatenatedAndPadded) {
  const Bytes first = cpio(1001);
  const Bytes second = test::pack(PayloadFormat::kGzip, cpio(5000, 4));
  const Bytes third = cpio(2048, 5);
  const auto placed = load({first, second, third});
  ASSERT_TRUE(placed) << placed.error().text();
  Bytes expected = first;
  expected.resize(1004);
  expected.insert(expected.end(), second.begin(), second.end());
  expected.resize((expected.size() + 3) / 4 * 4);
  expected.insert(expected.end(), third.begin(), third.end());
  EXPECT_EQ(placed->size, expected.size());
  EXPECT_TRUE(contents(placed->gpa, expected.size()) == expected);
}

TEST_F(Initrd, TakesEveryFormatLinuxDoes) {
  for (const PayloadFormat format : {PayloadFormat::kGzip, PayloadFormat::kBzip2, PayloadFormat::kLzma,
                                     PayloadFormat::kXz, PayloadFormat::kLz4, PayloadFormat::kZstd})
    EXPECT_EQ(refusal({test::pack(format, cpio(1000))}), "") << payload_format_name(format);
  EXPECT_EQ(refusal({test::bytes_of("070702 and so on")}), "");
}

TEST_F(Initrd, FillsExactlyWhatIsLeft) {
  EXPECT_EQ(refusal({cpio(16 * kMiB - 4096)}), "");
  EXPECT_THAT(refusal({cpio(16 * kMiB - 4095)}), HasSubstr("raise memory to at least 33M"));
}

TEST_F(Initrd, SaysWhenMoreMemoryWouldNotHelp) {
  kernel_.initrd_max = 16 * kMiB + 8191;
  EXPECT_THAT(refusal({cpio(10000)}), HasSubstr("too large"));
}

TEST_F(Initrd, RefusesWhatIsNoArchive) {
  EXPECT_THAT(refusal({Bytes{}}), HasSubstr("empty file"));
  EXPECT_THAT(refusal({cpio(100), Bytes{}}), HasSubstr("initrd 2 of 2"));
  EXPECT_THAT(refusal({test::bytes_of("hello\n")}), HasSubstr("text file"));
  EXPECT_THAT(refusal({test::small_kernel().build()}), HasSubstr("a kernel"));
  EXPECT_THAT(refusal({test::bzimage_of(PayloadFormat::kGzip, test::pattern(100)).build()}),
              HasSubstr("a kernel"));
  const auto directory = open_file("/", O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(directory);
  const int fd = directory->get();
  const auto result = load_initrds({&fd, 1}, memory_, kernel_);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().text(), HasSubstr("directory"));
  EXPECT_FALSE(load({}));
}

TEST_F(Initrd, ReadsPipesToTheirEnd) {
  const Bytes file = cpio(300000);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::thread feeder([&] {
    for (size_t done = 0; done < file.size();)
      done += static_cast<size_t>(::write(writer.get(), file.data() + done, file.size() - done));
    writer.reset();
  });
  const int fd = reader.get();
  const auto placed = load_initrds({&fd, 1}, memory_, kernel_);
  feeder.join();
  ASSERT_TRUE(placed) << placed.error().text();
  EXPECT_EQ(placed->size, file.size());
  EXPECT_TRUE(contents(placed->gpa, file.size()) == file);
}

TEST_F(Initrd, AnEndlessPipeEnds) {
  const auto zeros = open_file("/dev/zero", O_RDONLY);
  ASSERT_TRUE(zeros);
  const int fd = zeros->get();
  EXPECT_FALSE(load_initrds({&fd, 1}, memory_, kernel_));
}

}  // namespace
}  // namespace snug::boot
