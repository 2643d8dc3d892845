#include "tests/unit/devices/virtio_pci_driver.h"

namespace snug::test {
namespace {

TEST_F(VirtioPciTest, ShowsItselfAsAModernDevice) {
  EXPECT_EQ(config_in(0x00, 4), 0x10441af4u);
  EXPECT_EQ(config_in(0x08, 1), 1u) << "revision of a non-transitional device";
  for (uint8_t type = 1; type <= 5; ++type) EXPECT_NE(capability(9, type), 0) << int{type};
  EXPECT_NE(capability(0x11), 0);
  const uint16_t notify = capability(9, 2);
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 2), 1), 20u) << "with the multiplier";
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 8), 4), kNotify);
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 16), 4), 4u);
  EXPECT_EQ(in(kQueueCount, 2), 2u);
}

TEST_F(VirtioPciTest, OffersFeaturesBySelector) {
  EXPECT_EQ(in(kDeviceFeature, 4), 0x30000005u);
  out(kDeviceFeatureSelect, 4, 1);
  EXPECT_EQ(in(kDeviceFeature, 4), 0x105u) << "VERSION_1, RING_PACKED, RING_RESET";
  out(kDeviceFeatureSelect, 4, 2);
  EXPECT_EQ(in(kDeviceFeature, 4), 0u);
  out(kDeviceFeatureSelect, 4, 0xffffffff);
  EXPECT_EQ(in(kDeviceFeature, 4), 0u);
}

TEST_F(VirtioPciTest, ComesUpInOrder) {
  bring_up();
  EXPECT_EQ(status(), 15);
  EXPECT_EQ(device.starts, 1);
  EXPECT_EQ(device.negotiated, kVirtioVersion1 | 1);
  EXPECT_EQ(take_count(transport->lock()->doorbell_fd(0)), 1u) << "what was available before is looked for";
  transport->lock()->notified(0);
  EXPECT_EQ(device.ready, std::vector<uint16_t>{0});
  transport->lock()->notified(1);
  EXPECT_EQ(device.ready.size(), 1u) << "a queue that was not enabled";
}

TEST_F(VirtioPciTest, RefusesFeaturesThatWereNotOffered) {
  negotiate(kVirtioVersion1 | 2);
  EXPECT_EQ(status(), 3) << "FEATURES_OK stays clear";
  out(kStatus, 1, 0);
  negotiate(1);
  EXPECT_EQ(status(), 3) << "without VERSION_1";
  out(kStatus, 1, 0);
  negotiate(kVirtioVersion1);
  EXPECT_EQ(status(), 11);
  out(kDriverFeatureSelect, 4, 0);
  out(kDriverFeature, 4, 5);
  EXPECT_EQ(in(kDriverFeature, 4), 0u) << "settled";
}

TEST_F(VirtioPciTest, StatusBitsComeInOrderAndGoOnlyByReset) {
  for (const int bad : {2, 4, 8, 12, 14}) {
    out(kStatus, 1, static_cast<uint64_t>(bad));
    EXPECT_EQ(status(), 0) << bad;
  }
  out(kStatus, 1, 1);
  out(kStatus, 1, 5);
  EXPECT_EQ(status(), 1) << "DRIVER_OK before FEATURES_OK";
  out(kStatus, 1, 3);
  out(kStatus, 1, 1);
  EXPECT_EQ(status(), 3) << "a bit was taken back";
  out(kStatus, 1, 0x83);
  EXPECT_EQ(status(), 0x83) << "the driver has given up";
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(device.starts, 0);
}

TEST_F(VirtioPciTest, ASecondDriverOkStartsNothing) {
  bring_up();
  out(kStatus, 1, 15);
  EXPECT_EQ(device.starts, 1);
}

TEST_F(VirtioPciTest, ResetForgetsEverything) {
  enable_msix();
  program(1, 0x41);
  bring_up(1);
  out(kConfigVector, 2, 0);
  out(kStatus, 1, 0);
  EXPECT_EQ(device.stops, 1);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(in(kConfigVector, 2), 0xffffu);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  EXPECT_EQ(in(kQueueDescriptors, 8), 0u);
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  driver.set_available_index(0);
  bring_up(1);
  EXPECT_EQ(device.starts, 2);
}

