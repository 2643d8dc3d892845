#include "tests/unit/devices/packed_driver.h"
#include "tests/unit/devices/virtio_pci_driver.h"

namespace snug::test {
namespace {

TEST_F(VirtioPciTest, QueueRegistersAreSettledWhileEnabled) {
  bring_up();
  out(kQueueSize, 2, 4);
  out(kQueueDescriptors, 8, 0x99000);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  EXPECT_EQ(in(kQueueDescriptors, 8), driver.layout().descriptors);
  out(kQueueEnable, 2, 0);
  EXPECT_EQ(in(kQueueEnable, 2), 1u);
}

TEST_F(VirtioPciTest, QueuesThatAreNotThere) {
  out(kQueueSelect, 2, 2);
  EXPECT_EQ(in(kQueueSize, 2), 0u);
  out(kQueueSize, 2, 8);
  out(kQueueEnable, 2, 1);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  out(kQueueSelect, 2, 0xffff);
  EXPECT_EQ(in(kQueueDescriptors, 8), 0u);
  out(kNotify + 4 * 2, 2, 2);
  out(kNotify + 0xffc, 2, 1023);
  transport->lock()->read(kNotify, std::span<std::byte>());
}

TEST_F(VirtioPciTest, ALayoutThatCannotBeAsksForAReset) {
  negotiate(kVirtioVersion1);
  set_up_queue(0, {8, kRam, 0x11000, 0x12000});
  EXPECT_EQ(status(), 11 | 64);
  out(kStatus, 1, 15 | 64);
  EXPECT_EQ(device.starts, 0) << "it does not start before the reset";
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
  bring_up();
  EXPECT_EQ(device.starts, 1);
}

TEST_F(VirtioPciTest, QueuesAreSettledOnceTheDriverIsReady) {
  bring_up();
  out(kQueueSelect, 2, 1);
  out(kQueueSize, 2, 4);
  out(kQueueDescriptors, 8, 0x20000);
  out(kQueueEnable, 2, 1);
  EXPECT_EQ(in(kQueueSize, 2), 16u);
  EXPECT_EQ(in(kQueueDescriptors, 8), 0u);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  out(kQueueReset, 2, 1);
  EXPECT_TRUE(device.stopped_queues.empty()) << "was not negotiated";
}

TEST_F(VirtioPciTest, AQueueIsResetAlone) {
  bring_up(1, kVirtioRingReset);
  const uint64_t before = take_count(transport->lock()->doorbell_fd(0));
  EXPECT_EQ(before, 1u);
  serve();
  out(kQueueReset, 2, 0);
  EXPECT_EQ(in(kQueueEnable, 2), 1u);
  out(kQueueReset, 2, 1);
  EXPECT_EQ(device.stopped_queues, std::vector<uint16_t>{0});
  EXPECT_EQ(in(kQueueReset, 2), 0u) << "done at once";
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  EXPECT_EQ(in(kQueueVector, 2), 0xffffu);
  EXPECT_EQ(status(), 15);
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  // Another size this time.
  RingDriver smaller(memory, 4, 0x40000);
  set_up_queue(0, smaller.layout(), 1);
  EXPECT_EQ(in(kQueueEnable, 2), 1u);
  EXPECT_EQ(take_count(transport->lock()->doorbell_fd(0)), 1u) << "what is available already is looked for";
  transport->lock()->notified(0);
  EXPECT_EQ(device.ready.size(), 1u);
  smaller.chain(0, {{0x100000, 8, true}});
  smaller.offer(0);
  VirtChain chain;
  EXPECT_EQ(device.host->queue(0).pop(chain), VirtQueue::Pop::kChain);
  out(kQueueSize, 2, 8);
  EXPECT_EQ(in(kQueueSize, 2), 4u) << "settled again";
}

TEST_F(VirtioPciTest, AQueueResetWaitsForRequestsUnderWay) {
  device.stops_at_once = false;
  bring_up(0xffff, kVirtioRingReset);
  out(kQueueReset, 2, 1);
  EXPECT_EQ(in(kQueueReset, 2), 1u) << "not done yet";
  out(kQueueReset, 2, 1);
  EXPECT_EQ(device.stopped_queues.size(), 1u) << "asked once";
  EXPECT_FALSE(device.host->queue(0).running());
  out(kQueueSize, 2, 4);
  out(kQueueEnable, 2, 1);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  device.host->queue_stopped(1);
  EXPECT_EQ(in(kQueueReset, 2), 1u) << "another queue";
  device.host->queue_stopped(0);
  EXPECT_EQ(in(kQueueReset, 2), 0u);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  // A reset of the whole device in the middle of it.
  set_up_queue(0, driver.layout());
  out(kQueueReset, 2, 1);
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 15);
  device.host->queue_stopped(0);
  EXPECT_EQ(status(), 15);
  device.host->stopped();
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(in(kQueueReset, 2), 0u);
}

TEST_F(VirtioPciTest, PackedRingsAreSpokenWhenNegotiated) {
  PackedDriver packed(memory, 8);
  negotiate(kVirtioVersion1 | kVirtioRingPacked);
  EXPECT_EQ(status(), 11);
  set_up_queue(0, packed.layout());
  out(kStatus, 1, 15);
  packed.offer(77, {{0x100000, 8, true}});
  VirtChain chain;
  ASSERT_EQ(device.host->queue(0).pop(chain), VirtQueue::Pop::kChain);
  ASSERT_TRUE(device.host->queue(0).push(chain.head, 8));
  device.host->used(0);
  EXPECT_EQ(packed.take_used()->id, 77);
  EXPECT_EQ(in(kIsr, 1), 1u);
}

TEST_F(VirtioPciTest, PackedRingsNeedNotBeOffered) {
  auto made = VirtioPci::create(device, line, 16, {memory, doorbells, vectors, false});
  ASSERT_TRUE(made);
  transport = std::move(*made);
  out(kDeviceFeatureSelect, 4, 1);
  EXPECT_EQ(in(kDeviceFeature, 4), 0x101u);
  negotiate(kVirtioVersion1 | kVirtioRingPacked);
  EXPECT_EQ(status(), 3);
}

}  // namespace
}  // namespace snug::test
