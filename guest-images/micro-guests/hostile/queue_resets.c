// One queue reset while the device runs (virtio 1.2, 2.6.1).
#include "hostile.h"

#define RING_RESET FEATURE(40)
static void ask(Device* device, u16 index, u16 value) {
  write16(device->common + kQueueSelect, index);
  write16(device->common + kQueueReset, value);
}

static bool is_done(Device* device) {
  return read16(device->common + kQueueReset) == 0 && read16(device->common + kQueueEnable) == 0;
}

// A fresh ring for the request queue.
static Outcome again(Device* device) {
  virtio_set_queue(device, requests_of(device)->index, 0);
  return expect_works(device);
}

static Outcome idle(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    ask(device, requests_of(device)->index, 1);
    REQUIRE(WAIT_FOR(is_done(device)), "the reset of a queue is never done");
    TRY(again(device));
  }
  return NULL;
}

static Outcome under_way(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    Queue* queue = requests_of(device);
    fill_ring(device, queue);
    ask(device, queue->index, 1);
    REQUIRE(WAIT_FOR(is_done(device)), "the reset of a queue is never done");
    const u16 used = queue->used[1];
    for (unsigned k = 0; k < 20; ++k) queue_ring(queue);
    REQUIRE(queue->used[1] == used, "a queue goes on after its reset");
    TRY(again(device));
  }
  return NULL;
}

static Outcome device_reset_in_between(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    Queue* queue = requests_of(device);
    fill_ring(device, queue);
    ask(device, queue->index, 1);
    REQUIRE(virtio_reset(device), "a reset is never done");
    pool_release(0);
    TRY(start(device, DEFAULT_FEATURES));
  }
  return expect_works(device);
}

static Outcome twice(Device* device) {
  for (unsigned i = 0; i < 4; ++i) ask(device, requests_of(device)->index, 1);
  REQUIRE(WAIT_FOR(is_done(device)), "the reset of a queue is never done");
  for (unsigned i = 0; i < 4; ++i) ask(device, requests_of(device)->index, 1);
  REQUIRE(WAIT_FOR(is_done(device)), "the reset of a queue is never done");
  return again(device);
}

static Outcome not_negotiated(Device* device) {
  pool_release(0);
  TRY(start(device, DEFAULT_FEATURES & ~RING_RESET));
  ask(device, requests_of(device)->index, 1);
  REQUIRE(read16(device->common + kQueueEnable) == 1, "a queue is reset though that was not negotiated");
  return expect_works(device);
}

static Outcome other_values(Device* device) {
  static const u16 values[] = {0, 2, 0x100, 0xffff};
  for (unsigned i = 0; i < 4; ++i) {
    ask(device, requests_of(device)->index, values[i]);
    REQUIRE(read16(device->common + kQueueEnable) == 1, "a queue is reset by another value than 1");
  }
  return expect_works(device);
}

static Outcome of_no_queue(Device* device) {
  ask(device, device->queue_count, 1);
  ask(device, 0xffff, 1);
  return expect_works(device);
}

static Outcome before_driver_ok(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  ask(device, 0, 1);
  virtio_set_queue(device, 0, 0);
  ask(device, 0, 1);
  virtio_run(device);
  return expect_lives(device);
}

static Outcome broken_then_reset(Device* device) {
  TRY(submit_broken(device, 0xffff));
  ask(device, requests_of(device)->index, 1);
  REQUIRE((virtio_status(device) & kNeedsReset) != 0, "a queue's reset heals the device");
  return NULL;
}

static Outcome back_in_a_bad_place(Device* device) {
  const u16 index = requests_of(device)->index;
  ask(device, index, 1);
  REQUIRE(WAIT_FOR(is_done(device)), "the reset of a queue is never done");
  virtio_place_queue(device, index, 16, option("low_end", 0), 0x1000, 0x2000);
  write16(device->common + kQueueEnable, 1);
  requests_of(device)->used = NULL;
  return expect_needs_reset(device);
}

static const Case cases[] = {
    {"idle", idle},
    {"under_way", under_way},
    {"device_reset_in_between", device_reset_in_between},
    {"twice", twice},
    {"not_negotiated", not_negotiated},
    {"other_values", other_values},
    {"of_no_queue", of_no_queue},
    {"before_driver_ok", before_driver_ok},
    {"broken_then_reset", broken_then_reset},
    {"back_in_a_bad_place", back_in_a_bad_place},
};
const CaseSet queue_reset_cases = CASE_SET_WITH("queue_reset", EVERY_DEVICE, RING_RESET, cases);