TEST_F(VirtioPciTest, AResetWaitsForRequestsUnderWay) {
  device.stops_at_once = false;
  bring_up();
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 15) << "not done yet";
  out(kStatus, 1, 0);
  EXPECT_EQ(device.stops, 1);
  out(kStatus, 1, 15);
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  EXPECT_FALSE(device.host->queue(0).running());
  device.host->stopped();
  EXPECT_EQ(status(), 0);
  device.host->stopped();
  EXPECT_EQ(status(), 0);
}

TEST_F(VirtioPciTest, ADriverThatHasGivenUpGetsNoFurther) {
  negotiate(kVirtioVersion1);
  out(kStatus, 1, 11 | 128);
  EXPECT_EQ(status(), 11 | 128);
  out(kStatus, 1, 15 | 128);
  EXPECT_EQ(status(), 11 | 128);
  EXPECT_EQ(device.starts, 0);
  out(kStatus, 1, 0);
  bring_up();
  EXPECT_EQ(device.starts, 1);
}

TEST_F(VirtioPciTest, ABrokenDeviceStandsStillUntilReset) {
  enable_msix();
  program(0, 0x40);
  negotiate(kVirtioVersion1);
  out(kConfigVector, 2, 0);
  set_up_queue(0, driver.layout());
  out(kStatus, 1, 15);
  device.host->needs_reset("of a test");
  device.host->needs_reset("of a test");
  EXPECT_EQ(status(), 15 | 64);
  EXPECT_EQ(vectors.all[0]->take(), 1u) << "told once";
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
}

TEST_F(VirtioPciTest, DeviceConfigurationPassesThrough) {
  EXPECT_EQ(in(kConfig + 4, 4), 0x07060504u);
  out(kConfig + 8, 2, 0xabcd);
  EXPECT_EQ(device.written_config, (std::pair<uint64_t, uint64_t>{8, 0xabcd}));
}

TEST_F(VirtioPciTest, RegistersCanBeReadAsMemory) {
  const auto shown = [this](uint64_t offset, size_t width) {
    return load_le(transport->lock()->register_pages().subspan(offset, width));
  };
  EXPECT_EQ(shown(kQueueCount, 2), 2u);
  EXPECT_EQ(shown(kQueueSize, 2), 8u);
  out(kQueueSelect, 2, 1);
  EXPECT_EQ(shown(kQueueSize, 2), 16u);
  EXPECT_EQ(shown(kConfig, 4), 0x03020100u);
  EXPECT_EQ(shown(kTable + 12, 4), 1u) << "masked";
  enable_msix();
  program(1, 0x41);
  EXPECT_EQ(shown(kTable + 16, 8), 0xfee01000u);
  EXPECT_EQ(shown(kTable + 16 + 8, 8), 0x41u);
  bring_up(1);
  EXPECT_EQ(shown(kStatus, 1), 15u);
  device.host->needs_reset("of a test");
  EXPECT_EQ(shown(kStatus, 1), 15u | 64);
  // A reset that takes its time.
  device.stops_at_once = false;
  out(kStatus, 1, 0);
  EXPECT_NE(shown(kStatus, 1), 0u);
  device.host->stopped();
  EXPECT_EQ(shown(kStatus, 1), 0u);
}

TEST_F(VirtioPciTest, ADeviceThatChangesIsSeenToChange) {
  bring_up();
  device.first_byte = 8;
  device.host->config_changed();
  EXPECT_EQ(in(kConfig, 4), 0x0b0a0908u);
  EXPECT_EQ(in(kGeneration, 1), 1u);
  EXPECT_EQ(in(kIsr, 1), 2u);
  // By the guest's own doing.
  device.first_byte = 16;
  device.host->config_updated();
  EXPECT_EQ(in(kConfig, 4), 0x13121110u);
  EXPECT_EQ(in(kGeneration, 1), 2u);
  EXPECT_EQ(in(kIsr, 1), 0u);
  device.host->config_updated();
  EXPECT_EQ(in(kGeneration, 1), 2u) << "nothing is new";
  // With nobody to tell: the next driver sees it before it asks.
  out(kStatus, 1, 0);
  device.first_byte = 24;
  out(kStatus, 1, 1);
  EXPECT_EQ(in(kConfig, 4), 0x1b1a1918u);
}

TEST_F(VirtioPciTest, AChangeBeforeTheDriverIsReadyIsTold) {
  out(kStatus, 1, 1);
  out(kStatus, 1, 3);
  out(kDriverFeatureSelect, 4, 1);
  out(kDriverFeature, 4, 1);
  out(kStatus, 1, 11);
  device.change_at_start = true;
  out(kStatus, 1, 15);
  EXPECT_EQ(in(kConfig, 4), 0x0b0a0908u);
  EXPECT_EQ(in(kIsr, 1), 2u);
}

