#include "devices/virtio/block/block.h"

#include <fcntl.h>
#include <poll.h>

#include <cstring>
#include <deque>
#include <functional>
#include <random>

#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/noted_writes.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kHeader = 0x100000, kData = 0x200000, kStatusByte = 0x300000;
constexpr uint32_t kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13;
constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kNothing = 0xaa;

// Holds requests until the test finishes them.
class HeldBackend final : public BlockBackend {
 public:
  HeldBackend() : fd_(std::move(*make_eventfd())) {}
  bool submit(BlockRequest& request) override {
    if (held.size() >= limit) return false;
    held.push_back(&request);
    return true;
  }
  bool kick() override {
    ++kicks;
    while (at_once && !held.empty()) {
      finish();
      if (on_finish) on_finish();
    }
    return !done.empty() && at_once;
  }
  int event_fd() const override { return fd_.get(); }
  void reap(const Report& report) override {
    while (!done.empty()) {
      const auto [tag, error] = done.front();
      done.pop_front();
      report(tag, error);
    }
  }
  void finish(int error = 0) {
    done.emplace_back(held.front()->tag, error);
    held.pop_front();
  }
  std::deque<BlockRequest*> held;
  std::deque<std::pair<uint64_t, int>> done;
  size_t limit = 1000;
  int kicks = 0;
  bool at_once = false;  // requests are done when they are kicked off
  std::function<void()> on_finish;

 private:
  UniqueFd fd_;
};

class VirtioBlockTest : public testing::Test {
 protected:
  VirtioBlockTest() : memory(ram()), driver(memory, 64), host(memory, 2) { make({}); }

  void make(BlockConfig config) {
    config.name = "disk vda";
    if (config.size == 0) config.size = 1000 * kSector + 100;
    config.discard = true;
    config.serial = "serial-1";
    auto owned = std::make_unique<HeldBackend>();
    backend = owned.get();
    block = std::make_unique<VirtioBlock>(std::move(config), std::move(owned));
    driver.set_available_index(0);
    ASSERT_EQ(host.queue(0).start(driver.layout(), {.indirect = true, .event_idx = false}), "");
    block->start(host, 0);
  }
  void header(uint32_t type, uint64_t sector) {
    driver.put(kHeader, type);
    driver.put(kHeader + 4, uint32_t{0});
    driver.put(kHeader + 8, sector);
    driver.put(kStatusByte, kNothing);
  }
  void request(const std::vector<Part>& parts) {
    driver.chain(0, parts);
    driver.offer(0);
    block->queue_ready(0);
  }
  void transfer(uint32_t type, uint64_t sector, uint32_t bytes) {
    header(type, sector);
    request({{kHeader, 16, false}, {kData, bytes, type == kIn}, {kStatusByte, 1, true}});
  }
  uint8_t status() { return driver.get<uint8_t>(kStatusByte); }
  void finish(int error = 0) {
    backend->finish(error);
    block->completed();
  }

  GuestMemory memory;
  RingDriver driver;
  FakeVirtioHost host;
  HeldBackend* backend = nullptr;
  std::unique_ptr<VirtioBlock> block;
};

TEST_F(VirtioBlockTest, AQueueStopsAlone) {
  make({.queues = 2});
  EXPECT_TRUE(block->stop_queue(1)) << "nothing is under way there";
  EXPECT_TRUE(block->stop_queue(0));
  transfer(kIn, 0, 512);
  ASSERT_EQ(backend->held.size(), 1u);
  EXPECT_FALSE(block->stop_queue(0));
  host.used_calls.clear();
  finish();
  EXPECT_EQ(host.queue_stopped_calls, 1);
  EXPECT_TRUE(host.used_calls.empty());
  EXPECT_EQ(status(), kNothing) << "guest memory is not touched any more";
  // It goes on, as the same queue started anew.
  ASSERT_EQ(host.queue(0).start(driver.layout(), {.indirect = true, .event_idx = false}), "");
  driver.set_available_index(0);
  transfer(kIn, 0, 512);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_EQ(host.queue_stopped_calls, 1);
  // A reset of the whole device meanwhile.
  transfer(kIn, 0, 512);
  EXPECT_FALSE(block->stop_queue(0));
  EXPECT_FALSE(block->stop());
  finish();
  EXPECT_EQ(host.stopped_calls, 1);
  EXPECT_EQ(host.queue_stopped_calls, 1);
}

