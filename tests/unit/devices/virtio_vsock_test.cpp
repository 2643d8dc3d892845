#include "tests/unit/devices/noted_writes.h"
#include "tests/unit/devices/vsock_driver.h"

namespace snug::test {
namespace {

TEST_F(VsockTest, Configuration) {
  std::array<std::byte, 12> bytes{};
  device->read_config(0, bytes);
  EXPECT_EQ(load_le(std::span<const std::byte>(bytes).first(8)), 3u);
  EXPECT_EQ(load_le(std::span<const std::byte>(bytes).subspan(8)), 0u);
  device->read_config(~uint64_t{0}, bytes);
  EXPECT_EQ(load_le(std::span<const std::byte>(bytes).first(8)), 0u);
  EXPECT_FALSE(is_guest_cid(2));
  EXPECT_TRUE(is_guest_cid(3));
  EXPECT_FALSE(is_guest_cid(0xffffffff));
  EXPECT_FALSE(is_guest_cid(uint64_t{1} << 32));
}

// --- connections ------------------------------------------------------------------------------------

TEST_F(VsockTest, TheGuestReachesTheHost) {
  send(header(VsockOp::kRequest));
  const Packet answer = one();
  EXPECT_EQ(answer.op(), VsockOp::kResponse);
  EXPECT_EQ(uint32_t{answer.header.room}, VirtioVsock::kRoom);
  ASSERT_EQ(backend.streams[kHostPort].size(), 1u);
  const int host = backend.streams[kHostPort].front().get();
  send_data(bytes_of("hello"));
  EXPECT_EQ(read_all(host), bytes_of("hello"));
  const NotedWrites writes(memory);
  write_all(host, bytes_of("answer"));
  const Packet data = one();
  EXPECT_EQ(writes.missed(), std::vector<uint64_t>());
  EXPECT_EQ(data.op(), VsockOp::kData);
  EXPECT_EQ(data.data, bytes_of("answer"));
  EXPECT_EQ(uint32_t{data.header.forwarded}, 5u);
}

TEST_F(VsockTest, TheGuestIsRefused) {
  backend.error = ENOENT;
  send(header(VsockOp::kRequest));
  expect_one(VsockOp::kReset);
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, ABusyHostIsAskedAgain) {
  make({.busy_timeout = std::chrono::seconds(20), .busy_pause = std::chrono::milliseconds(1)});
  backend.error = EAGAIN;
  send(header(VsockOp::kRequest));
  EXPECT_TRUE(received().empty());
  ASSERT_TRUE(host_events());
  EXPECT_TRUE(received().empty());
  backend.error = 0;
  ASSERT_TRUE(host_events());
  expect_one(VsockOp::kResponse);
  EXPECT_EQ(backend.opens, 3);
  write_all(backend.streams[kHostPort].front().get(), bytes_of("x"));
  expect_one(VsockOp::kData);
}

TEST_F(VsockTest, AHostThatStaysBusyRefuses) {
  make({.busy_timeout = std::chrono::milliseconds(3), .busy_pause = std::chrono::milliseconds(1)});
  backend.error = EAGAIN;
  send(header(VsockOp::kRequest));
  while (device->connections() > 0) ASSERT_TRUE(host_events());
  expect_one(VsockOp::kReset);
}

TEST_F(VsockTest, TheHostReachesTheGuest) {
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  write_all(ours.get(), bytes_of("early"));
  device->connect(1234, std::move(theirs), into(outcomes));
  const Packet request = one();
  EXPECT_EQ(request.op(), VsockOp::kRequest);
  EXPECT_EQ(uint32_t{request.header.destination_port}, 1234u);
  EXPECT_EQ(uint32_t{request.header.room}, VirtioVsock::kRoom);
  EXPECT_TRUE(outcomes.empty());
  const uint32_t host_port = request.header.source_port;
  // Sent with the answer: what `done` writes to the stream comes first.
  put(header(VsockOp::kResponse, 1234, host_port));
  auto data = header(VsockOp::kData, 1234, host_port);
  data.length = 2;
  put(data, bytes_of("ok"));
  ring(VirtioVsock::kTransmit);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, 0);
  EXPECT_EQ(outcomes[0].host_port, host_port);
  EXPECT_EQ(read_all(ours.get()), bytes_of("ok"));
  EXPECT_EQ(one().data, bytes_of("early"));
}

TEST_F(VsockTest, TheHostIsRefused) {
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  send(header(VsockOp::kReset, 1234, one().header.source_port));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, ECONNREFUSED);
  EXPECT_EQ(device->connections(), 0u);
  int end = 0;
  EXPECT_TRUE(read_all(ours.get(), &end).empty());
  EXPECT_EQ(end, -1);
}

