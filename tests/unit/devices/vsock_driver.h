// The guest's side of a socket device for these tests: sends packets, receives packets, keeps buffers there.
// And a backend whose streams the test holds the other ends of.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/vsock/vsock.h"
#include "tests/unit/devices/virtio_fake_host.h"

namespace snug::test {

using Bytes = std::vector<std::byte>;

inline std::array<UniqueFd, 2> socket_pair() {
  std::array<int, 2> ends{-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

inline Bytes bytes_of(std::string_view text) {
  const auto span = std::as_bytes(std::span(text));
  return {span.begin(), span.end()};
}

// What a stream's bytes are in tests of amounts.
inline Bytes pattern(size_t size, size_t from = 0) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((from + i) * 31 + ((from + i) >> 8) * 7);
  return bytes;
}

// What there is to be read now; "EOF" and errors are told by `end`: 0 for more may come, -1 for the end, an
// errno.
inline Bytes read_all(int fd, int* end = nullptr) {
  Bytes all;
  std::array<std::byte, 65536> bytes;
  for (;;) {
    const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count > 0) {
      all.insert(all.end(), bytes.begin(), bytes.begin() + count);
      continue;
    }
    if (end != nullptr) *end = count == 0 ? -1 : errno == EAGAIN ? 0 : errno;
    return all;
  }
}

// What comes until the other end closes; before each further look it has a `turn`.
inline Bytes read_to_the_end(int fd, const std::function<void()>& turn) {
  Bytes all;
  for (int end = 0; end == 0; turn()) {
    const Bytes more = read_all(fd, &end);
    all.insert(all.end(), more.begin(), more.end());
    EXPECT_TRUE(end == 0 || end == -1);
  }
  return all;
}

class FakeVsockBackend final : public VsockBackend {
 public:
  tl::expected<UniqueFd, int> open(uint32_t port) override {
    ++opens;
    if (error != 0) return tl::unexpected(error);
    auto ends = socket_pair();
    streams[port].push_back(std::move(ends[1]));
    return std::move(ends[0]);
  }
  int error = 0;
  int opens = 0;
  std::map<uint32_t, std::deque<UniqueFd>> streams;  // the other ends, by port
};

using Outcomes = std::vector<VsockOutcome>;

inline VsockDone into(Outcomes& outcomes) {
  return [&outcomes](const VsockOutcome& outcome) { outcomes.push_back(outcome); };
}

inline void write_all(int fd, const Bytes& bytes) {
  ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

struct Packet {
  VsockHeader header;
  Bytes data;
  VsockOp op() const { return static_cast<VsockOp>(uint16_t{header.op}); }
};

class VsockTest : public testing::Test {
 protected:
  static constexpr uint32_t kHostPort = 80, kGuestPort = 5000, kGuestRoom = 64 << 10;
  static constexpr uint64_t kBuffers = 0x200000;
  static constexpr uint32_t kBufferSize = 4096;
  static constexpr uint16_t kRingSize = 128;

  VsockTest()
      : memory(ram()),
        rx(memory, kRingSize, 0x10000),
        tx(memory, kRingSize, 0x40000),
        events(memory, 16, 0x70000) {
    make({});
  }
  void make(VsockConfig config) {
    device = std::move(*VirtioVsock::create(config, backend));
    start();
  }
  // The driver is ready and has `buffers` for packets.
  void start(uint16_t buffers = 64) {
    transport = std::make_unique<FakeVirtioHost>(memory, 3);
    for (RingDriver* ring : {&rx, &tx, &events}) {
      ASSERT_TRUE(memory.zero(ring->layout().available, 0x2000));
      ASSERT_TRUE(memory.zero(ring->layout().used, 0x2000));
      ring->set_available_index(0);
    }
    next_tx = next_rx_used = 0;
    ASSERT_EQ(transport->queue(0).start(rx.layout(), {.indirect = true, .event_idx = false}), "");
    ASSERT_EQ(transport->queue(1).start(tx.layout(), {.indirect = true, .event_idx = false}), "");
    ASSERT_EQ(transport->queue(2).start(events.layout(), {.indirect = true, .event_idx = false}), "");
    device->start(*transport, 1);
    for (uint16_t i = 0; i < buffers; ++i) offer_buffer(i);
  }
  void offer_buffer(uint16_t head) {
    // As Linux does it: the header apart from the data.
    const uint64_t at = kBuffers + uint64_t{head} * 0x2000;
    rx.chain(static_cast<uint16_t>(2 * head), {{at, 44, true}, {at + 64, kBufferSize, true}});
    rx.offer(static_cast<uint16_t>(2 * head));
  }

  VsockHeader header(VsockOp op, uint32_t guest_port = kGuestPort, uint32_t host_port = kHostPort) const {
    VsockHeader made;
    made.source_cid = 3;
    made.destination_cid = 2;
    made.source_port = guest_port;
    made.destination_port = host_port;
    made.type = 1;
    made.op = static_cast<uint16_t>(op);
    made.room = kGuestRoom;
    made.forwarded = guest_forwarded;
    return made;
  }
  // Puts a packet into the ring, without ringing.
  void put(const VsockHeader& packet, const Bytes& data = {}) {
    const uint16_t slot = next_tx++ % (kRingSize / 2);
    const uint64_t at = 0x600000 + uint64_t{slot} * 0x20000 / 2;
    ASSERT_LE(data.size(), 0xff00u);
    ASSERT_TRUE(memory.store(at, packet));
    ASSERT_TRUE(memory.write(at + 44, data));
    std::vector<Part> parts{{at, 44, false}};
    if (!data.empty()) parts.push_back({at + 44, static_cast<uint32_t>(data.size()), false});
    tx.chain(static_cast<uint16_t>(2 * slot), parts);
    tx.offer(static_cast<uint16_t>(2 * slot));
  }
  void send(VsockHeader packet, const Bytes& data = {}) {
    if (!data.empty()) packet.length = static_cast<uint32_t>(data.size());
    put(packet, data);
    ring(VirtioVsock::kTransmit);
  }
  void send_data(const Bytes& data, uint32_t guest_port = kGuestPort, uint32_t host_port = kHostPort) {
    send(header(VsockOp::kData, guest_port, host_port), data);
  }
  // Until the host, which does not read, has no room and the device holds the rest: how much of the pattern.
  size_t send_until_held() {
    size_t sent = 0;
    for (; device->held() == 0; sent += 0x8000) {
      send_data(pattern(0x8000, sent));
      (void)received();
    }
    return sent;
  }
  void send_shutdown(uint32_t flags) {
    auto packet = header(VsockOp::kShutdown);
    packet.flags = flags;
    send(packet);
  }
  // A doorbell, and those that the device rings itself.
  void ring(uint16_t queue) {
    transport->again(queue);
    transport->run_turns(*device);
  }
  // What the device has to do on behalf of the host. False when nothing came up within a long time.
  bool host_events(int timeout_ms = 20'000) {
    pollfd poll_fd{device->event_fd(), POLLIN, 0};
    if (::poll(&poll_fd, 1, timeout_ms) != 1) return false;
    device->sockets_ready();
    ring(VirtioVsock::kReceive);
    return true;
  }
  // All that is there to be done now.
  void settle() {
    while (host_events(0)) {
    }
  }
  // Packets that came since; their buffers go back.
  std::vector<Packet> received(bool give_back = true) {
    std::vector<Packet> packets;
    for (; next_rx_used != rx.used_index(); ++next_rx_used) {
      const auto head = static_cast<uint16_t>(rx.used_id(next_rx_used) / 2);
      const uint64_t at = kBuffers + uint64_t{head} * 0x2000;
      Packet packet;
      packet.header = *memory.load<VsockHeader>(at);
      packet.data.resize(packet.header.length);
      EXPECT_EQ(rx.used_length(next_rx_used), 44 + packet.header.length);
      EXPECT_LE(packet.header.length, kBufferSize);
      EXPECT_TRUE(memory.read(at + 64, packet.data));
      EXPECT_EQ(uint64_t{packet.header.source_cid}, 2u);
      EXPECT_EQ(uint64_t{packet.header.destination_cid}, 3u);
      packets.push_back(std::move(packet));
      if (give_back) offer_buffer(head);
    }
    if (give_back && !packets.empty()) ring(VirtioVsock::kReceive);
    return packets;
  }
  // The one packet that came.
  Packet one() {
    settle();
    auto packets = received();
    EXPECT_EQ(packets.size(), 1u);
    return packets.empty() ? Packet{} : std::move(packets.front());
  }
  void expect_one(VsockOp op, uint32_t guest_port = kGuestPort, uint32_t host_port = kHostPort) {
    const Packet packet = one();
    EXPECT_EQ(packet.op(), op);
    EXPECT_EQ(uint32_t{packet.header.source_port}, host_port);
    EXPECT_EQ(uint32_t{packet.header.destination_port}, guest_port);
  }
  void expect_nothing() {
    settle();
    EXPECT_TRUE(received().empty());
  }
  // A connection that the guest has begun; the host's other end.
  UniqueFd connected(uint32_t guest_port = kGuestPort, uint32_t host_port = kHostPort) {
    send(header(VsockOp::kRequest, guest_port, host_port));
    expect_one(VsockOp::kResponse, guest_port, host_port);
    auto& streams = backend.streams[host_port];
    if (streams.empty()) return {};
    UniqueFd stream = std::move(streams.back());
    streams.pop_back();
    return stream;
  }

  GuestMemory memory;
  FakeVsockBackend backend;
  RingDriver rx, tx, events;
  std::unique_ptr<FakeVirtioHost> transport;
  std::unique_ptr<VirtioVsock> device;
  uint32_t guest_forwarded = 0;
  uint16_t next_tx = 0, next_rx_used = 0;
};

}  // namespace snug::test
