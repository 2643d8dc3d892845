// Split rings that break the rules of virtio 1.2, 2.7.
#include "hostile.h"

// --- indexes and links ---------------------------------------------------------------------------------

static Outcome move_index(Device* device, u16 by) {
  Queue* queue = requests_of(device);
  make_chain(device, queue, 0);
  *available_index(queue) = (u16)(queue->offered + by);
  queue_ring(queue);
  return expect_needs_reset(device);
}

static Outcome index_one_too_far(Device* device) {
  return move_index(device, (u16)(requests_of(device)->size + 1));
}
static Outcome index_half_way_round(Device* device) { return move_index(device, 0x8000); }
static Outcome index_backwards(Device* device) { return move_index(device, 0xffff); }

static Outcome index_back_later(Device* device) {
  TRY(good_request(device));
  return move_index(device, 0xffff);
}

static Outcome head_at_size(Device* device) {
  make_chain(device, requests_of(device), 0);
  return submit_broken(device, requests_of(device)->size);
}

static Outcome head_65535(Device* device) { return submit_broken(device, 0xffff); }

static Outcome link_last_to(Device* device, u16 next) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[2].flags |= kNext;
  queue->descriptors[2].next = next;
  return submit_broken(device, head);
}

static Outcome next_at_size(Device* device) { return link_last_to(device, requests_of(device)->size); }
static Outcome next_65535(Device* device) { return link_last_to(device, 0xffff); }
static Outcome loop_to_head(Device* device) { return link_last_to(device, 0); }
static Outcome loop_to_itself(Device* device) { return link_last_to(device, 2); }
static Outcome loop_of_two(Device* device) { return link_last_to(device, 1); }

// Every descriptor of the table, and round again.
static Outcome loop_through_table(Device* device) {
  Queue* queue = requests_of(device);
  make_chain(device, queue, 0);
  const u16 flags = queue->descriptors[1].flags;
  const u64 address = queue->descriptors[1].address;
  for (u16 i = 1; i < queue->size; ++i)
    set_descriptor(queue, i, address, 16, flags | kNext, (u16)((i + 1) % queue->size));
  return submit_broken(device, 0);
}

static Outcome next_without_flag(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[2].next = 0xffff;  // means nothing
  return submit_works(device, head);
}

static Outcome unknown_flags(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  for (u16 i = 0; i < kChainLength; ++i) queue->descriptors[i].flags |= 0xfff8;
  return submit_works(device, head);
}

static Outcome one_head_twice(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue_offer(queue, head);
  return submit_works(device, head);
}

static Outcome middle_of_chain_as_head(Device* device) {
  make_chain(device, requests_of(device), 0);
  return submit_lives(device, 2);
}

// --- addresses -----------------------------------------------------------------------------------------

static Outcome place_middle_at(Device* device, u64 address, u32 length) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[1].address = address;
  queue->descriptors[1].length = length;
  return submit_broken(device, head);
}

static u64 low_end(void) { return option("low_end", 0); }
static u64 high_end(void) { return option("high_end", 0); }

static Outcome at_hole(Device* device) { return place_middle_at(device, low_end(), 512); }
static Outcome into_hole(Device* device) { return place_middle_at(device, low_end() - 16, 512); }
static Outcome over_whole_hole(Device* device) { return place_middle_at(device, low_end() - 16, 0x40000020); }
static Outcome at_end_of_ram(Device* device) { return place_middle_at(device, high_end(), 512); }
static Outcome over_end_of_ram(Device* device) { return place_middle_at(device, high_end() - 16, 512); }
static Outcome far_above(Device* device) { return place_middle_at(device, (u64)1 << 40, 512); }
static Outcome wrapping(Device* device) { return place_middle_at(device, ~(u64)0 - 15, 512); }
static Outcome wrapping_by_one(Device* device) { return place_middle_at(device, ~(u64)0 - 511, 513); }
static Outcome last_address(Device* device) { return place_middle_at(device, ~(u64)0, 1); }
static Outcome sign_bit(Device* device) { return place_middle_at(device, (u64)1 << 63, 512); }
static Outcome own_registers(Device* device) { return place_middle_at(device, device->bar, 512); }
static Outcome own_msix_table(Device* device) { return place_middle_at(device, device->table, 16); }
static Outcome local_apic(Device* device) { return place_middle_at(device, 0xfee00000, 512); }
static Outcome io_apic(Device* device) { return place_middle_at(device, 0xfec00000, 512); }
static Outcome configuration_space(Device* device) { return place_middle_at(device, ECAM, 512); }
static Outcome four_gib_long(Device* device) {
  return place_middle_at(device, address_of(scratch), 0xffffffff);
}

