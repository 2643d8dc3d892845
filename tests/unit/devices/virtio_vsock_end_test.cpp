#include <thread>

#include "tests/unit/devices/vsock_driver.h"

namespace snug::test {
namespace {

// --- ends -------------------------------------------------------------------------------------------

TEST_F(VsockTest, TheGuestHasNothingMoreToSay) {
  const UniqueFd host = connected();
  send_data(bytes_of("last"));
  send_shutdown(kVsockNoSend);
  int end = 0;
  EXPECT_EQ(read_all(host.get(), &end), bytes_of("last"));
  EXPECT_EQ(end, -1);
  write_all(host.get(), bytes_of("but listens"));
  EXPECT_EQ(one().data, bytes_of("but listens"));
  send_data(bytes_of("lied"));
  expect_one(VsockOp::kReset);
}

TEST_F(VsockTest, TheEndWaitsForWhatIsHeld) {
  const UniqueFd host = connected();
  const size_t sent = send_until_held();
  send_shutdown(kVsockNoSend);
  EXPECT_EQ(read_to_the_end(host.get(), [this] { settle(); }), pattern(sent));
}

TEST_F(VsockTest, TheGuestListensNoMore) {
  const UniqueFd host = connected();
  send_shutdown(kVsockNoReceive);
  EXPECT_EQ(::send(host.get(), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EPIPE);
  send_data(bytes_of("but talks"));
  EXPECT_EQ(read_all(host.get()), bytes_of("but talks"));
  settle();
  EXPECT_FALSE(host_events(0)) << "nothing may spin";
}

TEST_F(VsockTest, TheGuestCloses) {
  const UniqueFd host = connected();
  send_data(bytes_of("bye"));
  send_shutdown(kVsockNothing);
  expect_one(VsockOp::kReset);
  int end = 0;
  EXPECT_EQ(read_all(host.get(), &end), bytes_of("bye"));
  EXPECT_EQ(end, -1);
  EXPECT_EQ(device->connections(), 0u);
  // Its ports are free.
  EXPECT_TRUE(connected());
}

TEST_F(VsockTest, TheGuestClosesUnderAHostThatWrites) {
  const UniqueFd host = connected();
  settle();
  auto packet = header(VsockOp::kCreditUpdate);
  packet.room = 0;
  send(packet);
  write_all(host.get(), bytes_of("unread"));
  expect_one(VsockOp::kCreditRequest);
  packet = header(VsockOp::kShutdown);
  packet.flags = kVsockNothing;
  send(packet);
  expect_one(VsockOp::kReset);
  int end = 0;
  (void)read_all(host.get(), &end);
  EXPECT_EQ(end, ECONNRESET);
}

TEST_F(VsockTest, WhatWasSentBeforeTheEndArrives) {
  for (const bool orderly : {true, false}) {
    const UniqueFd host = connected();
    const size_t sent = send_until_held();
    if (orderly) {
      send_shutdown(kVsockNothing);
      expect_one(VsockOp::kReset);
    } else {
      send(header(VsockOp::kReset));
      expect_nothing();
    }
    // The guest may use its ports again while the host still reads.
    const UniqueFd second = connected();
    EXPECT_EQ(read_to_the_end(host.get(), [this] { settle(); }), pattern(sent));
    EXPECT_EQ(device->connections(), 1u);
    send_data(bytes_of("second"));
    EXPECT_EQ(read_all(second.get()), bytes_of("second"));
    send(header(VsockOp::kReset));
    EXPECT_EQ(device->connections(), 0u);
  }
}

TEST_F(VsockTest, LeftoversOfAHostThatIsGone) {
  UniqueFd host = connected();
  send_until_held();
  send(header(VsockOp::kReset));
  EXPECT_EQ(device->connections(), 1u);
  host.reset();
  settle();
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, TheHostHasNothingMoreToSay) {
  const UniqueFd host = connected();
  write_all(host.get(), bytes_of("last"));
  ::shutdown(host.get(), SHUT_WR);
  settle();
  const auto packets = received();
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].data, bytes_of("last"));
  EXPECT_EQ(packets[1].op(), VsockOp::kShutdown);
  EXPECT_EQ(uint32_t{packets[1].header.flags}, kVsockNoSend);
  send_data(bytes_of("answer"));
  EXPECT_EQ(read_all(host.get()), bytes_of("answer"));
}

TEST_F(VsockTest, TheHostListensNoMore) {
  const UniqueFd host = connected();
  ::shutdown(host.get(), SHUT_RD);
  send_data(bytes_of("lost"));
  const Packet packet = one();
  EXPECT_EQ(packet.op(), VsockOp::kShutdown);
  EXPECT_EQ(uint32_t{packet.header.flags}, kVsockNoReceive);
  EXPECT_EQ(device->held(), 0u);
  write_all(host.get(), bytes_of("but talks"));
  EXPECT_EQ(one().data, bytes_of("but talks"));
}

TEST_F(VsockTest, TheHostCloses) {
  make({.close_timeout = std::chrono::seconds(20)});
  UniqueFd host = connected();
  write_all(host.get(), bytes_of("bye"));
  host.reset();
  settle();
  const auto packets = received();
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].data, bytes_of("bye"));
  EXPECT_EQ(packets[1].op(), VsockOp::kShutdown);
  EXPECT_EQ(uint32_t{packets[1].header.flags}, kVsockNothing);
  send_data(bytes_of("on its way"));
  expect_nothing();
  send(header(VsockOp::kReset));
  expect_nothing();
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, AGuestThatDoesNotConfirmTheEnd) {
  make({.close_timeout = std::chrono::milliseconds(5)});
  UniqueFd host = connected();
  host.reset();
  settle();
  EXPECT_EQ(received().at(0).op(), VsockOp::kShutdown);
  while (device->connections() > 0) ASSERT_TRUE(host_events());
  expect_one(VsockOp::kReset);
}

