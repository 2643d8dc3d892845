// Queues set up where they cannot be, or when they may not be (virtio 1.2, 4.1.4.3 and 4.1.5.1.3).
#include "hostile.h"

// Where the parts of a ring go, to be changed by a case.
typedef struct {
  u16 size;
  u64 descriptors, available, used;
} Layout;

static Outcome begin(Device* device, Layout* layout) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  write16(device->common + kQueueSelect, requests_of(device)->index);
  layout->size = read16(device->common + kQueueSize);
  layout->descriptors = address_of(allocate(16 * kQueueSizeMax, 4096));
  layout->available = address_of(allocate(4096, 4096));
  layout->used = address_of(allocate(4096, 4096));
  return NULL;
}

// Makes the request queue so and starts the device.
static Outcome enable(Device* device, const Layout* layout) {
  Queue* queue = requests_of(device);
  virtio_place_queue(device, queue->index, layout->size, layout->descriptors, layout->available,
                     layout->used);
  write16(device->common + kQueueEnable, 1);
  virtio_run(device);
  queue->used = NULL;
  return expect_needs_reset(device);
}

#define LAYOUT_CASE(name, change)       \
  static Outcome name(Device* device) { \
    Layout layout;                      \
    TRY(begin(device, &layout));        \
    change;                             \
    return enable(device, &layout);     \
  }
LAYOUT_CASE(size_0, layout.size = 0)
LAYOUT_CASE(size_3, layout.size = 3)
LAYOUT_CASE(size_100, layout.size = 100)
LAYOUT_CASE(size_32768, layout.size = 32768)
LAYOUT_CASE(size_65535, layout.size = 65535)
LAYOUT_CASE(descriptors_at_8, layout.descriptors += 8)
LAYOUT_CASE(descriptors_odd, layout.descriptors += 1)
LAYOUT_CASE(available_odd, layout.available += 1)
LAYOUT_CASE(used_at_2, layout.used += 2)
LAYOUT_CASE(descriptors_in_hole, layout.descriptors = option("low_end", 0))
LAYOUT_CASE(available_in_hole, layout.available = option("low_end", 0))
LAYOUT_CASE(used_in_hole, layout.used = option("low_end", 0))
LAYOUT_CASE(descriptors_into_hole, layout.descriptors = option("low_end", 0) - 16)
LAYOUT_CASE(available_into_hole, layout.available = option("low_end", 0) - 4)
LAYOUT_CASE(used_into_hole, layout.used = option("low_end", 0) - 4)
LAYOUT_CASE(descriptors_over_end, layout.descriptors = option("high_end", 0) - 16)
LAYOUT_CASE(used_over_end, layout.used = option("high_end", 0) - 8)
LAYOUT_CASE(descriptors_wrapping, layout.descriptors = ~(u64)0 - 15)
LAYOUT_CASE(available_wrapping, layout.available = ~(u64)0 - 1)
LAYOUT_CASE(used_wrapping, layout.used = ~(u64)0 - 3)
LAYOUT_CASE(in_own_registers, layout.used = device->bar)

// The parts over one another: what the device writes is what it reads.
static Outcome overlapping(Device* device) {
  Layout layout;
  TRY(begin(device, &layout));
  Queue* queue = requests_of(device);
  virtio_place_queue(device, queue->index, layout.size, layout.descriptors, layout.descriptors,
                     layout.descriptors);
  write16(device->common + kQueueEnable, 1);
  virtio_run(device);
  queue->descriptors = (void*)(uintptr_t)layout.descriptors;
  queue->available = queue->used = (void*)(uintptr_t)layout.descriptors;
  make_chain(device, queue, 4);
  for (u16 i = 0; i < 8; ++i) {
    queue->available[1] = i;
    queue_ring(queue);
  }
  return expect_lives(device);
}

static Outcome two_queues_in_one_place(Device* device) {
  Layout layout;
  TRY(begin(device, &layout));
  for (u16 i = 0; i < device->queue_count; ++i) {
    virtio_place_queue(device, i, layout.size, layout.descriptors, layout.available, layout.used);
    write16(device->common + kQueueEnable, 1);
  }
  virtio_run(device);
  for (u16 i = 0; i < device->queue_count; ++i) write32(device->notify + i * device->multiplier, i);
  return expect_lives(device);
}