TEST_F(VirtioBlockTest, Configuration) {
  std::array<std::byte, 64> bytes{};
  block->read_config(0, bytes);
  EXPECT_EQ(load_le(std::span<const std::byte>(bytes).first(8)), 1000u) << "whole sectors";
  EXPECT_EQ(load_le(std::span<const std::byte>(bytes).subspan(12, 4)), 254u) << "segments of a request";
  block->read_config(60, std::span(bytes).first(4));
  block->read_config(~uint64_t{0}, std::span(bytes).first(4));
}

TEST_F(VirtioBlockTest, ARequestFitsIntoTheRing) {
  std::array<std::byte, 4> segments{};
  for (const auto& [size, wanted] : {std::pair{16, 14u}, {128, 126u}, {1024, 254u}}) {
    make({.queue_size = static_cast<uint16_t>(size)});
    EXPECT_EQ(block->queue_sizes()[0], size);
    block->read_config(12, segments);
    EXPECT_EQ(load_le(segments), wanted) << "in a ring of " << size;
  }
}

TEST_F(VirtioBlockTest, ReadsGoStraightToGuestMemory) {
  transfer(kIn, 7, 1024);
  ASSERT_EQ(backend->held.size(), 1u);
  const BlockRequest& taken = *backend->held.front();
  EXPECT_EQ(taken.operation, BlockOperation::kRead);
  EXPECT_EQ(taken.offset, 7 * kSector);
  EXPECT_EQ(taken.length, 1024u);
  ASSERT_EQ(taken.iovecs.size(), 1u);
  EXPECT_EQ(taken.iovecs[0].iov_len, 1024u);
  EXPECT_EQ(status(), kNothing) << "not before it is done";
  EXPECT_EQ(driver.used_index(), 0);
  std::memset(taken.iovecs[0].iov_base, 0x5a, 1024);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_EQ(driver.used_length(0), 1025u);
  EXPECT_EQ(driver.get<uint8_t>(kData + 1023), 0x5a);
  EXPECT_EQ(host.used_calls[0], 1);
}

// Also of a request that has failed, and of one that nobody waits for any more.
TEST_F(VirtioBlockTest, WhatItReadsIsNoted) {
  for (const bool fails : {false, true}) {
    for (const bool stops : {false, true}) {
      transfer(kIn, 7, 3 * 4096);
      const NotedWrites writes(memory);
      const iovec part = backend->held.front()->iovecs.at(0);
      ASSERT_EQ(part.iov_len, 3u * 4096);
      std::memset(part.iov_base, fails ? 1 : 2, part.iov_len);
      static_cast<std::byte*>(part.iov_base)[part.iov_len - 1] = static_cast<std::byte>(stops);
      EXPECT_FALSE(writes.missed().empty()) << "not before it is done";
      if (stops) block->stop_queue(0);
      const NotedWrites all(memory);
      std::memset(part.iov_base, fails ? 3 : 4, part.iov_len);
      finish(fails ? EIO : 0);
      EXPECT_EQ(all.missed(), std::vector<uint64_t>());
      make({});
    }
  }
}

TEST_F(VirtioBlockTest, AnyFramingWill) {
  // The header in two parts, data behind it in the same buffer, the status behind the data.
  header(kOut, 3);
  request(
      {{kHeader, 10, false}, {kHeader + 10, 6 + 512, false}, {kData, 512, false}, {kStatusByte, 1, true}});
  ASSERT_EQ(backend->held.size(), 1u);
  EXPECT_EQ(backend->held.front()->length, 1024u);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_EQ(driver.used_length(0), 1u);
  header(kIn, 3);
  request({{kHeader, 16, false}, {kStatusByte - 512, 513, true}});
  ASSERT_EQ(backend->held.size(), 1u);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_EQ(driver.used_length(1), 513u);
}

TEST_F(VirtioBlockTest, FlushDiscardAndZeroes) {
  header(kFlush, 0);
  request({{kHeader, 16, false}, {kStatusByte, 1, true}});
  EXPECT_EQ(backend->held.front()->operation, BlockOperation::kFlush);
  finish();
  EXPECT_EQ(status(), kOk);
  const std::pair<std::pair<uint32_t, uint32_t>, BlockOperation> ranges[] = {
      {{kDiscard, 0}, BlockOperation::kDiscard},
      {{kWriteZeroes, 0}, BlockOperation::kWriteZeroes},
      {{kWriteZeroes, 1}, BlockOperation::kZeroAndFree}};
  for (const auto& [wanted, operation] : ranges) {
    header(wanted.first, 0);
    driver.put(kData, uint64_t{8});
    driver.put(kData + 8, uint32_t{16});
    driver.put(kData + 12, wanted.second);
    request({{kHeader, 16, false}, {kData, 16, false}, {kStatusByte, 1, true}});
    ASSERT_EQ(backend->held.size(), 1u);
    EXPECT_EQ(backend->held.front()->operation, operation);
    EXPECT_EQ(backend->held.front()->offset, 8 * kSector);
    EXPECT_EQ(backend->held.front()->length, 16 * kSector);
    finish();
    EXPECT_EQ(status(), kOk);
  }
}

