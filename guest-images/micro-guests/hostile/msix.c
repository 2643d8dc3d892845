// MSI-X (PCI Local Bus 3.0, 6.8.2) in every half-way state.
#include "hostile.h"

enum { kEnable = 0x8000, kFunctionMask = 0x4000 };
// Counted, acknowledged, and nobody waits for it, nor for the eight before.
enum { kSpare = kFirstVector + kVectors - 1 };

static void control(Device* device, u16 value) { pci_write16(device->slot, (u16)(device->msix + 2), value); }

static u64 entry(const Device* device, u32 index) { return device->table + 16 * index; }

static u32 last(const Device* device) { return device->vector_count - 1u; }

// The entry of the queue whose interrupt a good request brings.
static u32 busy(Device* device) { return requests_of(device)->index + 1u; }

static void set_entry(Device* device, u32 index, u64 address, u32 data, u32 masked) {
  write32(entry(device, index), (u32)address);
  write32(entry(device, index) + 4, (u32)(address >> 32));
  write32(entry(device, index) + 8, data);
  write32(entry(device, index) + 12, masked);
}

static Outcome request_without_interrupt(Device* device) {
  const u64 before = interrupts[vector_of(device, requests_of(device)->index)];
  TRY(good_request(device));
  REQUIRE(interrupts[vector_of(device, requests_of(device)->index)] == before,
          "an interrupt comes that cannot");
  return NULL;
}

// Live entries, changed dword by dword as a careless driver does.
static Outcome half_written(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    write32(entry(device, busy(device)), 0xfee00000 + (i << 12));
    TRY(good_request(device));
    write32(entry(device, busy(device)) + 4, i);
    TRY(good_request(device));
    write32(entry(device, busy(device)) + 8, 0x20 + i);
    write32(entry(device, busy(device)) + 8, kSpare);
    TRY(good_request(device));
    write32(entry(device, busy(device)) + 4, 0);
  }
  return NULL;
}

static Outcome addresses(Device* device) {
  static const u64 places[] = {0,          4,          0x1000,      0xc0000000,         0xfedffffc,
                               0xfef00000, 0xfffffffc, 0x100000000, 0xfee00000ull << 8, ~(u64)3};
  for (unsigned i = 0; i < sizeof places / sizeof *places; ++i) {
    set_entry(device, busy(device), places[i], kSpare, 0);
    TRY(request_without_interrupt(device));
  }
  return NULL;
}

// The upper bits mean nothing, or ask for level or logical delivery.
static Outcome data(Device* device) {
  static const u32 values[] = {kSpare,          0xffff0000 | kSpare, 0x8000 | kSpare,
                               0xc000 | kSpare, 0x4000 | kSpare,     0xff0000 | kSpare};
  for (unsigned i = 0; i < sizeof values / sizeof *values; ++i) {
    set_entry(device, busy(device), 0xfee00000, values[i], 0);
    TRY(good_request(device));
  }
  return NULL;
}

// Vectors below 16 are illegal; nothing comes of them (Intel SDM vol. 3, 11.5.2).
static Outcome illegal_vectors(Device* device) {
  for (u32 vector = 0; vector < 16; vector += 5) {
    set_entry(device, busy(device), 0xfee00000, vector, 0);
    TRY(good_request(device));
  }
  return NULL;
}

static Outcome other_processors(Device* device) {
  for (u32 id = 1; id < 255; id += 50) {
    set_entry(device, busy(device), 0xfee00000 | (u64)id << 12, kSpare, 0);
    TRY(request_without_interrupt(device));
  }
  return NULL;
}

static Outcome masked_then_pending(Device* device) {
  const unsigned vector = vector_of(device, requests_of(device)->index);
  const u32 index = busy(device);
  write32(entry(device, index) + 12, 1);
  TRY(request_without_interrupt(device));
  REQUIRE((read32(device->pending) >> index & 1) == 1, "a masked interrupt does not become pending");
  const u64 before = interrupts[vector];
  write32(entry(device, index) + 12, 0);
  REQUIRE(WAIT_FOR(interrupts[vector] == before + 1), "a pending interrupt does not follow");
  REQUIRE((read32(device->pending) >> index & 1) == 0, "a pending bit stays");
  return expect_works(device);
}

