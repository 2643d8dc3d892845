#include <algorithm>
#include <cstring>
#include <memory>

#include "devices/virtio/console/channels.h"
#include "devices/virtio/console/console.h"
#include "tests/unit/devices/noted_writes.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

constexpr uint64_t kMultiport = 2;

// Takes at most `room` bytes more, has `coming` to say, and leaves when `leaves` is set and all is said.
class FakePeer final : public PortPeer {
 public:
  void on_events(Events) override {}
  bool connected() const override { return here; }
  size_t send(std::span<const iovec> parts) override {
    size_t count = 0;
    for (const iovec& part : parts) {
      const size_t length = std::min(part.iov_len, room);
      taken.append(static_cast<const char*>(part.iov_base), length);
      room -= length;
      count += length;
    }
    return count;
  }
  size_t receive(std::span<const iovec> parts) override {
    size_t count = 0;
    for (const iovec& part : parts) {
      const size_t length = std::min(part.iov_len, coming.size());
      std::memcpy(part.iov_base, coming.data(), length);
      coming.erase(0, length);
      count += length;
    }
    if (count == 0 && leaves) here = false;
    return count;
  }

  bool here = true;
  bool leaves = false;
  size_t room = 1 << 30;
  std::string taken;
  std::string coming;
};

std::string pattern(size_t size, unsigned seed = 0) {
  std::string text(size, ' ');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 26 + seed) % 26);
  return text;
}

// --- one console ------------------------------------------------------------------------------------

class VirtioConsoleTest : public testing::Test {
 protected:
  VirtioConsoleTest() { console.start(host, console.features()); }
  GuestMemory memory = ram();
  FakePeer peer;
  VirtioConsole console{"console hvc0", peer};
  FakeVirtioHost host{memory, 2};
  QueueDriver in{memory, host, console, 0};
  QueueDriver out{memory, host, console, 1};
};

TEST_F(VirtioConsoleTest, CarriesBothWays) {
  out.give(0, "hello");
  EXPECT_EQ(peer.taken, "hello");
  EXPECT_EQ(out.used(), 1);
  EXPECT_EQ(out.ring.used_length(0), 0u);
  EXPECT_EQ(host.used_calls[1], 1);
  in.give_room(0, 100);
  EXPECT_EQ(in.used(), 0);
  peer.coming = "input";
  console.peer_ready();
  ASSERT_EQ(in.used(), 1);
  EXPECT_EQ(in.written(0), "input");
}

TEST_F(VirtioConsoleTest, InputIsNoted) {
  in.give_room(0, QueueDriver::kBytes);
  const NotedWrites writes(memory);
  peer.coming = pattern(QueueDriver::kBytes);
  console.peer_ready();
  ASSERT_EQ(in.used(), 1);
  EXPECT_EQ(writes.missed(), std::vector<uint64_t>());
}

TEST_F(VirtioConsoleTest, InputWaitsWithThePeerForTheGuestsBuffers) {
  peer.coming = pattern(1000);
  console.peer_ready();
  EXPECT_EQ(peer.coming.size(), 1000u);
  std::string all;
  for (uint16_t i = 0; i < 3; ++i) {
    in.give_room(i, 300);
    ASSERT_EQ(in.used(), i + 1);
    all += in.written(i);
  }
  EXPECT_EQ(peer.coming.size(), 100u);
  in.give_room(3, 300);
  EXPECT_EQ(all + in.written(3), pattern(1000));
}

// Linux turns on the spot until a console's buffer comes back.
TEST_F(VirtioConsoleTest, AStalledPeerLosesTheNewestAndNeverABuffer) {
  peer.room = 10;
  std::string said;
  for (uint16_t i = 0; i < 8; ++i) {
    said += pattern(QueueDriver::kBytes, i);
    out.give(i, pattern(QueueDriver::kBytes, i));
    host.run_turns(console);
    ASSERT_EQ(out.used(), i + 1);
  }
  EXPECT_EQ(peer.taken, said.substr(0, 10));
  EXPECT_EQ(console.dropped_bytes(), said.size() - 10 - PortStream::kKept);
  peer.room = 1 << 30;
  console.peer_ready();
  EXPECT_EQ(peer.taken, said.substr(0, 10 + PortStream::kKept));
  peer.taken.clear();
  out.give(8, "and on");
  EXPECT_EQ(peer.taken, "and on");
}