TEST_F(VirtioBlockTest, TellsItsId) {
  header(kGetId, 0);
  request({{kHeader, 16, false}, {kData, 20, true}, {kStatusByte, 1, true}});
  EXPECT_EQ(status(), kOk);
  std::array<std::byte, 20> id{};
  ASSERT_TRUE(memory.read(kData, id));
  EXPECT_STREQ(reinterpret_cast<const char*>(id.data()), "serial-1");
  EXPECT_EQ(driver.used_length(0), 21u);
}

TEST_F(VirtioBlockTest, ErrorsOfTheDisk) {
  transfer(kIn, 0, 512);
  finish(EIO);
  EXPECT_EQ(status(), kIoError);
  EXPECT_EQ(driver.used_length(0), 1u);
  transfer(kOut, 0, 512);
  finish(ENOSPC);
  EXPECT_EQ(status(), kIoError);
}

TEST_F(VirtioBlockTest, RequestsThatCannotBe) {
  const std::tuple<const char*, uint32_t, uint64_t, uint32_t, uint8_t> bad[] = {
      {"behind the end", kIn, 1000, 512, kIoError},
      {"across the end", kIn, 999, 1024, kIoError},
      {"wrapping", kOut, ~uint64_t{0}, 512, kIoError},
      {"wrapping bytes", kOut, ~uint64_t{0} / 512, 512, kIoError},
      {"part of a sector", kIn, 0, 100, kIoError},
      {"no data", kOut, 0, 0, kIoError},
      {"unknown", 77, 0, 512, kUnsupported},
      {"SCSI", 2, 0, 512, kUnsupported},
  };
  for (const auto& [name, type, sector, bytes, expected] : bad) {
    transfer(type, sector, bytes);
    EXPECT_TRUE(backend->held.empty()) << name;
    EXPECT_EQ(status(), expected) << name;
    EXPECT_EQ(host.complaint, "") << name;
  }
  // Ranges.
  const std::tuple<const char*, uint32_t, uint64_t, uint32_t, uint32_t> ranges[] = {
      {"behind the end", kDiscard, 1000, 1, 0}, {"wrapping", kDiscard, ~uint64_t{0}, 2, 0},
      {"nothing", kDiscard, 0, 0, 0},           {"flag of the other", kDiscard, 0, 8, 1},
      {"unknown flag", kWriteZeroes, 0, 8, 2},  {"too many", kWriteZeroes, 0, 0xffffffff, 0},
  };
  for (const auto& [name, type, sector, count, flags] : ranges) {
    header(type, 0);
    driver.put(kData, sector);
    driver.put(kData + 8, count);
    driver.put(kData + 12, flags);
    request({{kHeader, 16, false}, {kData, 16, false}, {kStatusByte, 1, true}});
    EXPECT_EQ(status(), kIoError) << name;
  }
  header(kDiscard, 0);
  request({{kHeader, 16, false}, {kData, 32, false}, {kStatusByte, 1, true}});
  EXPECT_EQ(status(), kIoError) << "two segments";
}

TEST_F(VirtioBlockTest, ChainsWithoutHeaderOrStatusAskForAReset) {
  for (const std::vector<Part>& parts : {std::vector<Part>{{kHeader, 16, false}},
                                         {{kHeader, 15, false}, {kStatusByte, 1, true}},
                                         {{kStatusByte, 1, true}}}) {
    host.complaint.clear();
    block->start(host, 0);
    header(kIn, 0);
    request(parts);
    EXPECT_NE(host.complaint, "");
  }
}

TEST_F(VirtioBlockTest, ReadOnlyDisksStayAsTheyAre) {
  make({.name = {},
        .size = 0,
        .block_size = 512,
        .read_only = true,
        .discard = true,
        .serial = {},
        .queues = 1});
  EXPECT_EQ(block->features() & (1 << 5 | 1 << 13 | 1 << 14), 1u << 5);
  transfer(kOut, 0, 512);
  EXPECT_EQ(status(), kIoError);
  header(kDiscard, 0);
  request({{kHeader, 16, false}, {kData, 16, false}, {kStatusByte, 1, true}});
  EXPECT_EQ(status(), kUnsupported);
  transfer(kIn, 0, 512);
  finish();
  EXPECT_EQ(status(), kOk);
}

