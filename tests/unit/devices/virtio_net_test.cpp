#include "devices/virtio/net/net.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "tests/unit/devices/virtio_driver.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kMergeable = uint64_t{1} << 15, kChecksum = uint64_t{1} << 1;
constexpr uint64_t kControl = uint64_t{1} << 17, kMulti = uint64_t{1} << 22;
constexpr size_t kHeader = 12;

Bytes frame_of(size_t size, uint8_t seed = 1) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(seed + 7 * i + i / 256);
  return bytes;
}

class FakeNetBackend final : public NetBackend {
 public:
  uint64_t offloads() const override { return 0; }
  void start(uint64_t) override { ++starts; }
  size_t send(uint16_t, std::span<const OutFrame> frames) override {
    size_t count = 0;
    for (const OutFrame& frame : frames) {
      if (sent.size() >= limit) break;
      Bytes bytes;
      for (const iovec& part : frame.parts) {
        const auto* from = static_cast<const std::byte*>(part.iov_base);
        bytes.insert(bytes.end(), from, from + part.iov_len);
      }
      EXPECT_EQ(bytes.size(), frame.length);
      sent.push_back(std::move(bytes));
      ++count;
    }
    return count;
  }
  std::optional<InFrame> next(uint16_t) override {
    if (waiting.empty()) return std::nullopt;
    return InFrame{{.flags = kNetChecksumGood}, waiting.front()};
  }
  void take(uint16_t) override { waiting.pop_front(); }
  int fd(uint16_t) const override { return -1; }
  bool broken() const override { return false; }

  std::vector<Bytes> sent;
  std::deque<Bytes> waiting;
  size_t limit = 1000;
  int starts = 0;
};

class NetHost final : public VirtioHost {
 public:
  NetHost(const GuestMemory& memory, size_t queues) : memory_(memory) {
    for (size_t i = 0; i < queues; ++i) queues_.emplace_back(memory);
  }
  VirtQueue& queue(uint16_t index) override { return queues_.at(index); }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t queue) override { ++used_calls[queue]; }
  void config_changed() override { ++config_calls; }
  void needs_reset(const std::string& why) override { complaint = why; }
  void again(uint16_t queue) override { again_calls.push_back(queue); }
  void stopped() override {}
  std::map<uint16_t, int> used_calls;
  std::vector<uint16_t> again_calls;
  int config_calls = 0;
  std::string complaint;

 private:
  const GuestMemory& memory_;
  std::deque<VirtQueue> queues_;
};

constexpr uint64_t kBuffers = 0x200000;

