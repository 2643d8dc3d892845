// A machine's process that lies to the server of its shares, and a server that lies to the machine's process:
// each may be told off, and nothing else comes of it.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <future>
#include <random>

#include "tests/unit/shares/service_fixture.h"
#include "vmm/base/packet_socket.h"

namespace snug::test {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

size_t open_descriptors() {
  const fs::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(fs::begin(all), fs::end(all)));
}

class HostileShareTest : public ShareServiceTest {
 protected:
  static share::Call call(share::CallKind kind, uint64_t argument = 0, uint32_t generation = 1) {
    share::Call made;
    made.kind = static_cast<uint32_t>(kind);
    made.generation = generation;
    made.argument = argument;
    return made;
  }
  int say(const share::Call& what, std::span<const int> descriptors = {}) const {
    const iovec part{const_cast<share::Call*>(&what), sizeof what};
    return send_packet(device_end.get(), {&part, 1}, descriptors);
  }
  // What it does not read at once it reads later. False: it has ended.
  bool say_in_the_end(const share::Call& what, std::span<const int> descriptors = {}) {
    while (!has_failed) {
      if (const int error = say(what, descriptors); error != EAGAIN) return error == 0;
      hear_out();
      std::this_thread::yield();
    }
    return false;
  }
  void hear_out() const {
    std::array<char, 1024> buffer;
    while (::recv(device_end.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) continue;
  }
  // One that listens, whatever has become of the one before.
  void serve_anew() {
    end_server();
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    device_end = UniqueFd(ends[0]);
    server_end = UniqueFd(ends[1]);
    loop = *EventLoop::create();
    serve();
  }
  void end_server() {
    loop->stop();
    if (server.joinable()) server.join();
    service.reset();
  }
  // It has read everything by the time that this returns, or has ended.
  bool still_listens() {
    return eventually([&] { return has_failed || queue_of_socket() == 0; }) && !has_failed;
  }
  int queue_of_socket() const {
    int bytes = 0;
    return ::ioctl(device_end.get(), TIOCOUTQ, &bytes) == 0 ? bytes : -1;
  }
  static share::Ring ring_of(const RingDriver& driver) {
    const VirtQueueLayout& layout = driver.layout();
    return {layout.descriptors, layout.available, layout.used, layout.size};
  }
  share::Call good_start() const {
    share::Call made = call(share::CallKind::kStart, kVirtioIndirect);
    made.rings[0] = ring_of(high);
    made.rings[1] = ring_of(requests);
    return made;
  }
  std::array<int, 3> machine() const { return {memory.file(), kicks[0].get(), kicks[1].get()}; }
  std::array<int, 2> interrupts() const { return {kicks[2].get(), kicks[2].get()}; }
  void attach() { ASSERT_TRUE(say_in_the_end(call(share::CallKind::kAttach, kRam), machine())); }
  void expect_end(const std::string& words) {
    ASSERT_TRUE(eventually([&] { return has_failed.load(); })) << words;
    server.join();
    EXPECT_THAT(failure, HasSubstr(words));
  }
  // As a guest that knows nothing of all that finds it.
  void expect_a_good_device() {
    serve_anew();
    make_device();
    requests.restart();
    high.restart();
    ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 0));
    start();
    begin_session();
    device.reset();
  }

  std::array<UniqueFd, 3> kicks{*make_eventfd(), *make_eventfd(), *make_eventfd()};
};

// --- a machine's process that lies -----------------------------------------------------------------------

