// Guests that break the rules of virtio 1.2, 5.10.
#include "tests/unit/devices/vsock_driver.h"

namespace snug::test {
namespace {

TEST_F(VsockTest, PacketsThatAreNone) {
  // Shorter than a header, without readable bytes, from and to others.
  tx.chain(0, {{0x600000, 43, false}});
  tx.offer(0);
  tx.chain(2, {{0x600000, 44, true}});
  tx.offer(2);
  next_tx = 2;
  ring(VirtioVsock::kTransmit);
  for (const auto& [from, to] :
       {std::pair<uint64_t, uint64_t>{4, 2}, {3, 1}, {3, 3}, {uint64_t{1} << 32 | 3, 2}}) {
    auto packet = header(VsockOp::kRequest);
    packet.source_cid = from;
    packet.destination_cid = to;
    send(packet);
  }
  expect_nothing();
  EXPECT_EQ(tx.used_index(), 6) << "every buffer comes back";
  EXPECT_EQ(backend.opens, 0);
  EXPECT_EQ(transport->complaint, "");
}

TEST_F(VsockTest, UnknownTypesAreReset) {
  auto packet = header(VsockOp::kRequest);
  packet.type = 2;
  send(packet);
  const Packet answer = one();
  EXPECT_EQ(answer.op(), VsockOp::kReset);
  EXPECT_EQ(uint16_t{answer.header.type}, 2);
  packet.op = static_cast<uint16_t>(VsockOp::kReset);
  send(packet);
  expect_nothing();
}

TEST_F(VsockTest, WhatBelongsToNothingIsReset) {
  for (uint16_t op = 0; op < 12; ++op) {
    if (op == static_cast<uint16_t>(VsockOp::kRequest)) continue;
    auto packet = header(VsockOp::kRequest);
    packet.op = op;
    send(packet);
    if (op == static_cast<uint16_t>(VsockOp::kReset)) {
      expect_nothing();
    } else {
      expect_one(VsockOp::kReset);
    }
  }
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, BrokenRulesEndOneConnection) {
  const UniqueFd other = connected(kGuestPort + 1);
  for (const uint16_t op : std::initializer_list<uint16_t>{0, 1, 2, 8, 0xffff}) {
    const UniqueFd host = connected();
    auto packet = header(VsockOp::kData);
    packet.op = op;
    send(packet);
    expect_one(VsockOp::kReset);
    int end = 0;
    (void)read_all(host.get(), &end);
    EXPECT_EQ(end, -1);
  }
  const UniqueFd host = connected();
  auto packet = header(VsockOp::kData);
  packet.length = 5;
  put(packet, bytes_of("four"));
  ring(VirtioVsock::kTransmit);
  expect_one(VsockOp::kReset);
  EXPECT_TRUE(read_all(host.get()).empty());
  EXPECT_EQ(device->connections(), 1u);
  send_data(bytes_of("fine"), kGuestPort + 1);
  EXPECT_EQ(read_all(other.get()), bytes_of("fine"));
}

TEST_F(VsockTest, AnswersBeforeTheirTime) {
  Outcomes outcomes;
  for (const VsockOp op : {VsockOp::kData, VsockOp::kShutdown, VsockOp::kRequest, VsockOp::kInvalid}) {
    auto [ours, theirs] = socket_pair();
    device->connect(1234, std::move(theirs), into(outcomes));
    const uint32_t host_port = one().header.source_port;
    send(header(op, 1234, host_port));
    expect_one(VsockOp::kReset, 1234, host_port);
    ASSERT_EQ(outcomes.size(), 1u);
    EXPECT_EQ(outcomes[0].error, ECONNRESET);
    outcomes.clear();
  }
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, LengthsAndEmptyData) {
  const UniqueFd host = connected();
  send(header(VsockOp::kData));
  auto packet = header(VsockOp::kData);
  packet.length = 2;
  put(packet, bytes_of("more than it says"));
  ring(VirtioVsock::kTransmit);
  EXPECT_EQ(read_all(host.get()), bytes_of("mo"));
  packet.length = 0xffffffff;
  put(packet);
  ring(VirtioVsock::kTransmit);
  expect_one(VsockOp::kReset);
}

TEST_F(VsockTest, ResetsAreBounded) {
  device->stop();
  start(0);
  // Nothing takes the answers: the device reads on only so far.
  for (uint32_t port = 0; port < VirtioVsock::kResetsMax + 60; ++port) send(header(VsockOp::kData, port));
  const uint16_t taken = tx.used_index();
  EXPECT_EQ(taken, VirtioVsock::kResetsMax);
  for (uint16_t i = 0; i < 64; ++i) offer_buffer(i);
  ring(VirtioVsock::kReceive);
  uint32_t next = 0;
  for (auto packets = received(); !packets.empty(); packets = received())
    for (const Packet& packet : packets) EXPECT_EQ(uint32_t{packet.header.destination_port}, next++);
  EXPECT_GT(tx.used_index(), taken);
}

TEST_F(VsockTest, BuffersThatAreTooSmallComeBackEmpty) {
  device->stop();
  start(0);
  rx.chain(200 % kRingSize, {{kBuffers, 63, true}});
  rx.offer(200 % kRingSize);
  rx.chain(100, {{kBuffers, 64, false}});
  rx.offer(100);
  send(header(VsockOp::kData));
  EXPECT_EQ(rx.used_index(), 2);
  EXPECT_EQ(rx.used_length(0), 0u);
  EXPECT_EQ(rx.used_length(1), 0u);
  next_rx_used = 2;
  offer_buffer(0);
  ring(VirtioVsock::kReceive);
  expect_one(VsockOp::kReset);
}

TEST_F(VsockTest, ABrokenRingStopsTheDevice) {
  const UniqueFd host = connected();
  tx.set_available_index(5000);
  ring(VirtioVsock::kTransmit);
  EXPECT_NE(transport->complaint, "");
  write_all(host.get(), bytes_of("x"));
  settle();
  EXPECT_TRUE(received(false).empty());
  EXPECT_FALSE(host_events(0)) << "nothing may spin";
  device->stop();
  start();
  EXPECT_TRUE(connected());
}

}  // namespace
}  // namespace snug::test
