// Exits, kicks and stops, driven by micro-guests.
#include <mutex>
#include <vector>

#include "tests/guest/guest_fixture.h"
#include "vmm/base/endian.h"
#include "vmm/machine/vcpu_threads.h"

namespace snug {
namespace {

// Remembers every access and answers reads with what was written last.
class Recorder final : public BusDevice {
 public:
  struct Access {
    uint64_t offset;
    uint64_t value;
    size_t width;
    bool operator==(const Access&) const = default;
  };
  void read(uint64_t, std::span<std::byte> data) override {
    ++reads;
    store_le(data, last);
  }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    last = load_le(data);
    writes.push_back({offset, last, data.size()});
  }
  uint64_t reads = 0;
  uint64_t last = 0;
  std::vector<Access> writes;
};

class ExitTest : public GuestTest {
 protected:
  std::unique_ptr<VcpuThreads> threads() {
    std::vector<std::unique_ptr<kvm::Vcpu>> vcpus;
    vcpus.push_back(std::move(vcpu_));
    return std::make_unique<VcpuThreads>(std::move(vcpus),
                                         VcpuThreads::Environment{ports_, mmio_, *memory_, [] {},
                                                                  [this](VcpuReport report) {
                                                                    std::lock_guard lock(mutex_);
                                                                    reports_.push_back(std::move(report));
                                                                  }});
  }
  size_t report_count() {
    std::lock_guard lock(mutex_);
    return reports_.size();
  }

  Bus ports_{"port"};
  Bus mmio_{"MMIO"};
  std::mutex mutex_;
  std::vector<VcpuReport> reports_;
};

TEST_F(ExitTest, EveryWidthArrivesOnBothBuses) {
  load("widths");
  Synced<Recorder> ports;
  Synced<Recorder> mmio;
  Synced<Recorder> end;
  expect_ok(ports_.add({0x2000, 0x10}, "recorder", ports));
  expect_ok(mmio_.add({0xd0000000, 0x1000}, "recorder", mmio));
  expect_ok(ports_.add({0xf4, 1}, "end", end));
  auto running = threads();
  expect_ok(running->start());
  ASSERT_TRUE(eventually([&] { return !end.lock()->writes.empty(); }));
  running->stop();
  using Access = Recorder::Access;
  EXPECT_EQ(ports.lock()->writes,
            (std::vector<Access>{
                {1, 0x11, 1}, {2, 0x2222, 2}, {4, 0x44444444, 4}, {1, 'a', 1}, {1, 'b', 1}, {1, 'c', 1}}));
  EXPECT_EQ(ports.lock()->reads, 3u);
  EXPECT_EQ(
      mmio.lock()->writes,
      (std::vector<Access>{
          {0x100, 0x11, 1}, {0x200, 0x2222, 2}, {0x400, 0x44444444, 4}, {0x800, 0x8888888888888888, 8}}));
  EXPECT_EQ(mmio.lock()->reads, 4u);
  EXPECT_EQ(end.lock()->writes, (std::vector<Access>{{0, 7, 1}}));
}

TEST_F(ExitTest, CoalescedWritesArriveInOrderAndNeedNoExit) {
  load("widths");
  if (!kvm_->coalesces_writes()) GTEST_SKIP() << "this KVM coalesces no writes";
  Synced<Recorder> ports;
  Synced<Recorder> mmio;
  Synced<Recorder> end;
  expect_ok(ports_.add({0x2000, 0x10}, "recorder", ports));
  expect_ok(mmio_.add({0xd0000000, 0x1000}, "memory recorder", mmio));
  expect_ok(ports_.add({0xf4, 1}, "end", end));
  expect_ok(vm_->coalesce_writes(AddressSpace::kPort, 0x2000, 0x10));
  expect_ok(vm_->defer_writes(0xd0000000, 0x1000));
  auto running = threads();
  expect_ok(running->start());
  ASSERT_TRUE(eventually([&] { return !end.lock()->writes.empty(); }));
  running->stop();
  using Access = Recorder::Access;
  EXPECT_EQ(ports.lock()->writes,
            (std::vector<Access>{
                {1, 0x11, 1}, {2, 0x2222, 2}, {4, 0x44444444, 4}, {1, 'a', 1}, {1, 'b', 1}, {1, 'c', 1}}));
  EXPECT_EQ(mmio.lock()->writes.size(), 4u);
  const ExitStats stats = running->stats();
  EXPECT_EQ(stats.coalesced_writes, 10u);
  EXPECT_EQ(stats.port_writes.size(), 1u) << "exits for writes to other ports than the last";
  EXPECT_TRUE(stats.mmio_writes.empty());
}

TEST_F(ExitTest, UnmappedReadsGiveAllOnesAndTheGuestRunsOn) {
  load("widths");
  Synced<Recorder> end;
  expect_ok(ports_.add({0xf4, 1}, "end", end));
  auto running = threads();
  expect_ok(running->start());
  EXPECT_TRUE(eventually([&] { return !end.lock()->writes.empty(); }));
}

TEST_F(ExitTest, PauseStopsTheGuestAndResumeLetsItGoOn) {
  load("spin");
  auto running = threads();
  expect_ok(running->start());
  ASSERT_TRUE(eventually([&] { return counter() > 0; }));
  for (int round = 0; round < 200; ++round) {
    running->pause();
    const uint64_t before = counter();
    EXPECT_EQ(before, counter()) << "the guest runs while it is paused";
    running->resume();
    ASSERT_TRUE(eventually([&] { return counter() > before; }))
        << "the guest does not go on, round " << round;
  }
  running->stop();
}

TEST_F(ExitTest, NoKickIsLostUnderAStormOfExits) {
  load("exits");
  Synced<Recorder> device;
  auto running = threads();
  expect_ok(running->start());
  ASSERT_TRUE(eventually([&] { return counter() > 0; }));
  for (int round = 0; round < 500; ++round) {
    running->pause();
    const uint64_t before = counter();
    EXPECT_EQ(before, counter());
    running->resume();
  }
  const uint64_t before = counter();
  EXPECT_TRUE(eventually([&] { return counter() > before; }));
  running->stop();
  EXPECT_EQ(report_count(), 0u);
  EXPECT_GT(running->stats().total(), 4 * 1u);
}

TEST_F(ExitTest, StopEndsAGuestThatNeverExits) {
  for (int round = 0; round < 20; ++round) {
    load("spin");
    auto running = threads();
    expect_ok(running->start());
    // Every moment of the start must be a good moment to stop.
    if (round % 2 == 0) {
      ASSERT_TRUE(eventually([&] { return counter() > 0; }));
    }
    running->stop();
    running.reset();
    vm_.reset();
  }
}

TEST_F(ExitTest, ATripleFaultIsReportedOnceWithRegisters) {
  load("triple_fault");
  auto running = threads();
  expect_ok(running->start());
  ASSERT_TRUE(eventually([&] { return report_count() > 0; }));
  running->stop();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_EQ(reports_[0].end, VcpuEnd::kTripleFault) << reports_[0].what;
  EXPECT_NE(reports_[0].detail.find("rip "), std::string::npos);
  EXPECT_NE(reports_[0].detail.find("code at"), std::string::npos);
}

}  // namespace
}  // namespace snug