TEST_F(HostileShareTest, ACallThatMakesNoSenseIsTheEnd) {
  const auto after_attach = [this](const share::Call& made, std::span<const int> with, const char* words) {
    SCOPED_TRACE(words);
    serve_anew();
    attach();
    ASSERT_TRUE(say_in_the_end(made, with));
    expect_end(words);
  };
  const auto all = machine();
  const std::span<const int> three = all;
  const auto one = three.first(1);
  after_attach(call(share::CallKind{0}), {}, "no sense");
  after_attach(call(share::CallKind{9}), {}, "no sense");
  after_attach(call(share::CallKind{~0U}), {}, "no sense");
  after_attach(call(share::CallKind::kAttach, kRam), three.first(2), "without memory or queues");
  after_attach(call(share::CallKind::kAttach, kRam), {}, "without memory or queues");
  std::vector<int> many(share::kQueuesMax + 2, three[1]);
  many[0] = three[0];
  after_attach(call(share::CallKind::kAttach, kRam), many, "other queues than there are");
  after_attach(call(share::CallKind::kAttach, 0), three, "not a sealed file");
  after_attach(call(share::CallKind::kAttach, kRam - 4096), three, "not a sealed file");
  after_attach(call(share::CallKind::kAttach, 2 * kRam), three, "not a sealed file");
  after_attach(call(share::CallKind::kAttach, ~uint64_t{0}), three, "not a sealed file");
  after_attach(call(share::CallKind::kMoved, 0), {}, "queue that there is not");
  after_attach(call(share::CallKind::kMoved, 0), three, "queue that there is not");
  after_attach(call(share::CallKind::kMoved, 2), one, "queue that there is not");
  after_attach(call(share::CallKind::kMoved, ~uint64_t{0}), one, "queue that there is not");
  after_attach(good_start(), one, "without interrupts");
  after_attach(good_start(), {}, "without interrupts");
}

TEST_F(HostileShareTest, RingsThatCannotBeAreTheEnd) {
  const share::Ring good = ring_of(requests);
  std::vector<share::Ring> rings;
  for (const uint64_t size : {3, 17, 255, 0x8001, 0xffff, 0x10000, 0x10010}) {
    rings.push_back(good);
    rings.back().size = size;
  }
  rings.push_back(good);
  rings.back().size = ~uint64_t{0};
  for (const uint64_t place :
       {kRam - 16, kRam, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 15, uint64_t{1}})
    for (const auto part : {&share::Ring::descriptors, &share::Ring::available, &share::Ring::used}) {
      rings.push_back(good);
      rings.back().*part = place;
    }
  for (const share::Ring& ring : rings) {
    SCOPED_TRACE(fmt::format("{:#x} {:#x} {:#x} {}", ring.descriptors, ring.available, ring.used, ring.size));
    serve_anew();
    attach();
    share::Call made = good_start();
    made.rings[1] = ring;
    ASSERT_TRUE(say_in_the_end(made, interrupts()));
    expect_end("");
    EXPECT_NE(failure, "");
  }
  expect_a_good_device();
}

TEST_F(HostileShareTest, CallsOutOfTurnAreHarmlessOrTheEnd) {
  serve_anew();
  // Before there is a machine.
  for (const auto kind :
       {share::CallKind::kStart, share::CallKind::kMoved, share::CallKind::kStop, share::CallKind::kDetach})
    ASSERT_TRUE(say_in_the_end(call(kind, 99)));
  attach();
  ASSERT_TRUE(say_in_the_end(call(share::CallKind::kStop)));
  ASSERT_TRUE(say_in_the_end(good_start(), interrupts()));
  ASSERT_TRUE(say_in_the_end(call(share::CallKind::kStop)));
  ASSERT_TRUE(say_in_the_end(call(share::CallKind::kStop)));
  // Rings at the same place, or the other's.
  share::Call same = good_start();
  same.rings[1] = same.rings[0];
  ASSERT_TRUE(say_in_the_end(same, interrupts()));
  ASSERT_TRUE(say_in_the_end(call(share::CallKind::kDetach)));
  ASSERT_TRUE(say_in_the_end(call(share::CallKind::kDetach)));
  ASSERT_TRUE(say_in_the_end(good_start()));
  EXPECT_TRUE(still_listens());
  attach();
  ASSERT_TRUE(say_in_the_end(good_start(), interrupts()));
  ASSERT_TRUE(say_in_the_end(good_start(), interrupts()));
  expect_end("started twice");
  expect_a_good_device();
}