TEST_F(VsockTest, AGuestThatNeverAnswers) {
  make({.connect_timeout = std::chrono::milliseconds(5)});
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  const uint32_t host_port = received().at(0).header.source_port;
  while (outcomes.empty()) ASSERT_TRUE(host_events());
  EXPECT_EQ(outcomes[0].error, ETIMEDOUT);
  expect_one(VsockOp::kReset, 1234, host_port);
  EXPECT_EQ(device->connections(), 0u);
  // Too late.
  send(header(VsockOp::kResponse, 1234, host_port));
  expect_one(VsockOp::kReset, 1234, host_port);
  EXPECT_EQ(outcomes.size(), 1u);
}

TEST_F(VsockTest, AGuestWithoutBuffersNeverHearsOfIt) {
  make({.connect_timeout = std::chrono::milliseconds(5)});
  device->stop();
  start(0);
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  while (outcomes.empty()) ASSERT_TRUE(host_events());
  EXPECT_EQ(outcomes[0].error, ETIMEDOUT);
  EXPECT_EQ(device->connections(), 0u);
  offer_buffer(0);
  ring(VirtioVsock::kReceive);
  expect_nothing();
}

TEST_F(VsockTest, WhoeverAskedIsGone) {
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  const uint32_t host_port = one().header.source_port;
  ours.reset();
  ASSERT_TRUE(host_events());
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, ECONNABORTED);
  expect_one(VsockOp::kReset, 1234, host_port);
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, WithoutADriverTheGuestIsUnreachable) {
  device->stop();
  Outcomes outcomes;
  device->connect(1234, std::move(socket_pair()[0]), into(outcomes));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, EHOSTUNREACH);
}

TEST_F(VsockTest, ManyAtOnce) {
  std::map<uint32_t, UniqueFd> hosts;
  for (uint32_t port = 1; port <= 600; ++port) hosts[port] = connected(port);
  for (const auto& [port, host] : hosts) write_all(host.get(), bytes_of(std::to_string(port)));
  size_t seen = 0;
  while (seen < hosts.size()) {
    settle();
    const auto packets = received();
    ASSERT_FALSE(packets.empty());
    for (const Packet& packet : packets)
      EXPECT_EQ(packet.data, bytes_of(std::to_string(uint32_t{packet.header.destination_port})));
    seen += packets.size();
  }
}

TEST_F(VsockTest, OneTooMany) {
  for (uint32_t port = 1; port <= VirtioVsock::kConnectionsMax; ++port) {
    send(header(VsockOp::kRequest, port));
    expect_one(VsockOp::kResponse, port);
  }
  send(header(VsockOp::kRequest, 5000));
  expect_one(VsockOp::kReset, 5000);
  Outcomes outcomes;
  device->connect(1234, std::move(socket_pair()[0]), into(outcomes));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, ENOBUFS);
  send(header(VsockOp::kReset, 7));
  send(header(VsockOp::kRequest, 5000));
  expect_one(VsockOp::kResponse, 5000);
}

// --- credit -----------------------------------------------------------------------------------------

TEST_F(VsockTest, AStalledHostHoldsNoMoreThanItsCredit) {
  const UniqueFd host = connected();
  // A driver that keeps to what it was given.
  uint32_t sent = 0, forwarded = 0;
  const auto send_all_it_may = [&] {
    for (;;) {
      const uint32_t part = std::min<uint32_t>(0x8000, VirtioVsock::kRoom - (sent - forwarded));
      if (part == 0) return;
      send_data(pattern(part, sent));
      sent += part;
      for (const Packet& packet : received()) {
        EXPECT_EQ(packet.op(), VsockOp::kCreditUpdate);
        forwarded = packet.header.forwarded;
      }
    }
  };
  send_all_it_may();
  EXPECT_GT(device->held(), VirtioVsock::kRoom / 2);
  EXPECT_LE(device->held(), VirtioVsock::kRoom);
  const size_t held = device->held();
  settle();
  EXPECT_EQ(device->held(), held);
  // The host reads on: everything comes, and the guest hears of new credit.
  Bytes all;
  while (all.size() < size_t{4} << 20) {
    const Bytes more = read_all(host.get());
    all.insert(all.end(), more.begin(), more.end());
    settle();
    for (const Packet& packet : received()) forwarded = packet.header.forwarded;
    send_all_it_may();
  }
  EXPECT_EQ(all, pattern(all.size()));
}

