// Indirect tables (virtio 1.2, 2.7.5.3).
#include "hostile.h"

enum { kTableMax = 4096 };
static Descriptor table[kTableMax] __attribute__((aligned(4096)));

// One descriptor that leads to a table at `address`.
static u16 lead_to(Device* device, u64 address, u32 length, u16 flags) {
  set_descriptor(requests_of(device), 0, address, length, (u16)(kIndirect | flags), 1);
  return 0;
}

static u16 lead_to_good(Device* device, u32 length, u16 flags) {
  fill_chain(device, table, 0);
  return lead_to(device, address_of(table), length, flags);
}

enum { kGoodLength = kChainLength * sizeof(Descriptor) };

static Outcome good(Device* device) { return submit_works(device, lead_to_good(device, kGoodLength, 0)); }

// 2.7.5.3.2: the write flag of a descriptor that leads to a table is ignored.
static Outcome write_flag(Device* device) {
  return submit_works(device, lead_to_good(device, kGoodLength, kWrite));
}

static Outcome not_negotiated(Device* device) {
  pool_release(0);
  TRY(start(device, DEFAULT_FEATURES & ~INDIRECT));
  return submit_broken(device, lead_to_good(device, kGoodLength, 0));
}

static Outcome with_next(Device* device) {
  return submit_broken(device, lead_to_good(device, kGoodLength, kNext));
}
static Outcome empty(Device* device) { return submit_broken(device, lead_to_good(device, 0, 0)); }
static Outcome half_a_descriptor(Device* device) { return submit_broken(device, lead_to_good(device, 8, 0)); }
static Outcome one_and_a_half(Device* device) { return submit_broken(device, lead_to_good(device, 24, 0)); }
static Outcome cut_short(Device* device) { return submit_broken(device, lead_to_good(device, 32, 0)); }
static Outcome huge(Device* device) { return submit_broken(device, lead_to_good(device, 0xfffffff0, 0)); }

static Outcome in_hole(Device* device) {
  return submit_broken(device, lead_to(device, option("low_end", 0), kGoodLength, 0));
}
static Outcome over_end_of_ram(Device* device) {
  return submit_broken(device, lead_to(device, option("high_end", 0) - 16, kGoodLength, 0));
}
static Outcome wrapping(Device* device) {
  return submit_broken(device, lead_to(device, ~(u64)0 - 15, kGoodLength, 0));
}
static Outcome own_registers(Device* device) {
  return submit_broken(device, lead_to(device, device->bar, kGoodLength, 0));
}

static Outcome unaligned(Device* device) {
  u8* at = scratch + 0x8001;
  fill_chain(device, table, 0);
  memcpy(at, table, kGoodLength);
  return submit_works(device, lead_to(device, address_of(at), kGoodLength, 0));
}

static Outcome nested(Device* device) {
  const u16 head = lead_to_good(device, kGoodLength, 0);
  table[1].address = address_of(table + 16);
  table[1].length = 16;
  table[1].flags = kIndirect;
  return submit_broken(device, head);
}

static Outcome nested_in_itself(Device* device) {
  const u16 head = lead_to_good(device, kGoodLength, 0);
  table[0].address = address_of(table);
  table[0].length = kGoodLength;
  table[0].flags = kIndirect;
  return submit_broken(device, head);
}

static Outcome link(Device* device, u16 next) {
  const u16 head = lead_to_good(device, kGoodLength, 0);
  table[2].flags |= kNext;
  table[2].next = next;
  return submit_broken(device, head);
}
static Outcome next_at_size(Device* device) { return link(device, kChainLength); }
static Outcome next_65535(Device* device) { return link(device, 0xffff); }
static Outcome loop(Device* device) { return link(device, 0); }
static Outcome loop_to_itself(Device* device) { return link(device, 2); }

static u16 long_table(Device* device, u16 count) {
  fill_chain(device, table, 0);
  const Descriptor middle = table[1];
  const u16 flags = middle.flags | kNext;
  const Descriptor last = table[2];
  for (u16 i = 1; i < count; ++i) table[i] = (Descriptor){middle.address, 16, flags, (u16)(i + 1)};
  table[count - 1] = last;
  return lead_to(device, address_of(table), (u32)count * sizeof(Descriptor), 0);
}

// Longer than any device takes.
static Outcome chain_of_4096(Device* device) { return submit_broken(device, long_table(device, kTableMax)); }
// Longer than the queue: 2.7.5.3.1 forbids it to drivers, and devices may take it.
static Outcome chain_of_300(Device* device) { return submit_lives(device, long_table(device, 300)); }

static Outcome behind_a_chain(Device* device) {
  Queue* queue = requests_of(device);
  make_chain(device, queue, 4);
  fill_chain(device, table, 0);
  // The first descriptor as it is, the rest in a table.
  queue->descriptors[4].next = 1;
  set_descriptor(queue, 1, address_of(table + 1), 32, kIndirect, 0);
  table[1].next = 1;
  return submit_works(device, 4);
}

static Outcome table_is_the_ring(Device* device) {
  Queue* queue = requests_of(device);
  return submit_broken(device, lead_to(device, address_of(queue->descriptors), 16 * (u32)queue->size, 0));
}

static const Case cases[] = {
    {"good", good},
    {"write_flag", write_flag},
    {"not_negotiated", not_negotiated},
    {"with_next", with_next},
    {"empty", empty},
    {"half_a_descriptor", half_a_descriptor},
    {"one_and_a_half", one_and_a_half},
    {"cut_short", cut_short},
    {"huge", huge},
    {"in_hole", in_hole},
    {"over_end_of_ram", over_end_of_ram},
    {"wrapping", wrapping},
    {"own_registers", own_registers},
    {"unaligned", unaligned},
    {"nested", nested},
    {"nested_in_itself", nested_in_itself},
    {"next_at_size", next_at_size},
    {"next_65535", next_65535},
    {"loop", loop},
    {"loop_to_itself", loop_to_itself},
    {"chain_of_4096", chain_of_4096},
    {"chain_of_300", chain_of_300},
    {"behind_a_chain", behind_a_chain},
    {"table_is_the_ring", table_is_the_ring},
};
const CaseSet indirect_cases = CASE_SET("indirect", EVERY_DEVICE, cases);
