// Accesses of every width and alignment to every page of registers.
#include "bars.h"

enum { kPage = 4096 };

static void read_any(u64 address, unsigned width) {
  switch (width) {
    case 1:
      (void)read8(address);
      break;
    case 2:
      (void)read16(address);
      break;
    case 4:
      (void)read32(address);
      break;
    default:
      (void)read64(address);
      break;
  }
}

static void write_any(u64 address, unsigned width, u64 value) {
  switch (width) {
    case 1:
      write8(address, (u8)value);
      break;
    case 2:
      write16(address, (u16)value);
      break;
    case 4:
      write32(address, (u32)value);
      break;
    default:
      write64(address, value);
      break;
  }
}

// The beginning of a page, where the registers are, and its last bytes, over which accesses lead into the
// next.
static bool of_interest(u32 offset) { return offset < 0x44 || offset >= kPage - 8; }

static Outcome read_page(Device* device, u32 page) {
  for (unsigned width = 1; width <= 8; width *= 2)
    for (u32 offset = 0; offset < kPage; ++offset)
      if (of_interest(offset)) read_any(device->bar + page * kPage + offset, width);
  return expect_lives(device);
}

static Outcome write_page(Device* device, u32 page) {
  static const u64 values[] = {0, ~(u64)0, 0x0101010101010101, 0x8000000080000001};
  for (unsigned width = 1; width <= 8; width *= 2)
    for (u32 offset = 0; offset < kPage; ++offset)
      if (of_interest(offset))
        write_any(device->bar + page * kPage + offset, width, values[(offset + width) % 4]);
  return expect_lives(device);
}

#define PAGE_CASES(number)                                                           \
  static Outcome read_##number(Device* device) { return read_page(device, number); } \
  static Outcome write_##number(Device* device) { return write_page(device, number); }
PAGE_CASES(0)
PAGE_CASES(1)
PAGE_CASES(2)
PAGE_CASES(3)
PAGE_CASES(4)
PAGE_CASES(5)
PAGE_CASES(6)
PAGE_CASES(7)

// Accesses over the edges of the BAR belong to nobody, or to the neighbour.
static Outcome edges(Device* device) {
  for (unsigned width = 2; width <= 8; width *= 2)
    for (u32 before = 1; before < width; ++before) {
      const u64 places[] = {device->bar - before, device->bar + kBarBytes - before};
      for (unsigned i = 0; i < 2; ++i) {
        write_any(places[i], width, ~(u64)0);
        read_any(places[i], width);
      }
    }
  return expect_works(device);
}

static Outcome doorbells_of_any_width(Device* device) {
  Queue* queue = requests_of(device);
  for (unsigned width = 1; width <= 8; width *= 2)
    for (u32 offset = 0; offset < 8; ++offset) write_any(queue->doorbell + offset, width, 0xffffffffffffffff);
  return expect_works(device);
}

static Outcome doorbells_of_no_queue(Device* device) {
  for (u32 offset = 0; offset < kPage; offset += 64) write32(device->notify + offset, offset);
  return expect_works(device);
}

static Outcome isr_written(Device* device) {
  for (unsigned i = 0; i < 4; ++i) write8(device->isr, 0xff);
  return expect_works(device);
}

static Outcome configuration_written(Device* device) {
  for (u32 offset = 0; offset < 256; offset += 4) write32(device->config + offset, 0xffffffff);
  for (u32 offset = 0; offset < 256; offset += 4) write32(device->config + offset, 0);
  return expect_lives(device);
}

static Outcome vectors_that_are_none(Device* device) {
  const u16 vectors[] = {device->vector_count, 0x100, 0x7fff, 0xfffe};
  write16(device->common + kQueueSelect, requests_of(device)->index);
  for (unsigned i = 0; i < 4; ++i) {
    write16(device->common + kConfigVector, vectors[i]);
    REQUIRE(read16(device->common + kConfigVector) == 0xffff, "a vector that is none is taken");
    write16(device->common + kQueueVector, vectors[i]);
    REQUIRE(read16(device->common + kQueueVector) == 0xffff, "a vector that is none is taken");
  }
  return expect_works(device);
}

static const Case cases[] = {
    {"read_common", read_0},
    {"write_common", write_0},
    {"read_isr", read_1},
    {"write_isr", write_1},
    {"read_device", read_2},
    {"write_device", write_2},
    {"read_notify", read_3},
    {"write_notify", write_3},
    {"read_msix_table", read_4},
    {"write_msix_table", write_4},
    {"read_behind_table", read_5},
    {"write_behind_table", write_5},
    {"read_pending", read_6},
    {"write_pending", write_6},
    {"read_last_page", read_7},
    {"write_last_page", write_7},
    {"edges", edges},
    {"doorbells_of_any_width", doorbells_of_any_width},
    {"doorbells_of_no_queue", doorbells_of_no_queue},
    {"isr_written", isr_written},
    {"configuration_written", configuration_written},
    {"vectors_that_are_none", vectors_that_are_none},
};
const CaseSet register_cases = CASE_SET("registers", EVERY_DEVICE, cases);
