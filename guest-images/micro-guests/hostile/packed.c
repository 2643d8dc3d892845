// Packed rings that break the rules of virtio 1.2, 2.8.
#include "hostile.h"

// 2.8.13
typedef struct {
  u64 address;
  u32 length;
  u16 id;
  u16 flags;
} PackedDescriptor;
enum { kAvailable = 1 << 7, kUsed = 1 << 15 };

typedef struct {
  volatile PackedDescriptor* descriptors;
  volatile u16* driver_events;  // place, flags
  volatile u16* device_events;
  u16 size;
  u16 next;  // descriptor to offer
  bool wrap;
  u64 doorbell;
  u16 index;
} Ring;

static Ring ring;

static Outcome enable(Device* device, u16 size, u64 descriptors, u64 driver, u64 events) {
  virtio_place_queue(device, ring.index, size, descriptors, driver, events);
  ring.doorbell = device->notify + (u64)read16(device->common + kQueueNotifyOffset) * device->multiplier;
  write16(device->common + kQueueEnable, 1);
  return NULL;
}

static Outcome begin(Device* device, u16 size) {
  pool_release(0);
  TRY(prepare(device, ~(u64)0));
  ring.index = requests_of(device)->index;
  ring.next = 0;
  ring.wrap = true;
  write16(device->common + kQueueSelect, ring.index);
  ring.size = size != 0 ? size : read16(device->common + kQueueSize);
  ring.descriptors = allocate(16 * (size_t)ring.size, 4096);
  ring.driver_events = allocate(4, 4);
  ring.device_events = allocate(4, 4);
  return NULL;
}

// With a ring in its place, running.
static Outcome start_packed(Device* device, u16 size) {
  TRY(begin(device, size));
  TRY(enable(device, ring.size, address_of(ring.descriptors), address_of(ring.driver_events),
             address_of(ring.device_events)));
  virtio_run(device);
  REQUIRE((virtio_status(device) & kNeedsReset) == 0, "a good packed ring is refused");
  return NULL;
}

static void knock(void) { write32(ring.doorbell, ring.index); }

// What makes a descriptor available in the round of `slot`.
static u16 bits_at(u16 slot) {
  const bool wrap = slot < ring.size ? ring.wrap : !ring.wrap;
  return wrap ? kAvailable : kUsed;
}

static volatile PackedDescriptor* at(u16 slot) { return &ring.descriptors[slot % ring.size]; }

// Writes a good request into the next three descriptors, the first one's flags not yet; returns those.
static u16 write_chain(Device* device, u16 id) {
  Descriptor chain[kChainLength];
  fill_chain(device, chain, 0);
  for (u16 i = kChainLength; i-- > 0;) {
    volatile PackedDescriptor* descriptor = at((u16)(ring.next + i));
    descriptor->address = chain[i].address;
    descriptor->length = chain[i].length;
    descriptor->id = id;
    if (i != 0) descriptor->flags = chain[i].flags | bits_at((u16)(ring.next + i));
  }
  return chain[0].flags | bits_at(ring.next);
}

static void publish(u16 flags) {
  __asm__ volatile("" : : : "memory");
  at(ring.next)->flags = flags;
}

static void advance(u16 by) {
  ring.next += by;
  if (ring.next < ring.size) return;
  ring.next -= ring.size;
  ring.wrap = !ring.wrap;
}

static bool is_used(u16 slot, bool wrap) {
  return at(slot)->flags >> 15 == (wrap ? 1 : 0) && (at(slot)->flags >> 7 & 1) == (wrap ? 1 : 0);
}

// A good request through the packed ring.
static Outcome good_packed(Device* device, u16 id) {
  const u16 slot = ring.next;
  const bool wrap = ring.wrap;
  publish(write_chain(device, id));
  advance(kChainLength);
  knock();
  REQUIRE(WAIT_FOR(is_used(slot, wrap)), "a good request in a packed ring is not answered");
  REQUIRE(at(slot)->id == id, "another id comes back");
  REQUIRE((virtio_status(device) & kNeedsReset) == 0, "the device asks for a reset");
  return NULL;
}