TEST_F(VsockTest, MoreThanTheCreditIsTheEndOfAConnection) {
  const UniqueFd host = connected();
  const UniqueFd other = connected(kGuestPort + 1);
  std::vector<Packet> packets;
  for (int i = 0; i < 64 && packets.empty(); ++i) {
    send_data(pattern(0xff00));
    for (Packet& packet : received())
      if (packet.op() != VsockOp::kCreditUpdate) packets.push_back(std::move(packet));
  }
  ASSERT_EQ(packets.size(), 1u);
  EXPECT_EQ(packets[0].op(), VsockOp::kReset);
  EXPECT_EQ(device->held(), 0u);
  send_data(bytes_of("still here"), kGuestPort + 1);
  EXPECT_EQ(read_all(other.get()), bytes_of("still here"));
}

TEST_F(VsockTest, AskedForCreditItTells) {
  const UniqueFd host = connected();
  send_data(bytes_of("abc"));
  send(header(VsockOp::kCreditRequest));
  const Packet update = one();
  EXPECT_EQ(update.op(), VsockOp::kCreditUpdate);
  EXPECT_EQ(uint32_t{update.header.forwarded}, 3u);
  EXPECT_EQ(uint32_t{update.header.room}, VirtioVsock::kRoom);
}

TEST_F(VsockTest, AStalledGuestIsNotReadFor) {
  const UniqueFd host = connected();
  // More than the guest's room: what it does not take stays in the socket.
  write_all(host.get(), pattern(kGuestRoom + 10'000));
  Bytes all;
  bool asked = false;
  for (;;) {
    settle();
    const auto packets = received();
    if (packets.empty()) break;
    for (const Packet& packet : packets) {
      all.insert(all.end(), packet.data.begin(), packet.data.end());
      if (packet.op() == VsockOp::kCreditRequest) {
        EXPECT_FALSE(asked);
        asked = true;
      }
    }
  }
  EXPECT_EQ(all.size(), kGuestRoom);
  EXPECT_TRUE(asked);
  EXPECT_FALSE(host_events(0)) << "nothing may spin";
  // An update that changes nothing, then one that does.
  send(header(VsockOp::kCreditUpdate));
  expect_nothing();
  guest_forwarded = 1000;
  send(header(VsockOp::kCreditUpdate));
  const auto packets = received();
  ASSERT_FALSE(packets.empty());
  EXPECT_EQ(packets[0].data.size(), 1000u);
  EXPECT_EQ(packets[0].data, pattern(1000, kGuestRoom));
}

TEST_F(VsockTest, CountersWrap) {
  // Nonsense in the guest's counters stops its own stream at most.
  const UniqueFd host = connected();
  write_all(host.get(), pattern(10));
  EXPECT_EQ(one().data.size(), 10u);
  auto packet = header(VsockOp::kCreditUpdate);
  packet.forwarded = 11;  // more than was sent: as if nearly 2^32 were under way
  send(packet);
  write_all(host.get(), pattern(10));
  expect_one(VsockOp::kCreditRequest);
  packet.forwarded = 10;
  packet.room = 0xffffffff;
  send(packet);
  EXPECT_EQ(one().data.size(), 10u);
}

TEST_F(VsockTest, WithoutBuffersNothingIsLost) {
  device->stop();
  start(3);
  const UniqueFd host = connected();
  write_all(host.get(), pattern(20'000));
  settle();
  Bytes all;
  while (all.size() < 20'000) {
    const auto packets = received();
    ASSERT_FALSE(packets.empty());
    EXPECT_LE(packets.size(), 3u);
    for (const Packet& packet : packets) all.insert(all.end(), packet.data.begin(), packet.data.end());
  }
  EXPECT_EQ(all, pattern(20'000));
}

}  // namespace
}  // namespace snug::test