TEST_F(HostileShareTest, OneHundredThousandRandomCalls) {
  std::mt19937_64 random(1);
  serve_anew();
  const size_t before = open_descriptors();
  size_t ends = 0;
  for (int i = 0; i < 100'000; ++i) {
    share::Call made;
    // Of an earlier machine most of the time, and then of no account.
    made.kind =
        random() % 200 == 0 ? static_cast<uint32_t>(random()) : static_cast<uint32_t>(1 + random() % 8);
    made.generation = static_cast<uint32_t>(random() % 8);
    made.argument = random() % 4 == 0 ? random() : random() % 3;
    for (share::Ring& ring : made.rings)
      ring = random() % 4 != 0   ? share::Ring{}
             : random() % 2 == 0 ? ring_of(requests)
                                 : share::Ring{random(), random(), random(), random() % 512};
    std::vector<int> with(random() % 12, kicks[random() % 3].get());
    if (made.kind == 1 && random() % 100 != 0) {
      made.argument = kRam;
      with.insert(with.begin(), memory.file());
      if (with.size() < 3) with.resize(3, kicks[0].get());
    }
    if (random() % 50 == 0) take_count(kicks[0].get());
    if (say_in_the_end(made, with)) continue;
    ++ends;
    serve_anew();
  }
  EXPECT_GT(ends, 100U);
  serve_anew();
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
  expect_a_good_device();
}

TEST_F(HostileShareTest, PacketsOfAnySize) {
  std::mt19937_64 random(2);
  std::vector<char> bytes(4096);
  for (const size_t size : {size_t{1}, sizeof(share::Call) - 1, sizeof(share::Call) + 1, size_t{4096}}) {
    serve_anew();
    for (char& byte : bytes) byte = static_cast<char>(random());
    const iovec part{bytes.data(), size};
    ASSERT_EQ(send_packet(device_end.get(), {&part, 1}), 0);
    expect_end("no sense");
  }
  serve_anew();
  ASSERT_EQ(::send(device_end.get(), bytes.data(), 0, MSG_NOSIGNAL), 0);
  expect_end("no sense");
  expect_a_good_device();
}

TEST_F(HostileShareTest, DescriptorsOfEveryKindInFloods) {
  serve_anew();
  const size_t before = open_descriptors();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd reader(pipe[0]), writer(pipe[1]);
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  const UniqueFd file(::open((folder / "file").c_str(), O_RDWR | O_CLOEXEC));
  const UniqueFd path(::open("/", O_PATH | O_CLOEXEC));
  const std::array kinds{reader.get(), writer.get(), epoll.get(),      timer.get(),
                         file.get(),   path.get(),   device_end.get(), memory.file()};
  // More than a packet may have, where none belongs, and as doorbells and interrupts.
  for (int round = 0; round < 200; ++round) {
    std::vector<int> many(kPacketDescriptorsMax, kinds[static_cast<size_t>(round) % kinds.size()]);
    if (!say_in_the_end(call(share::CallKind::kStop, 0, 77), many)) serve_anew();
    std::vector<int> doorbells{memory.file(), many[0], many[1]};
    if (!say_in_the_end(call(share::CallKind::kAttach, kRam), doorbells)) serve_anew();
    if (!say_in_the_end(call(share::CallKind::kAttach, kRam), machine())) serve_anew();
    if (!say_in_the_end(good_start(), std::span(many).first(2))) serve_anew();
    if (!say_in_the_end(call(share::CallKind::kMoved, round % 2), std::span(many).first(1))) serve_anew();
    if (has_failed) serve_anew();
  }
  serve_anew();
  EXPECT_EQ(open_descriptors(), before + 6);
  expect_a_good_device();
}

TEST_F(HostileShareTest, MachinesOneBehindTheOtherLeaveNothing) {
  serve_anew();
  attach();
  ASSERT_TRUE(still_listens());
  const size_t before = open_descriptors();
  for (int i = 0; i < 2000; ++i) {
    attach();
    ASSERT_TRUE(say_in_the_end(good_start(), interrupts()));
    if (i % 3 == 0) {
      ASSERT_TRUE(say_in_the_end(call(share::CallKind::kStop)));
    }
    if (i % 5 == 0) {
      ASSERT_TRUE(say_in_the_end(call(share::CallKind::kDetach)));
    }
  }
  attach();
  ASSERT_TRUE(still_listens());
  hear_out();
  EXPECT_TRUE(eventually([&] { return open_descriptors() == before; })) << open_descriptors();
  expect_a_good_device();
}

// It may be told off for what it does not read; nothing waits for it.
TEST_F(HostileShareTest, AMachineThatNeverListensIsTheEnd) {
  serve_anew();
  attach();
  while (!has_failed)
    if (const int error = say(call(share::CallKind::kStop)); error != 0 && error != EAGAIN) break;
  expect_end("does not listen");
  expect_a_good_device();
}