static Outcome broken(Device* device) {
  knock();
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

// Nothing is available though something lies there.
static Outcome ignored(Device* device, u16 flags) {
  TRY(start_packed(device, 0));
  write_chain(device, 1);
  publish(flags);
  for (unsigned i = 0; i < 10; ++i) knock();
  REQUIRE(at(0)->flags == flags, "the device takes what is not available");
  return good_packed(device, 2);
}

static Outcome round_and_round(Device* device) {
  TRY(start_packed(device, 0));
  for (u16 i = 0; i < ring.size; ++i) TRY(good_packed(device, i));
  return NULL;
}

static Outcome size_7(Device* device) {
  TRY(start_packed(device, 7));
  for (u16 i = 0; i < 30; ++i) TRY(good_packed(device, i));
  return NULL;
}

static Outcome any_id(Device* device) {
  TRY(start_packed(device, 0));
  TRY(good_packed(device, 0xffff));
  TRY(good_packed(device, 0x8000));
  return good_packed(device, 0x8000);
}

static Outcome of_the_next_round(Device* device) { return ignored(device, kNext | kUsed); }

static Outcome already_used(Device* device) { return ignored(device, kNext | kUsed | kAvailable); }

static Outcome of_no_round(Device* device) { return ignored(device, kNext); }

// A good request but for the round that its descriptor `slot` is of, behind `before` good ones.
static Outcome wrong_round(Device* device, u16 size, u16 before, u16 slot) {
  TRY(start_packed(device, size));
  for (u16 i = 0; i < before; ++i) TRY(good_packed(device, i));
  const u16 flags = write_chain(device, before);
  at(slot)->flags ^= kAvailable | kUsed;
  publish(flags);
  return broken(device);
}
static Outcome rest_of_chain_of_next_round(Device* device) { return wrong_round(device, 0, 0, 1); }
// The last descriptor leads round the end with the wrap counter that it had before.
static Outcome wrap_counter_not_turned(Device* device) { return wrong_round(device, 8, 2, 8); }
static Outcome wrap_counter_turned_early(Device* device) { return wrong_round(device, 8, 1, 4); }

static Outcome rest_of_chain_not_there(Device* device) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  at(2)->flags = 0;
  publish(flags);
  return broken(device);
}

static Outcome chain_without_end(Device* device) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  for (u16 i = 2; i < ring.size; ++i) {
    at(i)->address = at(1)->address;
    at(i)->length = 16;
    at(i)->flags = at(1)->flags | kNext;
  }
  publish(flags);
  return broken(device);
}

static Outcome place_middle(Device* device, u64 address, u32 length) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  at(1)->address = address;
  at(1)->length = length;
  publish(flags);
  return broken(device);
}
static Outcome at_hole(Device* device) { return place_middle(device, option("low_end", 0), 512); }
static Outcome over_end_of_ram(Device* device) {
  return place_middle(device, option("high_end", 0) - 16, 512);
}
static Outcome wrapping(Device* device) { return place_middle(device, ~(u64)0 - 15, 512); }
static Outcome four_gib_long(Device* device) { return place_middle(device, 0, 0xffffffff); }
static Outcome own_registers(Device* device) { return place_middle(device, device->bar, 512); }

static Outcome readable_behind_writable(Device* device) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  at(1)->flags |= kWrite;
  at(2)->flags &= (u16)~kWrite;
  publish(flags);
  return broken(device);
}

static Outcome all_empty(Device* device) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  for (u16 i = 0; i < kChainLength; ++i) at(i)->length = 0;
  publish(flags);
  knock();
  return expect_lives(device);
}

// --- indirect tables -----------------------------------------------------------------------------------

static PackedDescriptor table[4096] __attribute__((aligned(4096)));

enum { kTableBytes = kChainLength * sizeof(PackedDescriptor) };