TEST_F(VirtioConsoleTest, SpeaksToNobodyWithoutWaiting) {
  peer.here = false;
  out.give(0, "lost");
  EXPECT_EQ(out.used(), 1);
  peer.here = true;
  console.peer_ready();
  out.give(1, "heard");
  EXPECT_EQ(peer.taken, "heard");
}

TEST_F(VirtioConsoleTest, TellsAProgramFromTheKernel) {
  int programs = 0;
  VirtioConsole told("console hvc0", peer, [&programs] { ++programs; });
  told.start(host, told.features());
  QueueDriver prints{memory, host, told, 1};
  prints.give(0, "Linux version 6.");  // as its messages come: 16 bytes
  EXPECT_EQ(programs, 0);
  prints.give(1, "What a program of the guest writes\n");
  prints.give(2, "What a program of the guest writes\n");
  EXPECT_EQ(programs, 1);
}

TEST_F(VirtioConsoleTest, TellsItsWindowsSize) {
  console.set_size({.columns = 132, .rows = 50});
  console.set_size({.columns = 132, .rows = 50});
  EXPECT_EQ(host.config_calls, 1);
  // Once more to whoever has opened the terminal since.
  out.give(0, "login:");
  EXPECT_EQ(host.config_calls, 2);
  out.give(1, "x");
  EXPECT_EQ(host.config_calls, 2);
  console.set_size({.columns = 132, .rows = 50});
  console.set_size({.columns = 132, .rows = 50});
  EXPECT_EQ(host.config_calls, 3);
  std::array<std::byte, 8> config;
  console.read_config(0, config);
  EXPECT_EQ(load_le(std::span(config).first(2)), 132u);
  EXPECT_EQ(load_le(std::span(config).subspan(2, 2)), 50u);
  EXPECT_NE(console.features() & 1, 0u);
}

TEST_F(VirtioConsoleTest, EmergencyWritesNeedNoDriver) {
  ASSERT_TRUE(console.stop());
  const std::array<std::byte, 4> value{std::byte{'!'}, std::byte{'x'}, std::byte{'y'}, std::byte{'z'}};
  console.write_config(8, value);
  console.write_config(4, value);
  console.write_config(8, {});
  EXPECT_EQ(peer.taken, "!");
  peer.room = 0;
  for (size_t i = 0; i < 2 * PortStream::kKept; ++i) console.write_config(8, value);
  EXPECT_EQ(console.dropped_bytes(), PortStream::kKept);
}

TEST_F(VirtioConsoleTest, EmptyAndOddBuffersComeBack) {
  in.ring.chain(0, {{in.buffer(0), 16, false}});
  in.ring.offer(0);
  peer.coming = "x";
  console.queue_ready(0);
  EXPECT_EQ(in.used(), 1);
  EXPECT_EQ(peer.coming, "x");
  out.ring.chain(0, {{out.buffer(0), 16, true}});
  out.ring.offer(0);
  console.queue_ready(1);
  EXPECT_EQ(out.used(), 1);
  EXPECT_EQ(peer.taken, "");
}

TEST_F(VirtioConsoleTest, ABrokenRingStopsIt) {
  out.ring.offer(40);
  console.queue_ready(1);
  EXPECT_NE(host.complaint, "");
  in.ring.set_available_index(100);
  host.complaint.clear();
  console.queue_ready(0);
  EXPECT_NE(host.complaint, "");
}

TEST_F(VirtioConsoleTest, LetsOthersHaveTheirTurn) {
  for (uint16_t i = 0; i < 20; ++i) {
    out.ring.chain(i, {{out.buffer(i), QueueDriver::kBytes, false}});
    out.ring.offer(i);
  }
  console.queue_ready(1);
  EXPECT_LT(out.used(), 10);
  EXPECT_GT(host.run_turns(console), 2);
  EXPECT_EQ(out.used(), 20);
  EXPECT_EQ(peer.taken.size(), 20u * QueueDriver::kBytes);
}

