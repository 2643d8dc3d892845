// Entropy requests (virtio 1.2, 5.4.6).
#include "hostile.h"

static Outcome readable(Device* device) {
  set_descriptor(&device->queues[0], 0, address_of(scratch), 64, 0, 0);
  return submit_broken(device, 0);
}

static Outcome asks_for(Device* device, u64 address, u32 length) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  set_descriptor(queue, 0, address, length, kWrite, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "no answer");
  REQUIRE(used.length > 0 && used.length <= length, "more entropy than there is room for");
  return expect_works(device);
}

static Outcome one_byte(Device* device) { return asks_for(device, address_of(scratch), 1); }
static Outcome two_gib(Device* device) { return asks_for(device, 0x10000000, 0x80000000); }
static Outcome last_byte_of_ram(Device* device) { return asks_for(device, option("high_end", 0) - 1, 1); }

static Outcome many_at_once(Device* device) {
  Queue* queue = &device->queues[0];
  for (u16 i = 0; i < queue->size; ++i) {
    set_descriptor(queue, i, address_of(scratch) + 4096 * (u64)i, 4096, kWrite, 0);
    queue_offer(queue, i);
  }
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue->used[1] == queue->size), "a ring full of requests is not answered");
  queue->seen = queue->size;
  return expect_works(device);
}

static const Case cases[] = {
    {"readable", readable},         {"one_byte", one_byte},
    {"two_gib", two_gib},           {"last_byte_of_ram", last_byte_of_ram},
    {"many_at_once", many_at_once},
};
const CaseSet rng_cases = CASE_SET("request", kRng, cases);