static void write_table(Device* device) {
  Descriptor chain[kChainLength];
  fill_chain(device, chain, 0);
  for (u16 i = 0; i < kChainLength; ++i)
    table[i] = (PackedDescriptor){chain[i].address, chain[i].length, 0xaaaa, chain[i].flags & kWrite};
}

// A good table, the descriptor that leads to it odd.
static Outcome lead_to(Device* device, u64 address, u32 length, u16 flags) {
  TRY(start_packed(device, 0));
  write_table(device);
  at(ring.next)->address = address;
  at(ring.next)->length = length;
  at(ring.next)->id = 5;
  publish(kIndirect | flags | bits_at(ring.next));
  return broken(device);
}
static Outcome indirect_with_next(Device* device) {
  return lead_to(device, address_of(table), kTableBytes, kNext);
}
static Outcome indirect_empty(Device* device) { return lead_to(device, address_of(table), 0, 0); }
static Outcome indirect_and_a_half(Device* device) { return lead_to(device, address_of(table), 40, 0); }
static Outcome indirect_in_hole(Device* device) {
  return lead_to(device, option("low_end", 0), kTableBytes, 0);
}
static Outcome indirect_huge(Device* device) { return lead_to(device, address_of(table), 0x1000000, 0); }

static Outcome indirect_in_a_list(Device* device) {
  TRY(start_packed(device, 0));
  const u16 flags = write_chain(device, 1);
  write_table(device);
  at(2)->address = address_of(table);
  at(2)->length = kTableBytes;
  at(2)->flags |= kIndirect;
  publish(flags);
  return broken(device);
}

// 2.8.7: in a table only the write flag counts.
static Outcome indirect_flags_in_table(Device* device) {
  TRY(start_packed(device, 0));
  write_table(device);
  for (u16 i = 0; i < kChainLength; ++i) table[i].flags |= (u16)~kWrite;
  at(0)->address = address_of(table);
  at(0)->length = kTableBytes;
  at(0)->id = 5;
  publish(kIndirect | kAvailable);
  advance(1);
  knock();
  REQUIRE(WAIT_FOR(is_used(0, true)), "an indirect table is not answered");
  return good_packed(device, 6);
}

// --- the rest of the ring --------------------------------------------------------------------------------

static Outcome events_scribbled(Device* device) {
  TRY(start_packed(device, 0));
  static const u16 values[] = {0, 1, 2, 3, 0x7fff, 0x8000, 0xffff};
  for (u16 i = 0; i < 7; ++i) {
    ring.driver_events[0] = values[6 - i];
    ring.driver_events[1] = values[i];
    ring.device_events[0] = values[i];
    ring.device_events[1] = values[6 - i];
    TRY(good_packed(device, i));
  }
  return NULL;
}

static Outcome flags_change_meanwhile(Device* device) {
  for (unsigned round = 0; round < 8; ++round) {
    TRY(start_packed(device, 0));
    const u16 flags = write_chain(device, 1);
    publish(flags);
    knock();
    for (unsigned i = 0; i < 2000; ++i) {
      at(1)->address = i % 2 == 0 ? option("low_end", 0) : address_of(scratch);
      at(1)->length = i % 3 == 0 ? 0xffffffff : 512;
      at(2)->flags ^= kNext;
      at(0)->flags = flags;
    }
  }
  return expect_lives(device);
}

static Outcome answer_over_ring(Device* device) {
  TRY(start_packed(device, 0));
  for (unsigned i = 0; i < 8; ++i) {
    const u16 flags = write_chain(device, 1);
    at((u16)(ring.next + 1))->address = address_of(ring.descriptors);
    at((u16)(ring.next + 1))->length = 512;
    publish(flags);
    advance(kChainLength);
    knock();
  }
  return expect_lives(device);
}

static Outcome reset_under_way(Device* device) {
  for (unsigned i = 0; i < 10; ++i) {
    TRY(start_packed(device, 0));
    for (unsigned k = 0; k < 20; ++k) {
      publish(write_chain(device, 1));
      advance(kChainLength);
    }
    knock();
    REQUIRE(virtio_reset(device), "a reset with requests under way is never done");
  }
  return NULL;
}