static Outcome first_outside(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[0].address = low_end();
  return submit_broken(device, head);
}

static Outcome last_outside(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[2].address = low_end();
  return submit_broken(device, head);
}

// --- lengths and directions ------------------------------------------------------------------------------

static Outcome empty_in_the_middle(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[1].length = 0;
  return submit_lives(device, head);
}

static Outcome all_empty(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  for (u16 i = 0; i < kChainLength; ++i) queue->descriptors[i].length = 0;
  return submit_lives(device, head);
}

static Outcome empty_and_outside(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[1].length = 0;
  queue->descriptors[1].address = ~(u64)0;
  return submit_lives(device, head);
}

// 2.7.4.2: what the device writes comes last.
static Outcome readable_behind_writable(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[1].flags |= kWrite;
  queue->descriptors[2].flags &= (u16)~kWrite;
  return submit_broken(device, head);
}

static Outcome every_direction_reversed(Device* device) {
  Queue* queue = requests_of(device);
  const u16 head = make_chain(device, queue, 0);
  for (u16 i = 0; i < kChainLength; ++i) queue->descriptors[i].flags ^= kWrite;
  return submit_lives(device, head);
}

// --- the rings themselves --------------------------------------------------------------------------------

static Outcome used_index_scribbled(Device* device) {
  Queue* queue = requests_of(device);
  TRY(good_request(device));
  // The device has its own count; ours follows what it writes next.
  queue->used[1] = 0x1234;
  queue_offer(queue, make_chain(device, queue, 0));
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue->used[1] == (u16)(queue->seen + 1)), "the device believes the driver's used index");
  return NULL;
}

static Outcome available_flags_scribbled(Device* device) {
  Queue* queue = requests_of(device);
  queue->available[0] = 0xfffe;
  return submit_works(device, make_chain(device, queue, 0));
}

static Outcome event_index_scribbled(Device* device) {
  Queue* queue = requests_of(device);
  for (unsigned i = 0; i < 16; ++i) {
    *used_event(queue) = (u16)(i * 0x1111);
    queue_offer(queue, make_chain(device, queue, 0));
    queue_ring(queue);
  }
  return expect_works(device);
}

// What the device writes is what it reads next.
static Outcome answer_over(Device* device, volatile void* ring, u32 bytes) {
  // It writes nothing, and would take what lies in the ring for pages that the guest does not need.
  if (device->type == kBalloon) return expect_works(device);
  Queue* queue = answers_of(device);
  for (u16 i = 0; i < 16; ++i) {
    if (receives(device)) {
      set_descriptor(queue, i, address_of(ring), bytes, kWrite, 0);
    } else {
      const u16 head = make_chain(device, queue, (u16)(i * kChainLength));
      queue->descriptors[head + 1].address = address_of(ring);
      queue->descriptors[head + 1].length = bytes;
    }
    queue_offer(queue, (u16)(receives(device) ? i : i * kChainLength));
  }
  queue_ring(queue);
  if (receives(device)) queue_ring(requests_of(device));
  return expect_lives(device);
}

static Outcome answer_over_descriptors(Device* device) {
  return answer_over(device, answers_of(device)->descriptors, 512);
}
static Outcome answer_over_available(Device* device) {
  return answer_over(device, answers_of(device)->available, 512);
}
static Outcome answer_over_used(Device* device) { return answer_over(device, answers_of(device)->used, 512); }

static Outcome descriptors_change_meanwhile(Device* device) {
  Queue* queue = requests_of(device);
  for (unsigned round = 0; round < 32; ++round) {
    const u16 head = make_chain(device, queue, 0);
    queue_offer(queue, head);
    queue_ring(queue);
    for (unsigned i = 0; i < 2000; ++i) {
      queue->descriptors[1].address = i % 2 == 0 ? low_end() : address_of(scratch);
      queue->descriptors[1].length = i % 3 == 0 ? 0xffffffff : 512;
      queue->descriptors[2].next = 0;
      queue->descriptors[2].flags ^= kNext;
    }
  }
  return expect_lives(device);
}