// --- channels ---------------------------------------------------------------------------------------

struct Message {
  uint32_t id;
  uint16_t event;
  uint16_t value;
  std::string name;
  bool operator==(const Message&) const = default;
};
constexpr uint16_t kReady = 0, kAdd = 1, kPortReady = 3, kOpen = 6, kName = 7;

std::ostream& operator<<(std::ostream& out, const Message& message) {
  return out << message.id << ' ' << message.event << ' ' << message.value << ' ' << message.name;
}

class VirtioChannelsTest : public testing::Test {
 protected:
  VirtioChannelsTest() { channels.start(host, kMultiport); }
  void tell(uint32_t id, uint16_t event, uint16_t value) {
    std::string message(8, '\0');
    const auto bytes = std::as_writable_bytes(std::span(message));
    store_le(bytes.first(4), id);
    store_le(bytes.subspan(4, 2), event);
    store_le(bytes.subspan(6, 2), value);
    control_out.give(control_sent++ % 32, message);
  }
  void give_control_room(int count) {
    while (count-- > 0) control_in.give_room(control_given++ % 32, 128);
  }
  std::vector<Message> told() {
    std::vector<Message> messages;
    for (; heard < control_in.used(); ++heard) {
      const std::string text = control_in.written(heard);
      EXPECT_GE(text.size(), 8u);
      const auto bytes = std::as_bytes(std::span(text));
      messages.push_back({static_cast<uint32_t>(load_le(bytes.first(4))),
                          static_cast<uint16_t>(load_le(bytes.subspan(4, 2))),
                          static_cast<uint16_t>(load_le(bytes.subspan(6, 2))), text.substr(8)});
    }
    return messages;
  }
  // As a driver does it, up to both programs having opened channel 1.
  void open_first() {
    give_control_room(16);
    tell(0, kReady, 1);
    tell(1, kPortReady, 1);
    tell(1, kOpen, 1);
    told();
  }

  GuestMemory memory = ram();
  FakePeer first;
  FakePeer second;
  VirtioChannels channels{{{"org.one", &first}, {"org.two", &second}}};
  FakeVirtioHost host{memory, 8};
  QueueDriver control_in{memory, host, channels, 2};
  QueueDriver control_out{memory, host, channels, 3};
  QueueDriver in{memory, host, channels, 4};
  QueueDriver out{memory, host, channels, 5};
  uint16_t control_sent = 0;
  uint16_t control_given = 0;
  uint16_t heard = 0;
};

TEST_F(VirtioChannelsTest, Introduction) {
  std::array<std::byte, 4> ports;
  channels.read_config(4, ports);
  EXPECT_EQ(load_le(ports), 3u);
  EXPECT_EQ(channels.queue_sizes().size(), 8u);
  second.here = false;
  channels.peer_ready(1);
  give_control_room(10);
  EXPECT_TRUE(told().empty());
  tell(0, kReady, 1);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kAdd, 1, ""}, {2, kAdd, 1, ""}}));
  tell(1, kPortReady, 1);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kName, 1, "org.one"}, {1, kOpen, 1, ""}}));
  tell(2, kPortReady, 1);
  EXPECT_EQ(told(), (std::vector<Message>{{2, kName, 1, "org.two"}}));
  second.here = true;
  channels.peer_ready(1);
  EXPECT_EQ(told(), (std::vector<Message>{{2, kOpen, 1, ""}}));
}

TEST_F(VirtioChannelsTest, WhatIsToBeToldWaitsForBuffers) {
  tell(0, kReady, 1);
  tell(1, kPortReady, 1);
  EXPECT_TRUE(told().empty());
  for (int i = 0; i < 100; ++i) tell(1, kPortReady, 1);
  give_control_room(3);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kAdd, 1, ""}, {1, kName, 1, "org.one"}, {1, kOpen, 1, ""}}));
  // Gone and back while there was no buffer: the guest learns that it is another one.
  give_control_room(1);
  told();
  first.here = false;
  channels.peer_ready(0);
  first.here = true;
  channels.peer_ready(0);
  give_control_room(5);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kOpen, 0, ""}, {1, kOpen, 1, ""}}));
}