TEST_F(VirtioBlockTest, ManyAtATimeInAnyOrder) {
  for (uint16_t i = 0; i < 20; ++i) {
    const auto first = static_cast<uint16_t>(3 * i);
    driver.put(kHeader + 16u * i, kIn);
    driver.put(kHeader + 16u * i + 8, uint64_t{i});
    driver.chain(first,
                 {{kHeader + 16u * i, 16, false}, {kData + 512u * i, 512, true}, {kStatusByte + i, 1, true}});
    driver.offer(first);
  }
  block->queue_ready(0);
  EXPECT_EQ(backend->held.size(), 20u);
  EXPECT_EQ(backend->kicks, 1) << "started together";
  std::swap(backend->held.front(), backend->held.back());
  while (!backend->held.empty()) backend->finish();
  block->completed();
  EXPECT_EQ(driver.used_index(), 20);
  EXPECT_EQ(driver.used_id(0), 57u);
  EXPECT_EQ(host.used_calls[0], 1) << "one interrupt for all";
}

TEST_F(VirtioBlockTest, WhatIsDoneAtOnceIsAnsweredAtOnce) {
  backend->at_once = true;
  transfer(kIn, 0, 512);
  EXPECT_EQ(status(), kOk);
  EXPECT_EQ(driver.used_index(), 1);
  EXPECT_EQ(host.used_calls[0], 1);
  EXPECT_TRUE(host.again_calls.empty());
}

// More than there are places for: each round makes room for the next.
TEST_F(VirtioBlockTest, ABudgetOfOneRingAtATime) {
  backend->at_once = true;
  // A ring that is never empty: a chain is offered each time one is given back.
  header(kIn, 0);
  driver.chain(0, {{kHeader, 16, false}, {kData, 512, true}, {kStatusByte, 1, true}});
  for (int i = 0; i < 64; ++i) driver.offer(0);
  backend->on_finish = [this] { driver.offer(0); };
  block->queue_ready(0);
  EXPECT_EQ(driver.used_index(), 64) << "as many as the ring has entries";
  EXPECT_EQ(host.again_calls.size(), 1u) << "and then others have a turn";
}

TEST_F(VirtioBlockTest, ADeviceThatWaitsForAResetTakesNothing) {
  header(kIn, 0);
  request({{kHeader, 8, false}, {kStatusByte, 1, true}});
  EXPECT_NE(host.complaint, "");
  transfer(kIn, 0, 512);
  EXPECT_TRUE(backend->held.empty());
  EXPECT_FALSE(block->look());
  EXPECT_FALSE(block->rest());
}

TEST_F(VirtioBlockTest, LookingFindsWhatNobodyRangFor) {
  EXPECT_FALSE(block->look());
  header(kIn, 0);
  driver.chain(0, {{kHeader, 16, false}, {kData, 512, true}, {kStatusByte, 1, true}});
  driver.offer(0);
  EXPECT_TRUE(block->look());
  ASSERT_EQ(backend->held.size(), 1u);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_FALSE(block->look());
  driver.offer(0);
  EXPECT_TRUE(block->rest()) << "the last look";
  EXPECT_FALSE(block->rest()) << "notifications are asked for";
}

TEST_F(VirtioBlockTest, AResetWaitsAndThrowsAnswersAway) {
  transfer(kIn, 0, 512);
  transfer(kIn, 1, 512);
  host.queue(0).stop();
  EXPECT_FALSE(block->stop());
  finish();
  EXPECT_EQ(host.stopped_calls, 0);
  finish();
  EXPECT_EQ(host.stopped_calls, 1);
  EXPECT_EQ(status(), kNothing);
  EXPECT_EQ(driver.used_index(), 0);
  // And works again.
  driver.set_available_index(0);
  ASSERT_EQ(host.queue(0).start(driver.layout(), {}), "");
  block->start(host, 0);
  transfer(kIn, 0, 512);
  finish();
  EXPECT_EQ(status(), kOk);
  EXPECT_TRUE(block->stop()) << "nothing is under way";
}