class VirtioNetTest : public testing::Test {
 protected:
  VirtioNetTest()
      : memory(ram()), rx(memory, 64, 0x10000), tx(memory, 64, 0x40000), control(memory, 64, 0x70000) {
    make(kMergeable | kChecksum);
  }
  void make(uint64_t features, uint16_t pairs = 1) {
    auto owned = std::make_unique<FakeNetBackend>();
    backend = owned.get();
    net = std::make_unique<VirtioNet>(
        NetConfig{.name = "net[0]", .mac = {2, 1, 2, 3, 4, 5}, .mtu = 1500, .pairs = pairs},
        std::move(owned));
    host = std::make_unique<NetHost>(memory, net->queue_sizes().size());
    ASSERT_EQ(host->queue(0).start(rx.layout(), {.indirect = true, .event_idx = false}), "");
    ASSERT_EQ(host->queue(1).start(tx.layout(), {.indirect = true, .event_idx = false}), "");
    if (pairs > 1) {
      ASSERT_EQ(host->queue(2 * pairs).start(control.layout(), {.indirect = true, .event_idx = false}), "");
    }
    net->start(*host, features);
  }
  // A frame of the guest behind a header, in parts of the given sizes.
  void transmit(uint16_t head, const Bytes& frame, std::vector<uint32_t> cuts = {}) {
    Bytes all(kHeader);
    all.insert(all.end(), frame.begin(), frame.end());
    const uint64_t at = kBuffers + uint64_t{head} * 0x20000;
    ASSERT_TRUE(memory.write(at, all));
    std::vector<Part> parts;
    uint64_t done = 0;
    for (const uint32_t cut : cuts) {
      parts.push_back({at + done, cut, false});
      done += cut;
    }
    if (done < all.size()) parts.push_back({at + done, static_cast<uint32_t>(all.size() - done), false});
    tx.chain(head, parts);
    tx.offer(head);
  }
  void offer_buffer(uint16_t head, uint32_t size) {
    rx.chain(head, {{kBuffers + uint64_t{head} * 0x20000, size, true}});
    rx.offer(head);
  }
  Bytes buffer(uint16_t head, size_t size) {
    Bytes bytes(size);
    EXPECT_TRUE(memory.read(kBuffers + uint64_t{head} * 0x20000, bytes));
    return bytes;
  }
  // What lies behind the header of the `count` buffers from used entry `first` on.
  Bytes received(uint16_t first, uint16_t count) {
    Bytes all;
    for (uint16_t i = 0; i < count; ++i) {
      const Bytes part = buffer(static_cast<uint16_t>(rx.used_id(first + i)), rx.used_length(first + i));
      all.insert(all.end(), part.begin() + (i == 0 ? kHeader : 0), part.end());
    }
    return all;
  }

  GuestMemory memory;
  RingDriver rx, tx, control;
  FakeNetBackend* backend = nullptr;
  std::unique_ptr<VirtioNet> net;
  std::unique_ptr<NetHost> host;
};

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
  EXPECT_EQ(host->again_calls, std::vector<uint16_t>{0});
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

TEST_F(VirtioNetTest, QueuePairsByTheControlQueue) {
  make(kMergeable | kControl | kMulti, 4);
  const auto command = [&](std::vector<uint8_t> bytes, bool answerable = true) {
    EXPECT_TRUE(memory.write(kBuffers, std::as_bytes(std::span(bytes))));
    std::vector<Part> parts{{kBuffers, static_cast<uint32_t>(bytes.size()), false}};
    if (answerable) parts.push_back({kBuffers + 100, 1, true});
    EXPECT_TRUE(memory.store(kBuffers + 100, uint8_t{0xaa}));
    control.chain(0, parts);
    control.offer(0);
    net->queue_ready(8);
    return *memory.load<uint8_t>(kBuffers + 100);
  };
  EXPECT_EQ(command({4, 0, 4, 0}), 0);
  EXPECT_EQ(command({4, 0, 1, 0}), 0);
  EXPECT_EQ(command({4, 0, 5, 0}), 1);
  EXPECT_EQ(command({4, 0, 0, 0}), 1);
  EXPECT_EQ(command({4, 1, 1, 0}), 1);
  EXPECT_EQ(command({0, 0, 1}), 1);
  EXPECT_EQ(command({4}), 1);
  EXPECT_EQ(host->complaint, "");
  command({4, 0, 1, 0}, false);
  EXPECT_NE(host->complaint, "");
}

// --- the stream -------------------------------------------------------------------------------------