TEST_F(VirtioPciTest, AnOpenWindowMakesReadsMatter) {
  const uint16_t window = capability(9, 5);
  EXPECT_TRUE(transport->lock()->config_is_memory());
  config_out(static_cast<uint16_t>(window + 12), 4, 1);
  EXPECT_FALSE(transport->lock()->config_is_memory());
  config_out(static_cast<uint16_t>(window + 12), 4, 0);
  EXPECT_TRUE(transport->lock()->config_is_memory());
}

TEST_F(VirtioPciTest, TheConfigurationWindowReachesTheBar) {
  const uint16_t window = capability(9, 5);
  const auto at = [window](int offset) { return static_cast<uint16_t>(window + offset); };
  config_out(at(4), 1, 0);
  config_out(at(8), 4, kQueueCount);
  config_out(at(12), 4, 2);
  EXPECT_EQ(config_in(at(16), 2), 2u);
  config_out(at(8), 4, kStatus);
  config_out(at(12), 4, 1);
  config_out(at(16), 1, 1);
  EXPECT_EQ(status(), 1);
  // Windows that are none: another BAR, odd lengths, unaligned, behind the end.
  const std::array<std::array<uint32_t, 3>, 6> bad{{{1, kStatus, 1},
                                                    {0, kStatus, 3},
                                                    {0, kStatus, 0},
                                                    {0, kStatus + 1, 4},
                                                    {0, 0x8000, 1},
                                                    {0, 0xfffffffc, 4}}};
  for (const auto& [bar, offset, length] : bad) {
    config_out(at(4), 1, bar);
    config_out(at(8), 4, offset);
    config_out(at(12), 4, length);
    config_out(at(16), 4, 0);
    config_in(at(16), 4);
    EXPECT_EQ(status(), 1);
  }
}

TEST_F(VirtioPciTest, DoorbellsFollowTheBar) {
  EXPECT_TRUE(transport->lock()->map_doorbells(0xc0008000));
  EXPECT_EQ(doorbells.bound, 0) << "nobody can ring yet";
  bring_up();
  EXPECT_EQ(doorbells.bound, 2);
  EXPECT_EQ(doorbells.last->address, 0xc0008000u + kNotify + 4);
  EXPECT_TRUE(transport->lock()->map_doorbells(0xd0000000));
  EXPECT_EQ(doorbells.bound, 2);
  transport->lock()->unmap_doorbells();
  EXPECT_EQ(doorbells.bound, 0);
  doorbells.limit = 1;
  EXPECT_FALSE(transport->lock()->map_doorbells(0xc0008000));
  EXPECT_EQ(doorbells.bound, 0) << "all or none";
  // Without them the write itself rings.
  out(kNotify + 4, 2, 1);
  EXPECT_EQ(take_count(transport->lock()->doorbell_fd(1)), 1u);
  // A device that cannot have them works all the same.
  out(kStatus, 1, 0);
  EXPECT_TRUE(transport->lock()->map_doorbells(0xc0008000));
  driver.set_available_index(0);
  bring_up();
  EXPECT_EQ(status(), 15);
  EXPECT_EQ(doorbells.bound, 0);
}

// Anything a guest can do to the registers, for a while: nothing but the lock is needed.
TEST_F(VirtioPciTest, RandomAccesses) {
  Random random(7);
  const std::array<size_t, 4> widths{1, 2, 4, 8};
  const std::array<uint64_t, 6> parts{0, kIsr, kConfig, kNotify, kTable, kPending};
  const std::array<uint64_t, 8> values{0, 1, 3, 11, 15, 0x10000, 0xffff, 0x12000};
  for (int i = 0; i < 200000; ++i) {
    const size_t width = widths[random.below(4)];
    uint64_t offset = parts[random.below(6)] + random.below(0x40);
    if (random.below(10) == 0) offset = random.below(VirtioPci::kBarSize - 8);
    const uint64_t value = random.below(2) == 0 ? values[random.below(8)] : random.next();
    switch (random.below(4)) {
      case 0:
        in(offset, width);
        break;
      case 1:
        config_out(static_cast<uint16_t>(random.below(64) * 4), 4, value);
        break;
      case 2:
        transport->lock()->notified(static_cast<uint16_t>(random.below(2)));
        break;
      default:
        out(offset, width, value);
        break;
    }
  }
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
}

}  // namespace
}  // namespace snug::test
