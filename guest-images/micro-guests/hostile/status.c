// The device status and the negotiation of features (virtio 1.2, 2.1, 2.2 and 3.1.1).
#include "hostile.h"

static void set_status(Device* device, u8 value) { write8(device->common + kStatus, value); }

static void set_features(Device* device, u64 bits) {
  for (u32 i = 0; i < 2; ++i) {
    write32(device->common + kDriverFeatureSelect, i);
    write32(device->common + kDriverFeature, (u32)(bits >> (32 * i)));
  }
}

static Outcome begin(Device* device) {
  REQUIRE(virtio_reset(device), "a reset is never done");
  set_status(device, kAcknowledge);
  set_status(device, kAcknowledge | kDriver);
  return NULL;
}

static Outcome refused(Device* device, u64 bits) {
  TRY(begin(device));
  set_features(device, bits);
  set_status(device, kAcknowledge | kDriver | kFeaturesOk);
  REQUIRE((virtio_status(device) & kFeaturesOk) == 0, "features are taken that cannot be");
  set_status(device, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  REQUIRE((virtio_status(device) & kDriverOk) == 0, "a driver with refused features may start");
  return NULL;
}

static Outcome no_features(Device* device) { return refused(device, 0); }
static Outcome without_version_1(Device* device) {
  return refused(device, device->offered & ~VERSION_1 & ~RING_PACKED);
}
static Outcome every_feature(Device* device) { return refused(device, ~(u64)0); }

static Outcome each_that_was_not_offered(Device* device) {
  for (unsigned bit = 0; bit < 64; ++bit)
    if ((device->offered & FEATURE(bit)) == 0) TRY(refused(device, VERSION_1 | FEATURE(bit)));
  return NULL;
}

static Outcome feature_words_beyond(Device* device) {
  TRY(begin(device));
  set_features(device, VERSION_1);
  const u32 words[] = {2, 3, 32, 0x80000000, 0xffffffff};
  for (unsigned i = 0; i < 5; ++i) {
    write32(device->common + kDriverFeatureSelect, words[i]);
    write32(device->common + kDriverFeature, 0xffffffff);
    write32(device->common + kDeviceFeatureSelect, words[i]);
    REQUIRE(read32(device->common + kDeviceFeature) == 0, "features beyond those there are");
  }
  set_status(device, kAcknowledge | kDriver | kFeaturesOk);
  REQUIRE((virtio_status(device) & kFeaturesOk) != 0, "features beyond those there are count");
  return NULL;
}

static Outcome features_changed_later(Device* device) {
  set_features(device, ~(u64)0);
  write32(device->common + kDriverFeatureSelect, 0);
  REQUIRE(read32(device->common + kDriverFeature) == (u32)device->features, "settled features change");
  return expect_works(device);
}

static Outcome only(Device* device, u8 value) {
  REQUIRE(virtio_reset(device), "a reset is never done");
  set_status(device, value);
  REQUIRE(virtio_status(device) == 0, "a step is taken before the one it needs");
  return NULL;
}
static Outcome driver_first(Device* device) { return only(device, kDriver); }
static Outcome features_ok_first(Device* device) { return only(device, kFeaturesOk); }
static Outcome driver_ok_first(Device* device) { return only(device, kDriverOk); }

static Outcome unknown_bits(Device* device) {
  REQUIRE(virtio_reset(device), "a reset is never done");
  set_status(device, 0x30);
  REQUIRE(virtio_status(device) == 0, "bits that mean nothing are kept");
  return NULL;
}

static Outcome every_value(Device* device) {
  for (unsigned value = 0; value < 256; ++value) {
    set_status(device, (u8)value);
    (void)virtio_status(device);
  }
  for (unsigned value = 256; value > 0; --value) {
    REQUIRE(virtio_reset(device), "a reset is never done");
    set_status(device, (u8)(value - 1));
  }
  return NULL;
}

static Outcome activated_twice(Device* device) {
  for (unsigned i = 0; i < 8; ++i) virtio_run(device);
  return expect_works(device);
}

static Outcome features_ok_twice(Device* device) {
  set_status(device, kAcknowledge | kDriver | kFeaturesOk);
  set_status(device, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  return expect_works(device);
}

static Outcome bits_cleared(Device* device) {
  const u8 before = virtio_status(device);
  const u8 values[] = {kAcknowledge, kAcknowledge | kDriver, kDriverOk, kFeaturesOk | kDriverOk};
  for (unsigned i = 0; i < 4; ++i) {
    set_status(device, values[i]);
    REQUIRE(virtio_status(device) == before, "a status bit is cleared without a reset");
  }
  return expect_works(device);
}

static Outcome needs_reset_by_driver(Device* device) {
  set_status(device, virtio_status(device) | kNeedsReset);
  REQUIRE((virtio_status(device) & kNeedsReset) == 0, "the driver sets DEVICE_NEEDS_RESET");
  return expect_works(device);
}

static Outcome needs_reset_cleared(Device* device) {
  TRY(submit_broken(device, 0xffff));
  set_status(device, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  REQUIRE((virtio_status(device) & kNeedsReset) != 0, "the driver clears DEVICE_NEEDS_RESET");
  return NULL;
}

static Outcome failed(Device* device) {
  Queue* queue = requests_of(device);
  set_status(device, virtio_status(device) | kFailed);
  queue_offer(queue, make_chain(device, queue, 0));
  queue_ring(queue);
  REQUIRE((virtio_status(device) & kFailed) != 0, "FAILED does not stay");
  return NULL;
}

static Outcome started_while_broken(Device* device) {
  TRY(begin(device));
  set_features(device, VERSION_1);
  set_status(device, kAcknowledge | kDriver | kFeaturesOk);
  virtio_place_queue(device, 0, 3, 0, 0, 0);
  write16(device->common + kQueueEnable, 1);
  REQUIRE((virtio_status(device) & kNeedsReset) != 0, "a queue of 3 entries is taken");
  virtio_run(device);
  for (unsigned i = 0; i < 10; ++i) write32(device->notify, 0);
  return expect_lives(device);
}

static Outcome doorbell_before_driver_ok(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  for (u16 i = 0; i < device->queue_count && i < kQueuesMax; ++i) virtio_set_queue(device, i, 0);
  Queue* queue = requests_of(device);
  queue_offer(queue, make_chain(device, queue, 0));
  for (unsigned i = 0; i < 10; ++i) queue_ring(queue);
  REQUIRE(queue->used[1] == 0, "a device answers before DRIVER_OK");
  virtio_run(device);
  // 2.1.2: and takes what lay there afterwards.
  REQUIRE(WAIT_FOR(queue->used[1] == 1), "what was offered before DRIVER_OK is lost");
  return NULL;
}

static Outcome resets_in_a_row(Device* device) {
  for (unsigned i = 0; i < 200; ++i) set_status(device, 0);
  REQUIRE(virtio_reset(device), "a reset is never done");
  return NULL;
}

static Outcome half_way_and_reset(Device* device) {
  for (unsigned step = 0; step < 40; ++step) {
    pool_release(0);
    TRY(begin(device));
    if (step % 4 > 0) set_features(device, VERSION_1);
    if (step % 4 > 1) set_status(device, kAcknowledge | kDriver | kFeaturesOk);
    if (step % 4 > 2) virtio_set_queue(device, 0, 0);
  }
  REQUIRE(virtio_reset(device), "a reset is never done");
  write16(device->common + kQueueSelect, 0);
  REQUIRE(read16(device->common + kQueueEnable) == 0, "a queue is enabled after a reset");
  REQUIRE(read32(device->common + kQueueDescriptors) == 0, "a queue has an address after a reset");
  return NULL;
}

static Outcome registers_are_as_new(Device* device) {
  REQUIRE(virtio_reset(device), "a reset is never done");
  const u64 common = device->common;
  REQUIRE(read16(common + kConfigVector) == 0xffff, "a vector outlives a reset");
  write16(common + kQueueSelect, 0);
  REQUIRE(read16(common + kQueueVector) == 0xffff, "a queue's vector outlives a reset");
  for (u32 i = 0; i < 2; ++i) {
    write32(common + kDriverFeatureSelect, i);
    REQUIRE(read32(common + kDriverFeature) == 0, "features outlive a reset");
  }
  return NULL;
}

static const Case cases[] = {
    {"no_features", no_features},
    {"without_version_1", without_version_1},
    {"every_feature", every_feature},
    {"each_that_was_not_offered", each_that_was_not_offered},
    {"feature_words_beyond", feature_words_beyond},
    {"features_changed_later", features_changed_later},
    {"driver_first", driver_first},
    {"features_ok_first", features_ok_first},
    {"driver_ok_first", driver_ok_first},
    {"unknown_bits", unknown_bits},
    {"every_value", every_value},
    {"activated_twice", activated_twice},
    {"features_ok_twice", features_ok_twice},
    {"bits_cleared", bits_cleared},
    {"needs_reset_by_driver", needs_reset_by_driver},
    {"needs_reset_cleared", needs_reset_cleared},
    {"failed", failed},
    {"started_while_broken", started_while_broken},
    {"doorbell_before_driver_ok", doorbell_before_driver_ok},
    {"resets_in_a_row", resets_in_a_row},
    {"half_way_and_reset", half_way_and_reset},
    {"registers_are_as_new", registers_are_as_new},
};
const CaseSet status_cases = CASE_SET("status", EVERY_DEVICE, cases);