// Others share the loop.
TEST_F(HostileShareTest, AFloodOfCallsKeepsNobodyFromHisTurn) {
  serve_anew();
  std::atomic<bool> enough = false;
  std::array<std::thread, 2> flood;
  for (std::thread& one : flood)
    one = std::thread([&] {
      while (!enough) (void)say(call(share::CallKind::kMoved, 0, 99));
    });
  int turns = 0;
  EXPECT_TRUE(eventually([&] {
    std::promise<void> turn;
    auto taken = turn.get_future();
    loop->post([&turn] { turn.set_value(); });
    taken.wait();
    return ++turns == 200;
  }));
  enough = true;
  for (std::thread& one : flood) one.join();
  EXPECT_TRUE(still_listens());
}

TEST_F(HostileShareTest, MemoryThatIsNoneIsTheEnd) {
  const auto expect_refused = [this](int file, uint64_t size) {
    serve_anew();
    const std::array with{file, kicks[0].get(), kicks[1].get()};
    ASSERT_TRUE(say_in_the_end(call(share::CallKind::kAttach, size), with));
    expect_end("memory");
  };
  const auto make = [](const char* name, int seals) {
    UniqueFd file(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(file.get(), kRam), 0);
    EXPECT_EQ(::fcntl(file.get(), F_ADD_SEALS, seals), 0);
    return file;
  };
  expect_refused(make("loose", 0).get(), kRam);
  expect_refused(make("shrinks", F_SEAL_GROW | F_SEAL_SEAL).get(), kRam);
  expect_refused(make("read-only", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE).get(), kRam);
  const UniqueFd good = make("for readers", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  const UniqueFd reader(::open(fmt::format("/proc/self/fd/{}", good.get()).c_str(), O_RDONLY | O_CLOEXEC));
  expect_refused(reader.get(), kRam);
  expect_refused(kicks[0].get(), kRam);
  expect_refused(kicks[0].get(), 0);
  EXPECT_NE(::ftruncate(memory.file(), 4096), 0) << "memory of a machine shrinks";
  expect_a_good_device();
}

// A hole in it reads as zeros, at any time.
TEST_F(HostileShareTest, MemoryFullOfHolesIsOnlyOfZeros) {
  serve_anew();
  make_device();
  start();
  begin_session();
  std::atomic<bool> enough = false;
  std::thread puncher([&] {
    for (uint64_t at = 0; !enough; at = (at + 0x11000) % kRam)
      (void)::fallocate(memory.file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(at & ~uint64_t{0xfff}), 0x40000);
  });
  for (int i = 0; i < 3000 && host->complaint.empty(); ++i) {
    offer(i % 2 == 0 ? FUSE_GETATTR : FUSE_STATFS, FUSE_ROOT_ID, fuse_getattr_in{},
          static_cast<uint16_t>(i % 8));
    device->server_ready();
  }
  enough = true;
  puncher.join();
  EXPECT_FALSE(has_failed);
  device.reset();
  expect_a_good_device();
}

// --- a guest that breaks the rules -----------------------------------------------------------------------

TEST_F(HostileShareTest, ABrokenRingStopsAllOfThem) {
  serve_anew();
  make_device();
  start();
  begin_session();
  high.set_available_index(9999);
  host->kick(0);
  ASSERT_TRUE(device_hears([&] { return !host->complaint.empty(); }));
  for (uint16_t i = 1; i < 6; ++i) offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{}, i);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(requests.used_index(), 1);
  // Said once, and a new driver finds it as good as new.
  host->complaint.clear();
  requests.set_available_index(9999);
  host->kick(1);
  std::this_thread::sleep_for(20ms);
  device->server_ready();
  EXPECT_EQ(host->complaint, "");
  EXPECT_FALSE(device->stop());
  ASSERT_TRUE(device_hears([&] { return host->stopped_calls == 1; }));
  requests.restart();
  high.restart();
  ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 0));
  start();
  begin_session();
}

// --- a server that lies ------------------------------------------------------------------------------------

