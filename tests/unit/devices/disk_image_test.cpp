#include "devices/virtio/block/disk_image.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <random>

#include "devices/virtio/block/disk.h"
#include "vmm/base/sparse_file.h"

namespace snug::test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPiece = BlockChanges::kPiece;

// Does nothing: what a guest changes these tests write themselves.
class IdleBackend final : public BlockBackend {
 public:
  IdleBackend() : fd_(std::move(*make_eventfd())) {}
  bool submit(BlockRequest&) override { return true; }
  bool kick() override { return false; }
  int event_fd() const override { return fd_.get(); }
  void reap(const Report&) override {}

 private:
  UniqueFd fd_;
};

UniqueFd nameless_file() {
  std::string path = testing::TempDir() + "/snug-image-XXXXXX";
  UniqueFd file(::mkstemp(path.data()));
  EXPECT_TRUE(file);
  ::unlink(path.c_str());
  return file;
}

std::vector<std::byte> contents(int file) {
  struct stat status {};
  EXPECT_EQ(::fstat(file, &status), 0);
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  EXPECT_TRUE(read_at(file, bytes, 0));
  return bytes;
}

uint64_t blocks(int file) {
  struct stat status {};
  EXPECT_EQ(::fstat(file, &status), 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

class DiskImageTest : public testing::Test {
 protected:
  explicit DiskImageTest(uint64_t bytes = 40 * kPiece)
      : disk(nameless_file()), copy(nameless_file()), size(bytes) {
    EXPECT_EQ(::ftruncate(disk.get(), static_cast<off_t>(size)), 0);
    make();
  }
  void make() {
    block =
        std::make_unique<VirtioBlock>(BlockConfig{.name = "disk vda", .size = size, .ephemeral = ephemeral},
                                      std::make_unique<IdleBackend>());
  }
  void fill(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(chance() | 1);
    ASSERT_TRUE(write_at(disk.get(), bytes, offset));
    map.set(offset / 512, length / 512);
  }
  DiskImageWriter writer() {
    return {
        {.device = block.get(), .mutex = &mutex, .file = disk.get(), .written = ephemeral ? &map : nullptr},
        *duplicate(copy.get()),
        cancelled};
  }
  void expect_a_copy() { EXPECT_EQ(contents(copy.get()), contents(disk.get())); }

  std::mt19937 chance{1};
  UniqueFd disk, copy;
  uint64_t size;
  bool ephemeral = false;
  SectorMap map = *SectorMap::create(1 << 16);
  std::mutex mutex;
  std::atomic<bool> cancelled = false;
  std::unique_ptr<VirtioBlock> block;
};

TEST_F(DiskImageTest, HasTheDiskAndItsHoles) {
  fill(3 * kPiece + 512, 1024);
  fill(30 * kPiece, 2 * kPiece);
  auto image = writer();
  ASSERT_TRUE(image.write_rest());
  expect_a_copy();
  EXPECT_LE(blocks(copy.get()), blocks(disk.get()));
}

TEST_F(DiskImageTest, OfAMomentWhenItWasWrittenAhead) {
  fill(0, 8 * kPiece);
  auto image = writer();
  ASSERT_TRUE(image.write_ahead());
  // What a guest does meanwhile: it writes, and it gives back.
  fill(4 * kPiece, kPiece);
  fill(39 * kPiece, kPiece);
  ASSERT_EQ(::fallocate(disk.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * kPiece), 0);
  if (block->notes_changes())
    for (const uint64_t piece : {0, 1, 4, 39}) block->note_change(piece * kPiece, kPiece);
  ASSERT_TRUE(image.write_rest());
  expect_a_copy();
  EXPECT_LE(blocks(copy.get()), blocks(disk.get()) + kPiece);
}

TEST_F(DiskImageTest, OfOneThatBecomesLargerOrSmaller) {
  for (const uint64_t other : {60 * kPiece + 512, 20 * kPiece}) {
    size = 40 * kPiece;
    ASSERT_EQ(::ftruncate(disk.get(), static_cast<off_t>(size)), 0);
    make();
    fill(10 * kPiece, 20 * kPiece);
    auto image = writer();
    ASSERT_TRUE(image.write_ahead());
    ASSERT_EQ(::ftruncate(disk.get(), static_cast<off_t>(other)), 0);
    if (other > size) fill(size, other - size);
    block->set_size(other);
    ASSERT_TRUE(image.write_rest());
    expect_a_copy();
  }
}

TEST_F(DiskImageTest, NobodyWantsIt) {
  fill(0, 8 * kPiece);
  cancelled = true;
  auto image = writer();
  const auto written = image.write_rest();
  // Where blocks are shared there is nothing to give up.
  if (!written) {
    EXPECT_THAT(written.error().text(), HasSubstr("cancelled"));
  }
}

TEST_F(DiskImageTest, AFileThatTakesNothingIsSaid) {
  fill(0, kPiece);
  copy = UniqueFd(::open("/dev/full", O_RDWR | O_CLOEXEC));
  auto image = writer();
  const auto written = image.write_rest();
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().text(), HasSubstr("copy of a disk"));
}

class OverlayImageTest : public DiskImageTest {
 protected:
  // The last sectors fill no word of the map.
  static constexpr uint64_t kSize = 40 * kPiece - 7 * 512;
  OverlayImageTest() : DiskImageTest(kSize) {
    ephemeral = true;
    make();
    fill(512, 1024);
    fill(17 * kPiece, 3 * kPiece);
    fill(kSize - 512, 512);
    // Given back: the overlay has it, and it is zero.
    map.set(100, 8);
  }
  void save() {
    auto image = writer();
    ASSERT_TRUE(image.write_ahead());
    ASSERT_TRUE(image.write_rest());
  }
  Result<void> read() {
    overlay = nameless_file();
    restored = *SectorMap::create((kSize + 511) / 512);
    return read_overlay_image(copy.get(), kSize, overlay.get(), restored);
  }
  UniqueFd overlay;
  SectorMap restored;
};

TEST_F(OverlayImageTest, IsReadAsItWas) {
  save();
  const auto done = read();
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ(contents(overlay.get()), contents(disk.get()));
  for (uint64_t sector = 0; sector < kSize / 512; ++sector)
    ASSERT_EQ(restored.has(sector), map.has(sector)) << sector;
}

TEST_F(OverlayImageTest, WhatIsNoneIsRefused) {
  save();
  const auto good = contents(copy.get());
  const auto refused = [&](std::vector<std::byte> bytes) {
    copy = nameless_file();
    EXPECT_TRUE(write_at(copy.get(), bytes, 0));
    const auto done = read();
    return done ? std::string() : done.error().text();
  };
  const size_t head = (kSize + 4095) / 4096 * 4096;
  EXPECT_THAT(refused({}), HasSubstr("no overlay"));
  auto bytes = good;
  bytes.pop_back();
  EXPECT_THAT(refused(bytes), HasSubstr("no overlay"));
  bytes = good;
  bytes.push_back(std::byte{0});
  EXPECT_THAT(refused(bytes), HasSubstr("no overlay"));
  bytes = good;
  bytes[head] = std::byte{0};
  EXPECT_THAT(refused(bytes), HasSubstr("no overlay"));
  bytes = good;
  bytes[head + 8] = std::byte{2};
  EXPECT_THAT(refused(bytes), HasSubstr("format 2"));
  bytes = good;
  bytes[head + 17] ^= std::byte{2};
  EXPECT_THAT(refused(bytes), HasSubstr("no overlay"));
  bytes = good;
  bytes[head + 4000] = std::byte{1};
  EXPECT_THAT(refused(bytes), HasSubstr("no overlay"));
  EXPECT_EQ(refused(good), "");
}

// A map may say anything: what is behind the disk's end is not believed.
TEST_F(OverlayImageTest, AMapThatSaysAnything) {
  save();
  auto bytes = contents(copy.get());
  const size_t start = (kSize + 4095) / 4096 * 4096 + 4096;
  for (size_t i = start; i < bytes.size(); ++i) bytes[i] = std::byte{0xff};
  copy = nameless_file();
  ASSERT_TRUE(write_at(copy.get(), bytes, 0));
  ASSERT_TRUE(read());
  const uint64_t sectors = kSize / 512;
  EXPECT_EQ(restored.run(0, sectors), sectors);
  EXPECT_NE(sectors % 64, 0u);
  EXPECT_FALSE(restored.has(sectors));
}

// It reads as before through the backend of a machine.
TEST_F(OverlayImageTest, GoesOnOverTheSameDisk) {
  save();
  ASSERT_TRUE(read());
  UniqueFd base = nameless_file();
  const std::vector<std::byte> below(kSize, std::byte{0x55});
  ASSERT_TRUE(write_at(base.get(), below, 0));
  DiskConfig config;
  config.files = {{.fd = base.get(), .in_memory = true}, {.fd = overlay.get(), .in_memory = true}};
  config.written = &restored;
  config.engine = BlockEngine::kThreads;
  auto backend = make_disk_backend(config);
  ASSERT_TRUE(backend);
  std::vector<std::byte> all(kSize);
  BlockRequest request{
      .operation = BlockOperation::kRead, .offset = 0, .length = kSize, .iovecs = {{all.data(), all.size()}}};
  ASSERT_TRUE((*backend)->submit(request));
  (void)(*backend)->kick();
  for (bool done = false; !done;) (*backend)->reap([&](uint64_t, int error) { done = error == 0; });
  const auto written = contents(disk.get());
  for (uint64_t sector = 0; sector < kSize / 512; ++sector) {
    const auto at = static_cast<ptrdiff_t>(sector * 512);
    const auto& expected = map.has(sector) ? written : below;
    ASSERT_TRUE(std::equal(all.begin() + at, all.begin() + at + 512, expected.begin() + at)) << sector;
  }
}

}  // namespace
}  // namespace snug::test