static Outcome size_1(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  Queue* queue = requests_of(device);
  virtio_set_queue(device, queue->index, 1);
  virtio_run(device);
  set_descriptor(queue, 0, address_of(scratch), 16, kNext, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  return expect_needs_reset(device);
}

// 4.1.4.3.2: settled while it is enabled.
static Outcome changed_after_driver_ok(Device* device) {
  const Queue* queue = requests_of(device);
  const u64 common = device->common;
  virtio_place_queue(device, queue->index, 2, 0x1000, 0x2000, 0x3000);
  REQUIRE(read16(common + kQueueSize) == queue->size, "the size of an enabled queue changes");
  REQUIRE(read32(common + kQueueDescriptors) == address_of(queue->descriptors), "an enabled queue moves");
  REQUIRE(read32(common + kQueueDriver) == address_of(queue->available), "an enabled queue moves");
  REQUIRE(read32(common + kQueueDevice) == address_of(queue->used), "an enabled queue moves");
  return expect_works(device);
}

static Outcome enabled_twice(Device* device) {
  const Queue* queue = requests_of(device);
  write16(device->common + kQueueSelect, queue->index);
  for (unsigned i = 0; i < 4; ++i) write16(device->common + kQueueEnable, 1);
  return expect_works(device);
}

// 4.1.4.3.2: a driver must not write 0.
static Outcome disabled(Device* device) {
  write16(device->common + kQueueSelect, requests_of(device)->index);
  write16(device->common + kQueueEnable, 0);
  REQUIRE(read16(device->common + kQueueEnable) == 1, "an enabled queue is switched off");
  return expect_works(device);
}

static Outcome enabled_with_other_values(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  write16(device->common + kQueueSelect, requests_of(device)->index);
  const u16 values[] = {2, 3, 0x100, 0xffff};
  for (unsigned i = 0; i < 4; ++i) {
    write16(device->common + kQueueEnable, values[i]);
    REQUIRE(read16(device->common + kQueueEnable) == 0, "a queue is enabled by another value than 1");
  }
  return NULL;
}

static Outcome enabled_before_features_ok(Device* device) {
  Layout layout;
  TRY(begin(device, &layout));
  REQUIRE(virtio_reset(device), "no reset");
  virtio_place_queue(device, 0, layout.size, layout.descriptors, layout.available, layout.used);
  write16(device->common + kQueueEnable, 1);
  REQUIRE(read16(device->common + kQueueEnable) == 0, "a queue is enabled before the features are settled");
  return NULL;
}

static Outcome enabled_after_driver_ok(Device* device) {
  Layout layout;
  TRY(begin(device, &layout));
  virtio_run(device);
  virtio_place_queue(device, 0, layout.size, layout.descriptors, layout.available, layout.used);
  write16(device->common + kQueueEnable, 1);
  write32(device->notify, 0);
  return expect_lives(device);
}

static Outcome driver_ok_without_queues(Device* device) {
  TRY(prepare(device, DEFAULT_FEATURES));
  virtio_run(device);
  for (u16 i = 0; i < device->queue_count; ++i) write32(device->notify + i * device->multiplier, i);
  REQUIRE((virtio_status(device) & kNeedsReset) == 0, "a device without queues complains");
  return NULL;
}

static Outcome queue_that_is_none(Device* device) {
  const u16 numbers[] = {device->queue_count, 64, 0x7fff, 0xffff};
  for (unsigned i = 0; i < 4; ++i) {
    write16(device->common + kQueueSelect, numbers[i]);
    REQUIRE(read16(device->common + kQueueSize) == 0, "a queue that is none has a size");
    virtio_place_queue(device, numbers[i], 16, 0x1000, 0x2000, 0x3000);
    write16(device->common + kQueueEnable, 1);
    REQUIRE(read16(device->common + kQueueEnable) == 0, "a queue that is none is enabled");
  }
  return expect_works(device);
}

static const Case cases[] = {
    {"size_0", size_0},
    {"size_1", size_1},
    {"size_3", size_3},
    {"size_100", size_100},
    {"size_32768", size_32768},
    {"size_65535", size_65535},
    {"descriptors_at_8", descriptors_at_8},
    {"descriptors_odd", descriptors_odd},
    {"available_odd", available_odd},
    {"used_at_2", used_at_2},
    {"descriptors_in_hole", descriptors_in_hole},
    {"available_in_hole", available_in_hole},
    {"used_in_hole", used_in_hole},
    {"descriptors_into_hole", descriptors_into_hole},
    {"available_into_hole", available_into_hole},
    {"used_into_hole", used_into_hole},
    {"descriptors_over_end", descriptors_over_end},
    {"used_over_end", used_over_end},
    {"descriptors_wrapping", descriptors_wrapping},
    {"available_wrapping", available_wrapping},
    {"used_wrapping", used_wrapping},
    {"in_own_registers", in_own_registers},
    {"overlapping", overlapping},
    {"two_queues_in_one_place", two_queues_in_one_place},
    {"changed_after_driver_ok", changed_after_driver_ok},
    {"enabled_twice", enabled_twice},
    {"disabled", disabled},
    {"enabled_with_other_values", enabled_with_other_values},
    {"enabled_before_features_ok", enabled_before_features_ok},
    {"enabled_after_driver_ok", enabled_after_driver_ok},
    {"driver_ok_without_queues", driver_ok_without_queues},
    {"queue_that_is_none", queue_that_is_none},
};
const CaseSet layout_cases = CASE_SET("queue", EVERY_DEVICE, cases);