TEST_F(VsockTest, TheHostClosesUnderAGuestThatDoesNotRead) {
  UniqueFd host = connected();
  auto packet = header(VsockOp::kCreditUpdate);
  packet.room = 0;
  send(packet);
  write_all(host.get(), bytes_of("kept"));
  host.reset();
  expect_one(VsockOp::kCreditRequest);
  EXPECT_FALSE(host_events(0)) << "nothing may spin";
  send(header(VsockOp::kCreditUpdate));
  const auto packets = received();
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].data, bytes_of("kept"));
  EXPECT_EQ(packets[1].op(), VsockOp::kShutdown);
}

TEST_F(VsockTest, AHostThatThrowsAwayWhatItGot) {
  UniqueFd host = connected();
  send_data(bytes_of("unread"));
  host.reset();
  // Its kernel calls that a reset.
  expect_one(VsockOp::kReset);
  EXPECT_EQ(device->connections(), 0u);
}

// --- resets -----------------------------------------------------------------------------------------

TEST_F(VsockTest, ADeviceResetEndsEverything) {
  Outcomes outcomes;
  const UniqueFd host = connected();
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  EXPECT_TRUE(device->stop());
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, ECONNRESET);
  int end = 0;
  (void)read_all(host.get(), &end);
  EXPECT_EQ(end, -1);
  (void)read_all(ours.get(), &end);
  EXPECT_EQ(end, -1);
  EXPECT_EQ(device->connections(), 0u);
  settle();
  start();
  const UniqueFd again = connected();
  send_data(bytes_of("again"));
  EXPECT_EQ(read_all(again.get()), bytes_of("again"));
}

TEST_F(VsockTest, WhatIsHeldOutlivesAReset) {
  const UniqueFd host = connected();
  const size_t sent = send_until_held();
  device->stop();
  EXPECT_EQ(read_to_the_end(host.get(), [this] { device->sockets_ready(); }), pattern(sent));
  EXPECT_EQ(device->connections(), 0u);
}