class StreamTest : public testing::Test {
 protected:
  StreamTest() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    ::fcntl(peer.get(), F_SETFL, O_NONBLOCK);
    stream = make_stream_backend(UniqueFd(pair[0]));
  }
  static Bytes packed(const Bytes& frame) {
    Bytes bytes;
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::byte>(frame.size() >> shift));
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return bytes;
  }
  void give(const Bytes& bytes) {
    ASSERT_EQ(::write(peer.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  std::optional<Bytes> next() {
    const auto frame = stream->next(0);
    if (!frame) return std::nullopt;
    Bytes bytes(frame->data.begin(), frame->data.end());
    stream->take(0);
    return bytes;
  }
  size_t send(const std::vector<Bytes>& frames) {
    std::vector<iovec> parts;
    for (const Bytes& frame : frames) parts.push_back({const_cast<std::byte*>(frame.data()), frame.size()});
    std::vector<OutFrame> out;
    for (size_t i = 0; i < frames.size(); ++i)
      out.push_back({{}, std::span(parts).subspan(i, 1), static_cast<uint32_t>(frames[i].size())});
    return stream->send(0, out);
  }
  Bytes heard() {
    Bytes all;
    Bytes buffer(1 << 20);
    ssize_t count = 0;
    while ((count = ::read(peer.get(), buffer.data(), buffer.size())) > 0)
      all.insert(all.end(), buffer.begin(), buffer.begin() + count);
    return all;
  }

  UniqueFd peer;
  std::unique_ptr<NetBackend> stream;
};

TEST_F(StreamTest, FramesInHoweverTheyAreCut) {
  Bytes all;
  std::vector<Bytes> frames;
  for (size_t size : {14u, 60u, 1514u, 65535u, 15u}) {
    frames.push_back(frame_of(size));
    const Bytes one = packed(frames.back());
    all.insert(all.end(), one.begin(), one.end());
  }
  std::mt19937 random(1);
  std::vector<Bytes> got;
  for (size_t at = 0; at < all.size();) {
    const size_t part = std::min<size_t>(all.size() - at, 1 + random() % 20'000);
    give(Bytes(all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + part)));
    at += part;
    while (auto frame = next()) got.push_back(std::move(*frame));
  }
  EXPECT_EQ(got, frames);
  EXPECT_FALSE(stream->broken());
}

TEST_F(StreamTest, LengthsThatAreNoneBreakIt) {
  for (const uint32_t length : {0u, 13u, 65536u, 0xffffffffu}) {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    stream = make_stream_backend(UniqueFd(pair[0]));
    Bytes bytes(100);
    for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<std::byte>(length >> (24 - 8 * i));
    give(bytes);
    EXPECT_FALSE(next());
    EXPECT_TRUE(stream->broken());
    EXPECT_FALSE(next());
    EXPECT_EQ(send({frame_of(60)}), 1u) << "dropped";
  }
}

TEST_F(StreamTest, WholeFramesOutAndTheRestOfACutOneFirst) {
  std::vector<Bytes> taken;
  Bytes expected;
  // Until the socket is full.
  for (uint8_t i = 0;; ++i) {
    const std::vector<Bytes> batch{frame_of(9000, i), frame_of(3000, i), frame_of(70, i)};
    const size_t count = send(batch);
    for (size_t k = 0; k < count; ++k) {
      const Bytes one = packed(batch[k]);
      expected.insert(expected.end(), one.begin(), one.end());
    }
    if (count == 0) break;
  }
  EXPECT_EQ(send({frame_of(60)}), 0u);
  Bytes got = heard();
  EXPECT_EQ(send({frame_of(60)}), 1u);
  const Bytes one = packed(frame_of(60));
  expected.insert(expected.end(), one.begin(), one.end());
  const Bytes more = heard();
  got.insert(got.end(), more.begin(), more.end());
  EXPECT_TRUE(got == expected);
}

TEST_F(StreamTest, AnEndIsNoticedAndSurvived) {
  give(packed(frame_of(60)));
  peer.reset();
  EXPECT_TRUE(next()) << "what had come is given";
  EXPECT_FALSE(next());
  EXPECT_TRUE(stream->broken());
  EXPECT_EQ(send({frame_of(60), frame_of(60)}), 2u);
}

TEST_F(StreamTest, StartDropsWhatCameBefore) {
  give(packed(frame_of(60, 1)));
  stream->start(0);
  EXPECT_FALSE(next());
  give(packed(frame_of(60, 2)));
  EXPECT_EQ(next(), frame_of(60, 2));
}

}  // namespace
}  // namespace snug::test
