#include "tests/unit/devices/net_driver.h"

namespace snug::test {
namespace {

TEST_F(VirtioNetTest, Configuration) {
  std::array<std::byte, 12> bytes{};
  net->read_config(0, bytes);
  EXPECT_EQ(bytes[0], std::byte{2});
  EXPECT_EQ(bytes[5], std::byte{5});
  const std::span<const std::byte> all(bytes);
  EXPECT_EQ(load_le(all.subspan(6, 2)), 1u) << "link up";
  EXPECT_EQ(load_le(all.subspan(10, 2)), 1500u);
  net->set_link(false);
  net->set_link(false);
  EXPECT_EQ(host->config_calls, 1);
  net->read_config(6, std::span(bytes).subspan(6, 2));
  EXPECT_EQ(load_le(all.subspan(6, 2)), 0u);
  std::array<std::byte, 4> beyond{};
  net->read_config(~uint64_t{0}, beyond);
  net->read_config(11, beyond);
}

TEST_F(VirtioNetTest, FramesGoOutHoweverTheyAreCut) {
  const Bytes frame = frame_of(100);
  transmit(0, frame);
  transmit(10, frame, {12});
  transmit(20, frame, {5, 7, 1, 50});
  net->queue_ready(1);
  ASSERT_EQ(backend->sent.size(), 3u);
  for (const Bytes& sent : backend->sent) EXPECT_EQ(sent, frame);
  EXPECT_EQ(tx.used_index(), 3);
  EXPECT_EQ(host->used_calls[1], 1);
}

TEST_F(VirtioNetTest, ManyPartsAreCopiedTogether) {
  const Bytes frame = frame_of(200);
  const GuestMemory& m = memory;
  Bytes all(kHeader);
  all.insert(all.end(), frame.begin(), frame.end());
  ASSERT_TRUE(m.write(kBuffers, all));
  // An indirect table of 212 parts of one byte.
  for (uint16_t i = 0; i < all.size(); ++i)
    tx.descriptor(0x150000, i, kBuffers + i, 1, i + 1u < all.size() ? kDescNext : 0,
                  static_cast<uint16_t>(i + 1));
  tx.descriptor(0, 0x150000, static_cast<uint32_t>(16 * all.size()), kDescIndirect);
  tx.offer(0);
  net->queue_ready(1);
  ASSERT_EQ(backend->sent.size(), 1u);
  EXPECT_EQ(backend->sent[0], frame);
}

TEST_F(VirtioNetTest, FramesOfImpossibleLengthAreDropped) {
  transmit(0, frame_of(13));
  transmit(1, frame_of(65536));
  tx.chain(40, {{kBuffers, 3, false}});
  tx.offer(40);
  tx.chain(41, {{kBuffers, 300, true}});
  tx.offer(41);
  transmit(4, frame_of(14));
  transmit(5, frame_of(65535));
  net->queue_ready(1);
  ASSERT_EQ(backend->sent.size(), 2u);
  EXPECT_EQ(backend->sent[0].size(), 14u);
  EXPECT_EQ(tx.used_index(), 6) << "every chain comes back";
}

TEST_F(VirtioNetTest, AFullBackendIsTriedAgainInOrder) {
  backend->limit = 1;
  for (uint16_t i = 0; i < 3; ++i) transmit(i, frame_of(60, static_cast<uint8_t>(i)));
  net->queue_ready(1);
  EXPECT_EQ(backend->sent.size(), 1u);
  EXPECT_EQ(tx.used_index(), 1);
  net->queue_ready(1);
  EXPECT_EQ(tx.used_index(), 1) << "a doorbell makes no room";
  backend->limit = 1000;
  net->backend_ready(0);
  ASSERT_EQ(backend->sent.size(), 3u);
  for (uint8_t i = 0; i < 3; ++i) EXPECT_EQ(backend->sent[i], frame_of(60, i));
  EXPECT_EQ(tx.used_index(), 3);
  EXPECT_EQ(backend->flushes, 1);
  net->backend_ready(0);
  EXPECT_EQ(backend->flushes, 2) << "with nothing to send as well";
}

TEST_F(VirtioNetTest, PulledCableDropsBothWays) {
  net->set_link(false);
  transmit(0, frame_of(60));
  net->queue_ready(1);
  EXPECT_EQ(tx.used_index(), 1);
  EXPECT_TRUE(backend->sent.empty());
  offer_buffer(0, 1600);
  backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  EXPECT_TRUE(backend->waiting.empty());
  EXPECT_EQ(rx.used_index(), 0);
}

TEST_F(VirtioNetTest, FramesComeInWithHeader) {
  offer_buffer(3, 1600);
  backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  ASSERT_EQ(rx.used_index(), 1);
  EXPECT_EQ(rx.used_id(0), 3u);
  EXPECT_EQ(rx.used_length(0), kHeader + 60);
  EXPECT_EQ(received(0, 1), frame_of(60));
  const Bytes header = buffer(3, kHeader);
  EXPECT_EQ(header[0], std::byte{kNetChecksumGood});
  EXPECT_EQ(header[10], std::byte{1}) << "number of buffers";
  EXPECT_EQ(host->used_calls[0], 1);
}

TEST_F(VirtioNetTest, WithoutTheChecksumFeatureNothingIsSaidOfIt) {
  make(kMergeable);
  rx.set_available_index(0);
  offer_buffer(0, 1600);
  backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  EXPECT_EQ(buffer(0, 1)[0], std::byte{0});
}

TEST_F(VirtioNetTest, LongFramesFillSeveralBuffersAtOnce) {
  for (uint16_t i = 0; i < 3; ++i) offer_buffer(i, 1000);
  backend->waiting.push_back(frame_of(2500));
  net->backend_ready(0);
  ASSERT_EQ(rx.used_index(), 3);
  EXPECT_EQ(buffer(0, kHeader)[10], std::byte{3});
  EXPECT_EQ(received(0, 3), frame_of(2500));
}

TEST_F(VirtioNetTest, AFrameWaitsForItsBuffers) {
  offer_buffer(0, 1000);
  backend->waiting.push_back(frame_of(1500));
  net->backend_ready(0);
  EXPECT_EQ(rx.used_index(), 0) << "half a frame is none";
  EXPECT_EQ(rx.used_flags(), 0) << "the driver is asked to ring when there are more";
  offer_buffer(1, 1000);
  net->queue_ready(0);
  ASSERT_EQ(rx.used_index(), 2);
  EXPECT_EQ(received(0, 2), frame_of(1500));
}

TEST_F(VirtioNetTest, WithoutMergingOneBufferHoldsItOrItIsDropped) {
  make(kChecksum);
  rx.set_available_index(0);
  offer_buffer(0, 500);
  offer_buffer(1, 2000);
  backend->waiting = {frame_of(1000), frame_of(1000, 9)};
  net->backend_ready(0);
  ASSERT_EQ(rx.used_index(), 2);
  EXPECT_EQ(rx.used_length(0), 0u) << "given back empty";
  EXPECT_EQ(received(1, 1), frame_of(1000, 9));
}

TEST_F(VirtioNetTest, BuffersTooSmallForAHeaderComeBackEmpty) {
  offer_buffer(0, 5);
  rx.chain(1, {{kBuffers, 10, false}});
  rx.offer(1);
  offer_buffer(2, 2000);
  for (int i = 0; i < 3; ++i) backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  ASSERT_EQ(rx.used_index(), 3);
  EXPECT_EQ(rx.used_length(0), 0u);
  EXPECT_EQ(rx.used_length(1), 0u);
  EXPECT_EQ(received(2, 1), frame_of(60));
}

TEST_F(VirtioNetTest, ARingTooSmallForAFrameLosesOnlyThatFrame) {
  for (uint16_t i = 0; i < 64; ++i) offer_buffer(i, 20);
  backend->waiting = {frame_of(5000), frame_of(60)};
  net->backend_ready(0);
  EXPECT_TRUE(backend->waiting.empty());
  ASSERT_GT(rx.used_index(), 0);
  EXPECT_EQ(received(0, rx.used_index()), frame_of(60));
}

TEST_F(VirtioNetTest, AFloodLeavesTheLoopToOthers) {
  for (uint16_t i = 0; i < 64; ++i) offer_buffer(i, 200);
  for (int i = 0; i < 500; ++i) backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  EXPECT_EQ(rx.used_index(), 64);
  EXPECT_EQ(host->again_calls, std::deque<uint16_t>{0});
  for (uint16_t i = 0; i < 64; ++i) transmit(i, frame_of(60));
  net->queue_ready(1);
  EXPECT_EQ(tx.used_index(), 64);
}

TEST_F(VirtioNetTest, BrokenRingsAskForAReset) {
  rx.descriptor(0, 0xffff'ffff'0000, 100, kDescWrite);
  rx.offer(0);
  backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  EXPECT_NE(host->complaint, "");
  host->complaint.clear();
  tx.descriptor(0, kBuffers, 100, kDescNext, 0);
  tx.offer(0);
  net->queue_ready(1);
  EXPECT_NE(host->complaint, "");
  // Still standing, whatever comes.
  net->backend_ready(0);
  net->queue_ready(0);
  net->queue_ready(1);
}

TEST_F(VirtioNetTest, ResetForgetsWhatWasHeld) {
  backend->limit = 0;
  transmit(0, frame_of(60));
  net->queue_ready(1);
  offer_buffer(0, 100);
  backend->waiting.push_back(frame_of(500));
  net->backend_ready(0);
  EXPECT_TRUE(net->stop());
  net->backend_ready(0);
  host->queue(0).stop();
  host->queue(1).stop();
  rx.set_available_index(0);
  tx.set_available_index(0);
  ASSERT_EQ(host->queue(0).start(rx.layout(), {}), "");
  ASSERT_EQ(host->queue(1).start(tx.layout(), {}), "");
  net->start(*host, kMergeable);
  backend->limit = 10;
  backend->waiting.clear();
  net->backend_ready(0);
  EXPECT_TRUE(backend->sent.empty()) << "a frame of before the reset";
  EXPECT_EQ(backend->starts, 2);
}

TEST_F(VirtioNetTest, HeadersOfAGuestWithoutOffloadsAreEmpty) {
  const Bytes frame = frame_of(60);
  transmit(0, frame);
  ASSERT_TRUE(memory.store(kBuffers, uint64_t{0x0102030405060708}));
  net->queue_ready(1);
  EXPECT_EQ(backend->headers.back().flags, 0);
  EXPECT_EQ(backend->headers.back().gso_type, 0);
  rx.set_available_index(0);
  tx.set_available_index(0);
  make(kMergeable | 1);
  transmit(0, frame);
  ASSERT_TRUE(memory.store(kBuffers, uint64_t{0x0102030405060708}));
  net->queue_ready(1);
  EXPECT_EQ(backend->headers.back().flags, 8);
  EXPECT_EQ(backend->headers.back().gso_size, 0x0304);
}

TEST_F(VirtioNetTest, ABrokenBackendIsToldOnce) {
  int told = 0;
  broken = [&] { ++told; };
  rx.set_available_index(0);
  make(kMergeable);
  net->backend_ready(0);
  EXPECT_EQ(told, 0);
  backend->is_broken = true;
  net->backend_ready(0);
  net->backend_ready(0);
  net->queue_ready(0);
  EXPECT_EQ(told, 1);
  net->connect(std::make_unique<FakeNetBackend>());
  net->backend_ready(0);
  EXPECT_EQ(told, 1);
  broken = nullptr;
}

}  // namespace
}  // namespace snug::test
