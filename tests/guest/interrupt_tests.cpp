// Interrupts into a guest that counts them, and doorbells out of it.
#include <poll.h>
#include <unistd.h>

#include "tests/guest/guest_fixture.h"
#include "vmm/core/bus.h"
#include "vmm/kvm/irq_routes.h"
#include "vmm/machine/vcpu_threads.h"

namespace snug {
namespace {

constexpr MsiMessage kVector40{.address = 0xfee00000, .data = 0x40};

class InterruptTest : public GuestTest {
 protected:
  void start(const std::string& guest) {
    load(guest);
    std::vector<std::unique_ptr<kvm::Vcpu>> vcpus;
    vcpus.push_back(std::move(vcpu_));
    threads_ = std::make_unique<VcpuThreads>(
        std::move(vcpus), VcpuThreads::Environment{ports_, mmio_, *memory_, [] {},
                                                   [](VcpuReport report) {
                                                     ADD_FAILURE() << report.what << "\n" << report.detail;
                                                   }});
  }
  void TearDown() override {
    threads_.reset();
    vm_.reset();
  }

  Bus ports_{"port"};
  Bus mmio_{"MMIO"};
  std::unique_ptr<VcpuThreads> threads_;
};

TEST_F(InterruptTest, EveryMessageIsTaken) {
  start("interrupts");
  expect_ok(threads_->start());
  ASSERT_TRUE(eventually([&] { return counter(kSecondCounter) > 0; }));
  for (uint64_t i = 0; i < 500; ++i) {
    vm_->signal(kVector40);
    ASSERT_TRUE(eventually([&] { return counter() == i + 1; })) << "message " << i;
  }
}

TEST_F(InterruptTest, AnEventfdRaisesAVectorOnlyWhileItHasAMessage) {
  start("interrupts");
  kvm::IrqRoutes routes(*vm_);
  auto vector = routes.vector();
  ASSERT_TRUE(vector) << vector.error().text();
  expect_ok(threads_->start());
  ASSERT_TRUE(eventually([&] { return counter(kSecondCounter) > 0; }));
  const uint64_t one = 1;
  ASSERT_EQ(::write((*vector)->event_fd(), &one, sizeof one), 8);
  expect_ok((*vector)->set(kVector40));
  // What was written while it was masked is delivered by KVM when the eventfd is connected.
  ASSERT_TRUE(eventually([&] { return counter() == 1; }));
  for (uint64_t i = 1; i < 200; ++i) {
    ASSERT_EQ(::write((*vector)->event_fd(), &one, sizeof one), 8);
    ASSERT_TRUE(eventually([&] { return counter() == i + 1; })) << "event " << i;
  }
  (*vector)->mask();
  ASSERT_EQ(::write((*vector)->event_fd(), &one, sizeof one), 8);
  const uint64_t passes = counter(kSecondCounter);
  ASSERT_TRUE(eventually([&] { return counter(kSecondCounter) > passes + 1000; }));
  EXPECT_EQ(counter(), 200u);
}

TEST_F(InterruptTest, ADoorbellRingsWithoutAnExit) {
  start("exits");
  auto event = make_eventfd();
  ASSERT_TRUE(event);
  const Doorbell doorbell{AddressSpace::kMmio, 0xd0000000, 4, std::nullopt};
  expect_ok(vm_->bind(doorbell, event->get()));
  expect_ok(threads_->start());
  ASSERT_TRUE(eventually([&] { return counter() > 100; }));
  threads_->stop();
  uint64_t rings = 0;
  ASSERT_EQ(::read(event->get(), &rings, sizeof rings), 8);
  EXPECT_GE(rings, 100u);
  EXPECT_TRUE(threads_->stats().mmio_writes.empty()) << "a doorbell's write came to user space";
  EXPECT_FALSE(threads_->stats().mmio_reads.empty());
  vm_->unbind(doorbell, event->get());
}

TEST_F(InterruptTest, AReadOnlySlotServesReadsAndTrapsWrites) {
  start("exits");
  auto page = Mapping::anonymous(4096);
  ASSERT_TRUE(page);
  expect_ok(vm_->add_slot(0xd0000000, 4096, page->data(), kvm::Vm::SlotAccess::kReadOnly));
  expect_ok(threads_->start());
  ASSERT_TRUE(eventually([&] { return counter() > 10; }));
  threads_->stop();
  EXPECT_TRUE(threads_->stats().mmio_reads.empty());
  EXPECT_FALSE(threads_->stats().mmio_writes.empty());
}

}  // namespace
}  // namespace snug