static Outcome function_masked_then_pending(Device* device) {
  const unsigned vector = vector_of(device, requests_of(device)->index);
  control(device, kEnable | kFunctionMask);
  TRY(request_without_interrupt(device));
  const u64 before = interrupts[vector];
  control(device, kEnable);
  REQUIRE(WAIT_FOR(interrupts[vector] != before), "a pending interrupt does not follow");
  return expect_works(device);
}

static Outcome pending_dropped_by_disabling(Device* device) {
  control(device, kEnable | kFunctionMask);
  TRY(good_request(device));
  control(device, 0);
  REQUIRE(read32(device->pending) == 0, "pending bits outlive MSI-X");
  control(device, kEnable);
  return expect_works(device);
}

static Outcome pending_bits_written(Device* device) {
  for (u32 offset = 0; offset < 64; offset += 4) write32(device->pending + offset, 0xffffffff);
  REQUIRE(read32(device->pending) == 0, "the driver writes pending bits");
  return expect_works(device);
}

static Outcome behind_the_table(Device* device) {
  for (u32 i = 1; i < 8; ++i) set_entry(device, last(device) + i, 0xfee00000, 0x41, 0);
  return expect_works(device);
}

static Outcome all_the_same(Device* device) {
  const u32 data = kFirstVector + vector_of(device, requests_of(device)->index);
  for (u32 i = 0; i < device->vector_count; ++i) set_entry(device, i, 0xfee00000, data, 0);
  const u64 before = interrupts[vector_of(device, requests_of(device)->index)];
  TRY(good_request(device));
  REQUIRE(WAIT_FOR(interrupts[vector_of(device, requests_of(device)->index)] != before), "no interrupt");
  return NULL;
}

static Outcome switched_all_the_time(Device* device) {
  for (unsigned i = 0; i < 64; ++i) {
    control(device, i % 3 == 0 ? 0 : (u16)(kEnable | (i % 3 == 1 ? kFunctionMask : 0)));
    if (i % 8 == 0) TRY(good_request(device));
  }
  return NULL;
}

// An answer to what came before may still be under way.
static Outcome routes_churned(Device* device) {
  for (u32 i = 0; i < 200; ++i)
    set_entry(device, i % device->vector_count, 0xfee00000, kSpare - i % 8, i % 5 == 0);
  return NULL;
}

static Outcome without_msix(Device* device) {
  control(device, 0);
  pci_write16(device->slot, kPciCommand, kPciMemory | kPciBusMaster);
  Queue* queue = requests_of(device);
  (void)read8(device->isr);
  queue_offer(queue, make_chain(device, queue, 0));
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue->used[1] != queue->seen), "no answer without MSI-X");
  REQUIRE(WAIT_FOR((read8(device->isr) & 1) == 1), "the ISR does not tell");
  return expect_works(device);
}

static Outcome without_any_interrupt(Device* device) {
  control(device, 0);
  pci_write16(device->slot, kPciCommand, kPciMemory | kPciBusMaster | kPciIntxOff);
  return expect_works(device);
}

static Outcome reserved_control_bits(Device* device) {
  const u16 before = pci_read16(device->slot, (u16)(device->msix + 2));
  control(device, 0x3fff | kEnable);
  REQUIRE(pci_read16(device->slot, (u16)(device->msix + 2)) == before, "the table's size is written");
  return expect_works(device);
}

static Outcome enabled_without_entries(Device* device) {
  control(device, 0);
  for (u32 i = 0; i < device->vector_count; ++i) set_entry(device, i, 0, 0, 0);
  control(device, kEnable);
  return expect_works(device);
}

static const Case cases[] = {
    {"half_written", half_written},
    {"addresses", addresses},
    {"data", data},
    {"illegal_vectors", illegal_vectors},
    {"other_processors", other_processors},
    {"masked_then_pending", masked_then_pending},
    {"function_masked_then_pending", function_masked_then_pending},
    {"pending_dropped_by_disabling", pending_dropped_by_disabling},
    {"pending_bits_written", pending_bits_written},
    {"behind_the_table", behind_the_table},
    {"all_the_same", all_the_same},
    {"switched_all_the_time", switched_all_the_time},
    {"routes_churned", routes_churned},
    {"without_msix", without_msix},
    {"without_any_interrupt", without_any_interrupt},
    {"reserved_control_bits", reserved_control_bits},
    {"enabled_without_entries", enabled_without_entries},
};
const CaseSet msix_cases = CASE_SET("msix", EVERY_DEVICE, cases);
