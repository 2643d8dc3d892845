#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <deque>

#include "devices/virtio/pmem/pmem.h"
#include "tests/unit/devices/virtio_driver.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kTypeAt = 0x200000;
constexpr uint64_t kAnswerAt = 0x210000;
constexpr uint32_t kNothing = 0x55555555;  // no answer yet
constexpr uint32_t kFailed = 0xffffffff;

// Takes flushes, and is done with one when the test says so.
class FakeBackend final : public BlockBackend {
 public:
  bool submit(BlockRequest& request) override {
    EXPECT_EQ(request.operation, BlockOperation::kFlush);
    EXPECT_FALSE(under_way) << "one at a time";
    under_way = true;
    ++flushes;
    return true;
  }
  bool kick() override { return at_once; }
  int event_fd() const override { return event_.get(); }
  void reap(const Report& report) override {
    if (std::exchange(under_way, false)) report(0, error);
  }
  bool at_once = false;
  bool under_way = false;
  int error = 0;
  int flushes = 0;

 private:
  UniqueFd event_ = std::move(*make_eventfd());
};

class VirtioPmemTest : public testing::Test {
 protected:
  explicit VirtioPmemTest(bool read_only = false) {
    PmemConfig config{"disk pmem0", "/x/data.img", 0x123'4000'0000, 0x40'0000, read_only};
    auto backend = std::make_unique<FakeBackend>();
    if (!read_only) backend_ = backend.get();
    device_ = std::make_unique<VirtioPmem>(
        config, read_only ? nullptr : std::unique_ptr<BlockBackend>(std::move(backend)), &refused_);
    EXPECT_EQ(host_.queue(0).start(ring_.layout(), {.indirect = true, .event_idx = false}), "");
    device_->start(host_, 0);
  }
  // Request `n` of a driver like Linux's.
  void request(uint16_t n, uint32_t type = 0) {
    ring_.put(kTypeAt + 4 * n, type);
    ring_.put(kAnswerAt + 4 * n, kNothing);
    const auto first = static_cast<uint16_t>(2 * n);
    ring_.chain(first, {{kTypeAt + 4 * n, 4, false}, {kAnswerAt + 4 * n, 4, true}});
    ring_.offer(first);
  }
  void ring() { device_->queue_ready(0); }
  void done() { device_->completed(); }
  uint32_t answer(uint16_t n) const { return ring_.get<uint32_t>(kAnswerAt + 4 * n); }

  GuestMemory memory_ = ram();
  FakeVirtioHost host_{memory_, 1};
  RingDriver ring_{memory_, 32};
  RefusedWrites refused_{"disk pmem0", "/x/data.img"};
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<VirtioPmem> device_;
};

class ReadOnlyPmemTest : public VirtioPmemTest {
 protected:
  ReadOnlyPmemTest() : VirtioPmemTest(true) {}
};

TEST_F(VirtioPmemTest, TellsWhereItIs) {
  std::array<std::byte, 16> config{};
  device_->read_config(0, config);
  EXPECT_EQ(load_le(std::span<const std::byte>(config).first(8)), 0x123'4000'0000u);
  EXPECT_EQ(load_le(std::span<const std::byte>(config).subspan(8)), 0x40'0000u);
  std::array<std::byte, 4> part{};
  device_->read_config(14, part);
  device_->read_config(16, part);
  device_->read_config(UINT64_MAX, part);
  EXPECT_EQ(static_cast<int>(device_->type()), 27);
  EXPECT_EQ(device_->features(), 0u);
}

TEST_F(VirtioPmemTest, AFlushIsAnsweredWhenItIsDone) {
  request(0);
  ring();
  EXPECT_EQ(backend_->flushes, 1);
  EXPECT_EQ(ring_.used_index(), 0);
  EXPECT_EQ(answer(0), kNothing);
  done();
  EXPECT_EQ(ring_.used_index(), 1);
  EXPECT_EQ(ring_.used_length(0), 4u);
  EXPECT_EQ(answer(0), 0u);
  EXPECT_EQ(host_.used_calls[0], 1);
}

TEST_F(VirtioPmemTest, AFlushThatFailsIsAnsweredSo) {
  backend_->error = EIO;
  request(0);
  ring();
  done();
  EXPECT_EQ(answer(0), kFailed);
  backend_->error = 0;
  request(1);
  ring();
  done();
  EXPECT_EQ(answer(1), 0u);
}

TEST_F(VirtioPmemTest, OneFlushIsForAllThatCameBeforeItBegan) {
  request(0);
  ring();
  for (const uint16_t n : std::initializer_list<uint16_t>{1, 2, 3}) request(n);
  ring();
  EXPECT_EQ(backend_->flushes, 1);
  done();
  EXPECT_EQ(ring_.used_index(), 1) << "what the others have written may not be part of the first";
  EXPECT_EQ(backend_->flushes, 2);
  done();
  EXPECT_EQ(ring_.used_index(), 4);
  for (const uint16_t n : std::initializer_list<uint16_t>{0, 1, 2, 3}) EXPECT_EQ(answer(n), 0u);
  EXPECT_FALSE(backend_->under_way);
}

TEST_F(VirtioPmemTest, AFlushThatIsDoneAtOnceIsAnsweredAtOnce) {
  backend_->at_once = true;
  for (const uint16_t n : std::initializer_list<uint16_t>{0, 1}) request(n);
  ring();
  EXPECT_EQ(ring_.used_index(), 2);
  EXPECT_EQ(backend_->flushes, 1);
}

TEST_F(VirtioPmemTest, AnotherRequestFails) {
  request(0, 1);
  request(1, 0xffffffff);
  ring();
  EXPECT_EQ(ring_.used_index(), 2);
  EXPECT_EQ(answer(0), kFailed);
  EXPECT_EQ(answer(1), kFailed);
  EXPECT_EQ(backend_->flushes, 0);
  EXPECT_EQ(host_.used_calls[0], 1);
  EXPECT_EQ(host_.complaint, "");
}

TEST_F(VirtioPmemTest, PartsOfARequestMayBeCutAnywhere) {
  for (uint64_t i = 0; i < 4; ++i) ring_.put(kTypeAt + 16 * i, uint8_t{0});
  std::vector<Part> parts;
  for (uint64_t i = 0; i < 4; ++i) parts.push_back({kTypeAt + 16 * i, 1, false});
  for (uint64_t i = 0; i < 4; ++i) parts.push_back({kAnswerAt + 16 * i, 1, true});
  parts.push_back({kAnswerAt + 0x1000, 100, true});
  for (uint64_t i = 0; i < 4; ++i) ring_.put(kAnswerAt + 16 * i, uint8_t{0x55});
  ring_.put(kAnswerAt + 0x1000, kNothing);
  ring_.chain(0, parts);
  ring_.offer(0);
  ring();
  done();
  EXPECT_EQ(ring_.used_length(0), 4u);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(ring_.get<uint8_t>(kAnswerAt + 16 * i), 0);
  EXPECT_EQ(ring_.get<uint32_t>(kAnswerAt + 0x1000), kNothing);
}

TEST_F(VirtioPmemTest, RequestsWithoutTheirPartsBreakTheDevice) {
  const std::vector<std::vector<Part>> broken{
      {{kTypeAt, 4, false}},
      {{kAnswerAt, 4, true}},
      {{kTypeAt, 3, false}, {kAnswerAt, 4, true}},
      {{kTypeAt, 4, false}, {kAnswerAt, 3, true}},
      {{kTypeAt, 4, false}, {kRam - 2, 4, true}},
      {{kTypeAt, 4, false}, {0x123'4000'0000, 4, true}},
  };
  for (const auto& parts : broken) {
    EXPECT_TRUE(device_->stop());
    host_.complaint.clear();
    ring_.restart();
    EXPECT_EQ(host_.queue(0).start(ring_.layout(), {}), "");
    device_->start(host_, 0);
    ring_.chain(0, parts);
    ring_.offer(0);
    ring();
    EXPECT_NE(host_.complaint, "");
    EXPECT_EQ(backend_->flushes, 0);
    ring();  // it stands still
  }
}

TEST_F(VirtioPmemTest, ARingFullOfFlushesIsOneFlush) {
  for (uint16_t n = 0; n < 16; ++n) request(n);
  ring();
  EXPECT_EQ(backend_->flushes, 1);
  done();
  EXPECT_EQ(ring_.used_index(), 16);
}

TEST_F(VirtioPmemTest, AResetWaitsForWhatIsUnderWayAndDropsTheRest) {
  request(0);
  ring();
  request(1);
  ring();
  EXPECT_FALSE(device_->stop());
  done();
  EXPECT_EQ(host_.stopped_calls, 1);
  EXPECT_EQ(ring_.used_index(), 0);
  EXPECT_EQ(answer(0), kNothing);
  EXPECT_EQ(backend_->flushes, 1);
  ring_.restart();
  EXPECT_EQ(host_.queue(0).start(ring_.layout(), {}), "");
  device_->start(host_, 0);
  request(0);
  ring();
  done();
  EXPECT_EQ(answer(0), 0u);
}

TEST_F(VirtioPmemTest, AQueueThatIsResetAloneWaitsToo) {
  EXPECT_TRUE(device_->stop_queue(0));
  request(0);
  ring();
  EXPECT_FALSE(device_->stop_queue(0));
  done();
  EXPECT_EQ(host_.queue_stopped_calls, 1);
  EXPECT_EQ(answer(0), kNothing);
  // A reset of the whole device meanwhile.
  request(1);
  ring();
  EXPECT_FALSE(device_->stop_queue(0));
  EXPECT_FALSE(device_->stop());
  done();
  EXPECT_EQ(host_.queue_stopped_calls, 1);
  EXPECT_EQ(host_.stopped_calls, 1);
}

TEST_F(ReadOnlyPmemTest, AFlushHasNothingToDo) {
  request(0);
  ring();
  EXPECT_EQ(answer(0), 0u);
  EXPECT_EQ(device_->event_fd(), -1);
}

TEST_F(ReadOnlyPmemTest, AFlushBehindWritesThatWereRefusedFails) {
  refused_.write(0x1000, std::array<std::byte, 8>{});
  refused_.write(0x1008, std::array<std::byte, 8>{});
  EXPECT_EQ(refused_.count(), 2u);
  for (const uint16_t n : std::initializer_list<uint16_t>{0, 1}) request(n);
  ring();
  EXPECT_EQ(answer(0), kFailed);
  EXPECT_EQ(answer(1), 0u) << "it is told once";
}

// What other devices make of buffers in a file that is memory.
TEST(VirtioPmemBuffers, ReachFilesAsFarAsTheyMayBeWritten) {
  constexpr uint64_t kReadOnlyAt = 4 * kGiB;
  constexpr uint64_t kWritableAt = 5 * kGiB;
  GuestMemory memory = ram();
  const UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 2 * kMiB), 0);
  for (const bool writable : {false, true}) {
    GuestMemory::FileRegion region{};
    region.gpa = writable ? kWritableAt : kReadOnlyAt;
    region.size = region.bytes = 2 * kMiB;
    region.access = writable ? GuestMemory::Access::kReadWrite : GuestMemory::Access::kRead;
    region.fd = file.get();
    ASSERT_TRUE(memory.add_file(region, "it"));
  }
  const auto why = [&](const Part& part) {
    RingDriver ring(memory, 32);
    VirtQueue queue(memory);
    EXPECT_EQ(queue.start(ring.layout(), {.indirect = true}), "");
    ring.restart();
    ring.chain(0, {part});
    ring.offer(0);
    VirtChain chain;
    return queue.pop(chain) == VirtQueue::Pop::kChain ? "" : queue.why();
  };
  EXPECT_EQ(why({kReadOnlyAt, 4096, false}), "");
  EXPECT_EQ(why({kWritableAt, 2 * kMiB, false}), "");
  EXPECT_EQ(why({kWritableAt, 2 * kMiB, true}), "");
  EXPECT_THAT(why({kReadOnlyAt, 4096, true}), HasSubstr("nobody may write to"));
  EXPECT_THAT(why({kWritableAt + kMiB, 2 * kMiB, true}), HasSubstr("not in RAM"));
  EXPECT_THAT(why({kReadOnlyAt - 1, 2, false}), HasSubstr("not in RAM"));
  // Rings lie in RAM.
  RingDriver ring(memory, 32, kWritableAt);
  VirtQueue queue(memory);
  EXPECT_THAT(queue.start(ring.layout(), {}), HasSubstr("not in RAM"));
}

}  // namespace
}  // namespace snug::test