class HostileServerTest : public HostileShareTest {
 protected:
  HostileServerTest() {
    make_device();
    start();
  }
  bool stopped_ = false;  // the driver is gone
  int tell(uint32_t kind, uint32_t generation, std::string_view text = {},
           std::span<const int> with = {}) const {
    const share::News news{kind, generation};
    const std::array parts{iovec{const_cast<share::News*>(&news), sizeof news},
                           iovec{const_cast<char*>(text.data()), text.size()}};
    return send_packet(server_end.get(), parts, with);
  }
  // Of the device's machine: its first call says it.
  uint32_t generation() const {
    share::Call first;
    EXPECT_EQ(::recv(server_end.get(), &first, sizeof first, 0), static_cast<ssize_t>(sizeof first));
    return first.generation;
  }
  // It waits for nobody any more, and a driver that comes is told.
  void expect_gone() {
    EXPECT_THAT(host->complaint, HasSubstr("gone"));
    EXPECT_TRUE(device->stop());
    host->complaint.clear();
    start();
    EXPECT_THAT(host->complaint, HasSubstr("gone"));
    for (int i = 0; i < 100; ++i) device->interrupt_moved(1);
    device->server_ready();
    device->interrupts_wanted();
    EXPECT_TRUE(device->stop());
  }
};