static Outcome not_negotiated(Device* device) {
  pool_release(0);
  TRY(start(device, DEFAULT_FEATURES));
  Queue* queue = requests_of(device);
  volatile PackedDescriptor* as_packed = (volatile PackedDescriptor*)queue->descriptors;
  for (u16 i = 0; i < queue->size; ++i) as_packed[i].flags = kAvailable;
  for (unsigned i = 0; i < 10; ++i) queue_ring(queue);
  return expect_works(device);
}

static Outcome place(Device* device, u16 size, u64 descriptors, u64 driver, u64 events) {
  TRY(enable(device, size, descriptors, driver, events));
  virtio_run(device);
  return broken(device);
}

// A ring with one thing about its place changed.
typedef struct {
  u16 size;
  u64 descriptors, driver, events;
} Place;
#define PLACE_CASE(name, change)                                                         \
  static Outcome name(Device* device) {                                                  \
    TRY(begin(device, 0));                                                               \
    Place at = {ring.size, address_of(ring.descriptors), address_of(ring.driver_events), \
                address_of(ring.device_events)};                                         \
    change;                                                                              \
    return place(device, at.size, at.descriptors, at.driver, at.events);                 \
  }
PLACE_CASE(place_size_0, at.size = 0)
PLACE_CASE(place_descriptors_at_8, at.descriptors += 8)
PLACE_CASE(place_driver_at_2, at.driver += 2)
PLACE_CASE(place_device_at_2, at.events += 2)
PLACE_CASE(place_descriptors_in_hole, at.descriptors = option("low_end", 0))
PLACE_CASE(place_driver_in_hole, at.driver = option("low_end", 0))
PLACE_CASE(place_device_wrapping, at.events = ~(u64)0 - 3)

static const Case cases[] = {
    {"round_and_round", round_and_round},
    {"size_7", size_7},
    {"any_id", any_id},
    {"of_the_next_round", of_the_next_round},
    {"already_used", already_used},
    {"of_no_round", of_no_round},
    {"rest_of_chain_of_next_round", rest_of_chain_of_next_round},
    {"rest_of_chain_not_there", rest_of_chain_not_there},
    {"wrap_counter_not_turned", wrap_counter_not_turned},
    {"wrap_counter_turned_early", wrap_counter_turned_early},
    {"chain_without_end", chain_without_end},
    {"at_hole", at_hole},
    {"over_end_of_ram", over_end_of_ram},
    {"wrapping", wrapping},
    {"four_gib_long", four_gib_long},
    {"own_registers", own_registers},
    {"readable_behind_writable", readable_behind_writable},
    {"all_empty", all_empty},
    {"indirect_with_next", indirect_with_next},
    {"indirect_empty", indirect_empty},
    {"indirect_and_a_half", indirect_and_a_half},
    {"indirect_in_hole", indirect_in_hole},
    {"indirect_huge", indirect_huge},
    {"indirect_in_a_list", indirect_in_a_list},
    {"indirect_flags_in_table", indirect_flags_in_table},
    {"events_scribbled", events_scribbled},
    {"flags_change_meanwhile", flags_change_meanwhile},
    {"answer_over_ring", answer_over_ring},
    {"reset_under_way", reset_under_way},
    {"not_negotiated", not_negotiated},
    {"place_size_0", place_size_0},
    {"place_descriptors_at_8", place_descriptors_at_8},
    {"place_driver_at_2", place_driver_at_2},
    {"place_device_at_2", place_device_at_2},
    {"place_descriptors_in_hole", place_descriptors_in_hole},
    {"place_driver_in_hole", place_driver_in_hole},
    {"place_device_wrapping", place_device_wrapping},
};
const CaseSet packed_cases = CASE_SET_WITH("packed", EVERY_DEVICE, RING_PACKED, cases);