TEST_F(VsockTest, TheEndOfTheDeviceIsTold) {
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  device.reset();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].error, ECONNRESET);
}

TEST_F(VsockTest, AQueueTakenBackKeepsItsConnections) {
  const UniqueFd host = connected();
  write_all(host.get(), bytes_of("a"));
  EXPECT_EQ(one().data, bytes_of("a"));
  // Buffers in hand belong to the ring that is gone.
  EXPECT_TRUE(device->stop_queue(VirtioVsock::kReceive));
  transport->queue(0).stop();
  write_all(host.get(), bytes_of("b"));
  settle();
  rx.set_available_index(0);
  ASSERT_TRUE(memory.zero(rx.layout().used, 0x2000));
  next_rx_used = 0;
  ASSERT_EQ(transport->queue(0).start(rx.layout(), {.indirect = true, .event_idx = false}), "");
  offer_buffer(0);
  ring(VirtioVsock::kReceive);
  EXPECT_EQ(one().data, bytes_of("b"));
}

TEST_F(VsockTest, AnInterruptionIsAnEvent) {
  const UniqueFd host = connected();
  device->interrupted(77);
  EXPECT_EQ(events.used_index(), 0) << "no buffer yet";
  int end = 0;
  (void)read_all(host.get(), &end);
  EXPECT_EQ(end, -1);
  ASSERT_TRUE(memory.store(uint64_t{0x90000}, uint32_t{0xffffffff}));
  events.chain(0, {{0x90000, 4, true}});
  events.offer(0);
  ring(VirtioVsock::kEvent);
  EXPECT_EQ(events.used_index(), 1);
  EXPECT_EQ(events.used_length(0), 4u);
  EXPECT_EQ(*memory.load<uint32_t>(0x90000), 0u);
  events.offer(0);
  ring(VirtioVsock::kEvent);
  EXPECT_EQ(events.used_index(), 1) << "once";
  std::array<std::byte, 8> cid{};
  device->read_config(0, cid);
  EXPECT_EQ(load_le(cid), 77u);
  send(header(VsockOp::kRequest));  // from the old id
  expect_nothing();
  auto packet = header(VsockOp::kRequest);
  packet.source_cid = 77;
  send(packet);
  settle();
  EXPECT_EQ(rx.used_index(), next_rx_used + 1);
}

// What it gets before it has heard of the reset would go with its connections of before.
TEST_F(VsockTest, NothingIsSentToAGuestThatHasNotHeardOfAnInterruption) {
  make({.event_timeout = std::chrono::milliseconds(1)});
  device->interrupted(3);
  events.chain(0, {{0x90000, 4, true}});
  events.offer(0);
  ring(VirtioVsock::kEvent);
  ASSERT_EQ(events.used_index(), 1);
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  device->connect(1234, std::move(theirs), into(outcomes));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  expect_nothing();
  events.offer(0);
  ring(VirtioVsock::kEvent);
  EXPECT_EQ(one().op(), VsockOp::kRequest);
  device->stop();
}

TEST_F(VsockTest, AGuestThatNeverSaysThatItHasHeardIsTakenToHave) {
  make({.connect_timeout = std::chrono::milliseconds(1), .heard_timeout = std::chrono::milliseconds(50)});
  device->interrupted(3);
  events.chain(0, {{0x90000, 4, true}});
  events.offer(0);
  ring(VirtioVsock::kEvent);
  Outcomes outcomes;
  auto [ours, theirs] = socket_pair();
  // One that gives up meanwhile takes nothing away from the next.
  device->connect(1234, std::move(theirs), into(outcomes));
  while (outcomes.empty()) ASSERT_TRUE(host_events());
  send(header(VsockOp::kRequest));
  while (rx.used_index() == next_rx_used) ASSERT_TRUE(host_events());
  expect_one(VsockOp::kResponse);
}

}  // namespace
}  // namespace snug::test