// --- doorbells and resets --------------------------------------------------------------------------------

static Outcome doorbells_for_nothing(Device* device) {
  for (unsigned i = 0; i < 1000; ++i) queue_ring(requests_of(device));
  return expect_works(device);
}

static Outcome full_ring(Device* device) {
  Queue* queue = requests_of(device);
  const u16 seen = queue->used[1];
  fill_ring(device, queue);
  REQUIRE(WAIT_FOR((u16)(queue->used[1] - seen) == queue->size), "a full ring is not answered");
  queue->seen = queue->used[1];
  return expect_works(device);
}

static Outcome reset_under_way(Device* device) {
  Queue* queue = requests_of(device);
  fill_ring(device, queue);
  REQUIRE(virtio_reset(device), "a reset with requests under way is never done");
  const u16 used = queue->used[1];
  for (unsigned i = 0; i < 100; ++i) queue_ring(queue);
  REQUIRE(queue->used[1] == used, "the device answers after its reset");
  return NULL;
}

static Outcome resets_under_way(Device* device) {
  for (unsigned i = 0; i < 20; ++i) {
    pool_release(0);
    TRY(start(device, DEFAULT_FEATURES));
    Queue* queue = requests_of(device);
    fill_ring(device, queue);
    REQUIRE(virtio_reset(device), "a reset with requests under way is never done");
  }
  return NULL;
}

static Outcome tells_by_interrupt(Device* device) {
  const u64 before = interrupts[config_vector_of(device)];
  TRY(submit_broken(device, 0xffff));
  REQUIRE(WAIT_FOR(interrupts[config_vector_of(device)] == before + 1),
          "no interrupt tells of the need for a reset");
  return NULL;
}

static const Case cases[] = {
    {"index_one_too_far", index_one_too_far},
    {"index_half_way_round", index_half_way_round},
    {"index_backwards", index_backwards},
    {"index_back_later", index_back_later},
    {"head_at_size", head_at_size},
    {"head_65535", head_65535},
    {"next_at_size", next_at_size},
    {"next_65535", next_65535},
    {"loop_to_head", loop_to_head},
    {"loop_to_itself", loop_to_itself},
    {"loop_of_two", loop_of_two},
    {"loop_through_table", loop_through_table},
    {"next_without_flag", next_without_flag},
    {"unknown_flags", unknown_flags},
    {"one_head_twice", one_head_twice},
    {"middle_of_chain_as_head", middle_of_chain_as_head},
    {"at_hole", at_hole},
    {"into_hole", into_hole},
    {"over_whole_hole", over_whole_hole},
    {"at_end_of_ram", at_end_of_ram},
    {"over_end_of_ram", over_end_of_ram},
    {"far_above", far_above},
    {"wrapping", wrapping},
    {"wrapping_by_one", wrapping_by_one},
    {"last_address", last_address},
    {"sign_bit", sign_bit},
    {"own_registers", own_registers},
    {"own_msix_table", own_msix_table},
    {"local_apic", local_apic},
    {"io_apic", io_apic},
    {"configuration_space", configuration_space},
    {"four_gib_long", four_gib_long},
    {"first_outside", first_outside},
    {"last_outside", last_outside},
    {"empty_in_the_middle", empty_in_the_middle},
    {"all_empty", all_empty},
    {"empty_and_outside", empty_and_outside},
    {"readable_behind_writable", readable_behind_writable},
    {"every_direction_reversed", every_direction_reversed},
    {"used_index_scribbled", used_index_scribbled},
    {"available_flags_scribbled", available_flags_scribbled},
    {"event_index_scribbled", event_index_scribbled},
    {"answer_over_descriptors", answer_over_descriptors},
    {"answer_over_available", answer_over_available},
    {"answer_over_used", answer_over_used},
    {"descriptors_change_meanwhile", descriptors_change_meanwhile},
    {"doorbells_for_nothing", doorbells_for_nothing},
    {"full_ring", full_ring},
    {"reset_under_way", reset_under_way},
    {"resets_under_way", resets_under_way},
    {"tells_by_interrupt", tells_by_interrupt},
};
const CaseSet ring_cases = CASE_SET("ring", EVERY_DEVICE, cases);