TEST_F(VirtioBlockTest, AResizeIsToldAndHolds) {
  transfer(kIn, 1000, 512);
  EXPECT_EQ(status(), kIoError);
  block->set_size(2000 * kSector);
  EXPECT_EQ(host.config_calls, 1);
  std::array<std::byte, 8> capacity{};
  block->read_config(0, capacity);
  EXPECT_EQ(load_le(capacity), 2000u);
  transfer(kIn, 1999, 512);
  finish();
  EXPECT_EQ(status(), kOk);
  block->set_size(2000 * kSector);
  EXPECT_EQ(host.config_calls, 1) << "nothing new";
  block->set_size(100 * kSector);
  transfer(kIn, 100, 512);
  EXPECT_EQ(status(), kIoError);
  EXPECT_TRUE(block->stop());
  block->set_size(200 * kSector);
  EXPECT_EQ(host.config_calls, 2) << "no driver to tell";
}

TEST_F(VirtioBlockTest, ShowsTheTopology) {
  std::array<std::byte, 8> topology{};
  block->read_config(24, topology);
  EXPECT_EQ(load_le(std::span(topology).first(1)), 3u) << "4096 are 2^3 blocks of 512";
  EXPECT_EQ(load_le(std::span(topology).subspan(2, 2)), 8u);
  EXPECT_NE(block->features() & uint64_t{1} << 10, 0u);
}

TEST_F(VirtioBlockTest, AnEphemeralDiskHasNothingToFlush) {
  make({.ephemeral = true});
  EXPECT_EQ(block->features() & uint64_t{1} << 9, 0u);
  transfer(kFlush, 0, 0);
  EXPECT_TRUE(backend->held.empty());
  EXPECT_EQ(status(), kOk);
}

TEST_F(VirtioBlockTest, AnEphemeralDiskTakesFlushesOfAGuestThatHasBeenToldSo) {
  make({.ephemeral = true, .takes_flushes = true});
  EXPECT_NE(block->features() & (1u << 9), 0u);
  header(kFlush, 0);
  request({{kHeader, 16, false}, {kStatusByte, 1, true}});
  EXPECT_TRUE(backend->held.empty());
  EXPECT_EQ(status(), kOk);
}

TEST_F(VirtioBlockTest, NotesWhatTheGuestChanges) {
  using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;
  const auto noted = [this] {
    Ranges ranges;
    (void)block->take_changes().for_each<Result<void>>([&](uint64_t offset, uint64_t length) -> Result<void> {
      ranges.emplace_back(offset, length);
      return {};
    });
    return ranges;
  };
  constexpr uint64_t kPiece = BlockChanges::kPiece;
  constexpr uint64_t kSectors = kPiece / kSector;
  // One that is under way as it begins may be done behind it.
  transfer(kOut, 0, 512);
  block->note_changes(true);
  finish();
  EXPECT_EQ(noted(), (Ranges{{0, kPiece}}));
  EXPECT_EQ(noted(), Ranges()) << "told once";
  transfer(kIn, 0, 512);
  finish();
  EXPECT_EQ(noted(), Ranges()) << "a read changes nothing";
  // From one piece into the next, and what has failed half-way.
  transfer(kOut, kSectors - 1, 1024);
  finish(EIO);
  transfer(kOut, 3 * kSectors, 512);
  // What a backend does on the way: the request is used up when it is done.
  backend->held.front()->offset += 512;
  backend->held.front()->length = 0;
  finish();
  EXPECT_EQ(noted(), (Ranges{{0, 2 * kPiece}, {3 * kPiece, kPiece}}));
  header(kDiscard, 0);
  driver.put(kData, uint64_t{2 * kSectors});
  driver.put(kData + 8, uint32_t{8});
  driver.put(kData + 12, uint32_t{0});
  request({{kHeader, 16, false}, {kData, 16, false}, {kStatusByte, 1, true}});
  finish();
  EXPECT_EQ(noted(), (Ranges{{2 * kPiece, kPiece}}));
  block->note_changes(false);
  transfer(kOut, 0, 512);
  finish();
  block->note_changes(true);
  EXPECT_EQ(noted(), Ranges());
}

TEST_F(VirtioBlockTest, WritesAreDurableForADriverWithoutFlush) {
  transfer(kOut, 0, 512);  // started without any feature
  ASSERT_EQ(backend->held.size(), 1u);
  EXPECT_TRUE(backend->held.front()->durable);
  backend->finish();
  block->completed();
  make({});
  block->stop();
  block->start(host, block->features());
  transfer(kOut, 0, 512);
  ASSERT_EQ(backend->held.size(), 1u);
  EXPECT_FALSE(backend->held.front()->durable);
}

}  // namespace
}  // namespace snug::test
