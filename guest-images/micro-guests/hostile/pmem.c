// Flush requests that cannot be (virtio 1.2, 5.19.6), and the memory as a place for what devices read and
// write.
#include "hostile.h"

enum { kNoAnswer = 0x55, kNotDone = 0xffffffff };

static u32 type;
static volatile u32 answer;

static u64 start_of(const Device* device) { return read64(device->config); }
static u64 size_of(const Device* device) { return read64(device->config + 8); }

// The answer to a request of one readable and one writable part; kNoAnswer when none comes.
static u32 request(Device* device, u32 asked, u64 answer_at) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  type = asked;
  answer = kNoAnswer;
  set_descriptor(queue, 0, address_of(&type), sizeof type, kNext, 1);
  set_descriptor(queue, 1, answer_at, sizeof answer, kWrite, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  return WAIT_FOR(queue_take(queue, &used)) ? answer : kNoAnswer;
}

static Outcome unknown_types(Device* device) {
  static const u32 types[] = {1, 2, 0x100, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
  for (unsigned i = 0; i < sizeof types / sizeof *types; ++i)
    REQUIRE(request(device, types[i], address_of(&answer)) == kNotDone,
            "a request that there is not is done");
  return expect_works(device);
}

static Outcome type_short(Device* device) {
  Queue* queue = &device->queues[0];
  set_descriptor(queue, 0, address_of(&type), 3, kNext, 1);
  set_descriptor(queue, 1, address_of(&answer), 4, kWrite, 0);
  return submit_broken(device, 0);
}

static Outcome answer_short(Device* device) {
  Queue* queue = &device->queues[0];
  set_descriptor(queue, 0, address_of(&type), 4, kNext, 1);
  set_descriptor(queue, 1, address_of(&answer), 3, kWrite, 0);
  return submit_broken(device, 0);
}

static Outcome answer_missing(Device* device) {
  set_descriptor(&device->queues[0], 0, address_of(&type), 4, 0, 0);
  return submit_broken(device, 0);
}

static Outcome answer_over_end_of_ram(Device* device) {
  Queue* queue = &device->queues[0];
  set_descriptor(queue, 0, address_of(&type), 4, kNext, 1);
  set_descriptor(queue, 1, option("high_end", 0) - 2, 4, kWrite, 0);
  return submit_broken(device, 0);
}

static Outcome many_at_once(Device* device) {
  Queue* queue = &device->queues[0];
  type = 0;
  for (u16 i = 0; i + 1 < queue->size; i = (u16)(i + 2)) {
    set_descriptor(queue, i, address_of(&type), 4, kNext, (u16)(i + 1));
    set_descriptor(queue, (u16)(i + 1), address_of(scratch) + 4 * (u64)i, 4, kWrite, 0);
    queue_offer(queue, i);
  }
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue->used[1] == queue->size / 2), "a ring full of flushes is not answered");
  queue->seen = (u16)(queue->size / 2);
  return expect_works(device);
}

static Outcome answer_into_the_memory(Device* device) {
  (void)request(device, 0, start_of(device) + size_of(device) - 4);
  return expect_works(device);
}

static Outcome answer_behind_the_memory(Device* device) {
  Queue* queue = &device->queues[0];
  set_descriptor(queue, 0, address_of(&type), 4, kNext, 1);
  set_descriptor(queue, 1, start_of(device) + size_of(device) - 2, 4, kWrite, 0);
  return submit_broken(device, 0);
}

// Its own ring in the memory, which others may change or take away.
static Outcome ring_in_the_memory(Device* device) {
  const u64 start = start_of(device);
  TRY(prepare(device, DEFAULT_FEATURES));
  virtio_place_queue(device, 0, 16, start, start + 0x1000, start + 0x2000);
  write16(device->common + kQueueEnable, 1);
  virtio_run(device);
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "a ring outside of RAM is taken");
  return NULL;
}

static Outcome configuration_is_written(Device* device) {
  const u64 start = start_of(device), size = size_of(device);
  for (u64 at = 0; at < 16; at += 4) write32(device->config + at, 0xffffffff);
  REQUIRE(start_of(device) == start && size_of(device) == size, "the guest moves its memory");
  return expect_works(device);
}

static const Case cases[] = {
    {"unknown_types", unknown_types},
    {"type_short", type_short},
    {"answer_short", answer_short},
    {"answer_missing", answer_missing},
    {"answer_over_end_of_ram", answer_over_end_of_ram},
    {"many_at_once", many_at_once},
    {"answer_into_the_memory", answer_into_the_memory},
    {"answer_behind_the_memory", answer_behind_the_memory},
    {"ring_in_the_memory", ring_in_the_memory},
    {"configuration_is_written", configuration_is_written},
};
const CaseSet pmem_cases = CASE_SET("request", kPmem, cases);