TEST_F(VirtioChannelsTest, NothingIsReadBeforeTheGuestOpens) {
  give_control_room(8);
  tell(0, kReady, 1);
  tell(1, kPortReady, 1);
  in.give_room(0, 64);
  first.coming = "early";
  channels.peer_ready(0);
  EXPECT_EQ(in.used(), 0);
  tell(1, kOpen, 1);
  ASSERT_EQ(in.used(), 1);
  EXPECT_EQ(in.written(0), "early");
  tell(1, kOpen, 0);
  in.give_room(1, 64);
  first.coming = "late";
  channels.peer_ready(0);
  EXPECT_EQ(in.used(), 1);
}

TEST_F(VirtioChannelsTest, AStalledPeerHoldsTheGuestsBuffers) {
  open_first();
  first.room = 100;
  const std::string text = pattern(1000);
  out.give(0, text.substr(0, 600));
  out.give(1, text.substr(600));
  EXPECT_EQ(out.used(), 0);
  first.room = 550;
  channels.peer_ready(0);
  EXPECT_EQ(out.used(), 1);
  first.room = 1000;
  channels.peer_ready(0);
  EXPECT_EQ(out.used(), 2);
  EXPECT_EQ(first.taken, text);
}

TEST_F(VirtioChannelsTest, APeerThatLeavesIsToldAndForgotten) {
  open_first();
  first.room = 0;
  out.give(0, "for the one who leaves");
  in.give_room(0, 64);
  first.leaves = true;
  first.coming = "last words";
  channels.peer_ready(0);
  EXPECT_EQ(in.written(0), "last words");
  EXPECT_EQ(out.used(), 0);
  in.give_room(1, 64);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kOpen, 0, ""}}));
  EXPECT_EQ(out.used(), 1);
  first.room = 100;
  first.leaves = false;
  first.here = true;
  channels.peer_ready(0);
  EXPECT_EQ(told(), (std::vector<Message>{{1, kOpen, 1, ""}}));
  EXPECT_EQ(first.taken, "");
  out.give(1, "welcome");
  EXPECT_EQ(first.taken, "welcome");
}

TEST_F(VirtioChannelsTest, ResetsInTheMiddleOfABuffer) {
  open_first();
  first.room = 3;
  out.give(0, "abcdef");
  ASSERT_TRUE(channels.stop());
  first.room = 100;
  channels.peer_ready(0);
  EXPECT_EQ(first.taken, "abc");
  channels.start(host, kMultiport);
  out.give(1, "xyz");
  EXPECT_EQ(first.taken, "abcxyz");
}

TEST_F(VirtioChannelsTest, AQueueTakenBackInTheMiddleOfABuffer) {
  open_first();
  first.room = 3;
  out.give(0, "abcdef");
  ASSERT_TRUE(channels.stop_queue(5));
  host.queue(5).stop();
  first.room = 100;
  channels.peer_ready(0);
  EXPECT_EQ(first.taken, "abc");
}

TEST_F(VirtioChannelsTest, OddControlMessagesAreNothing) {
  give_control_room(20);
  tell(0, kReady, 0);
  tell(0, kPortReady, 1);
  tell(3, kPortReady, 1);
  tell(0xffffffff, kOpen, 1);
  tell(1, 77, 1);
  control_out.give(20, "short");
  control_out.give(21, "");
  EXPECT_TRUE(told().empty());
  EXPECT_EQ(control_out.used(), 7);
  EXPECT_EQ(host.complaint, "");
}

TEST_F(VirtioChannelsTest, ADriverWithoutPortsHasAConsoleThatSaysNothing) {
  ASSERT_TRUE(channels.stop());
  channels.start(host, 0);
  QueueDriver port0(memory, host, channels, 1);
  port0.give(0, "hello");
  EXPECT_EQ(port0.used(), 1);
  out.give(0, "no such port");
  EXPECT_EQ(out.used(), 0);
  EXPECT_EQ(first.taken, "");
}

}  // namespace
}  // namespace snug::test
