// A share's device and its server at work: requests over rings in memory that both have, without a VM.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/file.h>

#include "tests/unit/shares/service_fixture.h"
#include "vmm/base/packet_socket.h"

namespace snug::test {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

TEST_F(ShareServiceTest, ConfigurationSaysTagAndQueues) {
  make_device();
  std::array<std::byte, 40> all{};
  device->read_config(0, all);
  EXPECT_STREQ(reinterpret_cast<const char*>(all.data()), "work");
  EXPECT_EQ(std::to_integer<int>(all[36]), 2);
  EXPECT_EQ(device->queue_sizes().size(), 3U);
}

TEST_F(ShareServiceTest, AnswersRequestsAndInterrupts) {
  serve();
  make_device();
  start();
  begin_session();
  EXPECT_EQ(head_of_answer().unique, 100U);
  EXPECT_EQ(answer<fuse_init_out>().major, 7U);
  EXPECT_TRUE(eventually([&] { return take_count(host->interrupts.get()) > 0; }));
  offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{});
  ASSERT_TRUE(answered(2));
  EXPECT_TRUE(S_ISDIR(answer<fuse_attr_out>().attr.mode));
}

// Neither the host nor Linux's driver tells when there is something new about a lock that is waited for.
TEST_F(ShareServiceTest, WaitsForLocksUntilTheyAreFreeOrASignalComes) {
  serve();
  make_device();
  start();
  begin_session();
  offer(FUSE_LOOKUP, FUSE_ROOT_ID, std::array<char, 5>{"file"});
  ASSERT_TRUE(answered(2));
  const uint64_t node = answer<fuse_entry_out>().nodeid;
  offer(FUSE_OPEN, node, fuse_open_in{.flags = O_RDWR});
  ASSERT_TRUE(answered(3));
  fuse_lk_in lock{.fh = answer<fuse_open_out>().fh, .lk = {.type = F_WRLCK}, .lk_flags = FUSE_LK_FLOCK};
  const auto lock_on_host = [this] {
    UniqueFd file(::open((folder / "file").c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(::flock(file.get(), LOCK_EX | LOCK_NB), 0);
    return file;
  };
  UniqueFd of_host = lock_on_host();
  offer(FUSE_SETLKW, node, lock, 1);
  offer(FUSE_GETATTR, node, fuse_getattr_in{});
  ASSERT_TRUE(answered(4)) << "others are served";
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(requests.used_index(), 4);
  of_host.reset();
  ASSERT_TRUE(answered(5));
  EXPECT_EQ(head_of_answer(1).error, 0);

  lock.lk.type = F_UNLCK;
  offer(FUSE_SETLK, node, lock);
  ASSERT_TRUE(answered(6));
  of_host = lock_on_host();
  lock.lk.type = F_WRLCK;
  const auto flags = header_of(1) - sizeof(uint64_t);
  ASSERT_TRUE(memory.store<uint64_t>(flags, 0x109));
  offer(FUSE_SETLKW, node, lock, 1, Header::kByItself);
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(requests.used_index(), 6);
  ASSERT_TRUE(memory.store<uint64_t>(flags, 0x129));
  ASSERT_TRUE(answered(7));
  EXPECT_EQ(head_of_answer(1).error, -EINTR);
}

TEST_F(ShareServiceTest, InterruptsByTheLoopWithoutVectors) {
  serve();
  make_device();
  host->with_vectors = false;
  start();
  begin_session();
  pollfd waiting{device->interrupt_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 10'000), 1);
  device->interrupts_wanted();
  EXPECT_EQ(host->raised[1], 1);
}

TEST_F(ShareServiceTest, AResetIsAnsweredAndANewDriverBeginsAnew) {
  serve();
  make_device();
  for (int round = 0; round < 3; ++round) {
    requests.restart();
    ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 0));
    start();
    begin_session();
    ASSERT_FALSE(device->stop());
    ASSERT_TRUE(device_hears([&] { return host->stopped_calls == round + 1; }));
    EXPECT_EQ(host->elsewhere[1], -1);
  }
}

TEST_F(ShareServiceTest, ARestartedMachineHasMemoryOfItsOwn) {
  serve();
  make_device();
  start();
  begin_session();
  device.reset();
  make_device();
  requests.restart();
  ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 0));
  start();
  begin_session();
}

TEST_F(ShareServiceTest, ABrokenRingStopsTheDevice) {
  serve();
  make_device();
  start();
  begin_session();
  requests.set_available_index(9999);
  host->kick(1);
  ASSERT_TRUE(device_hears([&] { return !host->complaint.empty(); }));
  EXPECT_THAT(host->complaint, HasSubstr("index"));
  EXPECT_FALSE(device->stop());
  EXPECT_TRUE(device_hears([&] { return host->stopped_calls == 1; }));
}

TEST_F(ShareServiceTest, AServerThatIsGoneStopsTheDevice) {
  make_device();
  start();
  server_end.reset();
  device->server_ready();
  EXPECT_THAT(host->complaint, HasSubstr("gone"));
  EXPECT_TRUE(device->stop());
}

// The guest moves interrupts as often as it likes, and the server may be slow.
TEST_F(ShareServiceTest, MovedInterruptsBlockNobodyAndArriveInTheEnd) {
  make_device();
  start();
  for (int i = 0; i < 100'000; ++i) device->interrupt_moved(1);
  serve();
  const UniqueFd elsewhere = *make_eventfd();
  host->interrupts = *duplicate(elsewhere.get());
  device->interrupt_moved(1);
  ASSERT_TRUE(device_hears([&] { return true; }));
  std::this_thread::sleep_for(10ms);
  device->server_ready();
  begin_session();
  uint16_t count = 1;
  EXPECT_TRUE(eventually([&] {
    device->server_ready();
    offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{}, 1);
    return answered(++count) && take_count(elsewhere.get()) > 0;
  }));
}

TEST_F(ShareServiceTest, WhatMakesNoSenseEndsTheServer) {
  serve();
  const std::string nonsense = "who are you?";
  const iovec part{const_cast<char*>(nonsense.data()), nonsense.size()};
  ASSERT_EQ(send_packet(device_end.get(), {&part, 1}), 0);
  server.join();
  EXPECT_EQ(failure, "a device says what makes no sense");
}

TEST_F(ShareServiceTest, MemoryThatCouldShrinkIsRefused) {
  serve();
  share::Call call;
  call.kind = static_cast<uint32_t>(share::CallKind::kAttach);
  call.argument = kRam;
  const UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), kRam), 0);
  const UniqueFd kick = *make_eventfd();
  const std::array descriptors{file.get(), kick.get(), kick.get()};
  const iovec part{&call, sizeof call};
  ASSERT_EQ(send_packet(device_end.get(), {&part, 1}, descriptors), 0);
  server.join();
  EXPECT_THAT(failure, HasSubstr("not a sealed file"));
}

TEST_F(ShareServiceTest, ADeviceThatGoesIsTheEnd) {
  serve();
  device_end.reset();
  server.join();
  EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace snug::test