TEST_F(HostileServerTest, PacketsOfAnySizeEndTheTrustInIt) {
  const std::string text(2000, 'x');
  for (const size_t size : {size_t{0}, size_t{1}, sizeof(share::News) - 1,
                            sizeof(share::News) + share::kTextMax + 1, size_t{2000}}) {
    SCOPED_TRACE(size);
    ASSERT_EQ(::send(server_end.get(), text.data(), size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
    device->server_ready();
    expect_gone();
    device.reset();
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    device_end = UniqueFd(ends[0]);
    server_end = UniqueFd(ends[1]);
    make_device();
    start();
  }
}

TEST_F(HostileServerTest, OfAFloodOnlyABitIsRead) {
  int sent = 0;
  while (tell(7, 12345) == 0) ++sent;
  ASSERT_GT(sent, 100);
  device->server_ready();
  expect_gone();
  share::News left;
  EXPECT_GT(::recv(device_end.get(), &left, sizeof left, 0), 0) << "all of it is read";
}

TEST_F(HostileServerTest, NewsOfNothingAndOfOthersAreNothing) {
  const uint32_t mine = generation();
  for (const uint32_t kind : {0U, 3U, 4U, 0x80000000U, ~0U}) ASSERT_EQ(tell(kind, mine, "nonsense"), 0);
  for (const uint32_t kind : {1U, 2U}) ASSERT_EQ(tell(kind, mine + 1, "of another"), 0);
  ASSERT_EQ(tell(1, mine), 0);  // nobody has asked
  device->server_ready();
  EXPECT_EQ(host->complaint, "");
  EXPECT_EQ(host->stopped_calls, 0);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(tell(2, mine, std::string(share::kTextMax, '\x1b')), 0);
  device->server_ready();
  EXPECT_NE(host->complaint, "");
}

TEST_F(HostileServerTest, DescriptorsWithNewsAreClosed) {
  const size_t before = open_descriptors();
  const std::vector<int> many(kPacketDescriptorsMax, kicks[0].get());
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(tell(7, 12345, {}, many), 0);
    device->server_ready();
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(HostileServerTest, StoppedBeforeItIsAskedAndTwice) {
  const uint32_t mine = generation();
  // The device cannot say that it stops, and hears that it has.
  while (true) {
    device->interrupt_moved(1);
    pollfd room{device_end.get(), POLLOUT, 0};
    if (::poll(&room, 1, 0) == 0) break;
  }
  EXPECT_FALSE(device->stop());
  ASSERT_EQ(tell(1, mine), 0);
  ASSERT_EQ(tell(1, mine), 0);
  device->server_ready();
  EXPECT_EQ(host->stopped_calls, 1);
  // A later start is not taken back by what was left to say.
  start();
  share::Call heard;
  for (int i = 0; i < 1000; ++i) {
    while (::recv(server_end.get(), &heard, sizeof heard, MSG_DONTWAIT) > 0) continue;
    device->server_ready();
  }
  EXPECT_EQ(heard.kind, static_cast<uint32_t>(share::CallKind::kStart));
  EXPECT_EQ(host->complaint, "");
}

TEST_F(HostileServerTest, AnEarlyCloseAtAnyPoint) {
  // While it is to stop.
  EXPECT_FALSE(device->stop());
  server_end.reset();
  device->server_ready();
  EXPECT_EQ(host->stopped_calls, 1);
  EXPECT_EQ(host->complaint, "");
  start();
  EXPECT_THAT(host->complaint, HasSubstr("gone"));
  EXPECT_TRUE(device->stop());
  device.reset();
  // Before there is a machine.
  EXPECT_FALSE(
      VirtioFs::create({.tag = "work", .queues = 2, .queue_size = 16, .socket = device_end.get()}, memory)
          .has_value());
}

TEST_F(HostileServerTest, OneHundredThousandRandomNews) {
  std::mt19937_64 random(3);
  uint32_t mine = generation();
  const size_t before = open_descriptors();
  const std::string text(600, 'x');
  int gone = 0;
  for (int i = 0; i < 100'000; ++i) {
    const auto size = random() % 500 == 0 ? random() % 600 : random() % 4 * 100;
    const auto kind = static_cast<uint32_t>(random() % 4);
    const int error = tell(kind, random() % 2 == 0 ? mine : static_cast<uint32_t>(random()),
                           std::string_view(text).substr(0, size));
    if (random() % 4 == 0) device->server_ready();
    if (random() % 16 == 0) device->interrupt_moved(static_cast<uint16_t>(random() % 4));
    if (random() % 16 == 0) device->interrupts_wanted();
    share::Call heard;
    if (random() % 4 == 0)
      while (::recv(server_end.get(), &heard, sizeof heard, MSG_DONTWAIT) > 0) continue;
    if (random() % 16 == 0 && stopped_) {
      start();
      stopped_ = false;
    } else if (random() % 16 == 0 && !stopped_) {
      const int calls = host->stopped_calls;
      if (!device->stop()) {
        ASSERT_TRUE(eventually([&] {
          (void)tell(1, mine);
          device->server_ready();
          return host->stopped_calls > calls;
        }));
      }
      stopped_ = true;
    }
    if (error == 0 || error == EAGAIN) {
      if (host->complaint != "its server is gone") continue;
    }
    ++gone;
    host->complaint.clear();
    device.reset();
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    device_end = UniqueFd(ends[0]);
    server_end = UniqueFd(ends[1]);
    make_device();
    mine = generation();
    start();
    stopped_ = false;
  }
  EXPECT_GT(gone, 10);
  EXPECT_EQ(open_descriptors(), before);
}

// --- the threads of a queue --------------------------------------------------------------------------------

// A thread that has taken a request serves it, however long it takes; a session that is reset in between
// would be handed a request in memory that is gone.
TEST(QueueThreadsTest, NothingIsUnderWayOnceAMachineIsDetached) {
  const GuestMemory memory = *GuestMemory::create_shared(kRam);
  RingDriver requests(memory, 16, 0x40000);
  std::promise<void> begun, go_on;
  std::atomic<bool> served = false;
  QueueThreads::Events events;
  events.serve = [&](const GuestMemory&, const VirtChain&, uint64_t) -> std::optional<uint32_t> {
    begun.set_value();
    go_on.get_future().wait();
    served = true;
    return 0;
  };
  events.broken = [](uint32_t, const std::string&) {};
  events.stopped = [](uint32_t) {};
  const auto threads = *QueueThreads::create(std::move(events), 2, {});
  const UniqueFd kick = *make_eventfd();
  std::vector<UniqueFd> kicks;
  kicks.push_back(*duplicate(kick.get()));
  auto same = GuestMemory::attach(*duplicate(memory.file()), kRam);
  ASSERT_TRUE(same.has_value());
  ASSERT_TRUE(threads->attach(1, std::move(*same), std::move(kicks)).has_value());
  std::vector<QueueThreads::Ring> rings(1);
  rings[0] = {requests.layout(), *make_eventfd()};
  ASSERT_EQ(threads->start({}, std::move(rings)), "");
  requests.offer_buffer(0);
  const uint64_t one = 1;
  ASSERT_EQ(::write(kick.get(), &one, sizeof one), 8);
  begun.get_future().wait();
  auto detached = std::async(std::launch::async, [&] {
    threads->detach();
    return served.load();
  });
  EXPECT_EQ(detached.wait_for(50ms), std::future_status::timeout);
  go_on.set_value();
  EXPECT_TRUE(detached.get());
}

}  // namespace
}  // namespace snug::test
