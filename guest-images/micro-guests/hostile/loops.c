// What a monitor does much for, memory slots and doorbells there and gone, hundreds of times in a row.
// Whoever runs these looks at the monitor's memory, too.
#include "bars.h"

enum { kTimes = 200, kPage = 4096 };

// Ticks of the quickest of some reads.
static u64 ticks_of_read(u64 address) {
  u64 best = ~(u64)0;
  for (unsigned i = 0; i < 64; ++i) {
    const u64 start = now();
    (void)read8(address);
    const u64 took = now() - start;
    if (took < best) best = took;
  }
  return best;
}

// Works, and is read without an exit as before: a monitor that has lost memory slots cannot show the pages
// any more.
static Outcome expect_as_before(Device* device) {
  const u64 exit = ticks_of_read(device->notify);
  REQUIRE(ticks_of_read(device->common + kStatus) < exit / 4, "registers are no memory any more");
  REQUIRE(ticks_of_read(ecam(device->slot, 0)) < exit / 4, "configuration space is no memory any more");
  return expect_works(device);
}

// Does `step` again and again, which must not get slower: of the last the quickest is about as quick as of
// the first. A step may wait for the host's kernel, now some microseconds and now 10 ms.
static Outcome repeat(Device* device, Outcome (*step)(Device* device, unsigned i)) {
  u64 first = ~(u64)0, last = ~(u64)0;
  for (unsigned i = 0; i < kTimes; ++i) {
    const u64 start = now();
    TRY(step(device, i));
    const u64 took = now() - start;
    if (i < kTimes / 4 && took < first) first = took;
    if (i >= kTimes - kTimes / 4 && took < last) last = took;
    if (i % 32 == 0) TRY(good_request(device));
  }
  REQUIRE(last < 4 * first + 50 * ticks_khz(), "it takes longer and longer");
  return expect_as_before(device);
}

static Outcome open_and_close_window(Device* device, unsigned i) {
  (void)i;
  set_window(device, 0, (u32)(device->common - device->bar) + kQueueCount, 2);
  REQUIRE(read16(ecam(device->slot, window_data(device))) == device->queue_count,
          "the window shows something else");
  set_window(device, 0, 0, 0);
  return NULL;
}

static Outcome toggle_decoding(Device* device, unsigned i) {
  (void)i;
  set_command(device, kPciBusMaster);
  set_command(device, kPciMemory | kPciBusMaster);
  REQUIRE(is_here(device), "a device is gone");
  return NULL;
}

static Outcome toggle_bus_mastering(Device* device, unsigned i) {
  (void)i;
  set_command(device, kPciMemory);
  set_command(device, kPciMemory | kPciBusMaster);
  return NULL;
}

static Outcome move(Device* device, unsigned i) {
  const u64 old = device->common;
  move_to(device, i % 8 == 7 ? home_of(device) : FREE_PLACE + (u64)(i % 8) * kBarBytes);
  REQUIRE(read8(old + kStatus) == 0xff, "a device answers where it was");
  REQUIRE(is_here(device), "a device does not come to its new place");
  return NULL;
}

// Places that are RAM or somebody else's: nothing is moved there, or half of it.
static Outcome move_where_it_cannot_be(Device* device, unsigned i) {
  const u64 home = home_of(device);
  const u64 places[] = {0, 0x2000000, ECAM, 0xfee00000,
                        device->slot == 1 ? home + kBarBytes : home - kBarBytes};
  set_bar(device, places[i % (sizeof places / sizeof *places)]);
  set_bar(device, home);
  return NULL;
}

static Outcome do_all(Device* device, unsigned i) {
  set_window(device, 0, i % 64 * 4, 4);
  (void)pci_read32(device->slot, window_data(device));
  set_command(device, i % 2 == 0 ? kPciBusMaster : 0);
  move_to(device, i % 8 == 7 ? home_of(device) : FREE_PLACE + (u64)(i % 8) * kBarBytes);
  set_command(device, kPciMemory | kPciBusMaster);
  set_window(device, 0, 0, 0);
  REQUIRE(is_here(device), "a device is gone");
  return NULL;
}

static Outcome window_opened_and_closed(Device* device) { return repeat(device, open_and_close_window); }
static Outcome decoding_toggled(Device* device) { return repeat(device, toggle_decoding); }
static Outcome bus_mastering_toggled(Device* device) { return repeat(device, toggle_bus_mastering); }
static Outcome moved(Device* device) { return repeat(device, move); }
static Outcome moved_where_it_cannot_be(Device* device) { return repeat(device, move_where_it_cannot_be); }
static Outcome all_of_it(Device* device) { return repeat(device, do_all); }

// Every byte of the pages that the guest reads as memory: registers, MSI-X table, configuration space.
static Outcome pages_written_all_over(Device* device) {
  const u64 pages[] = {device->bar, device->table & ~(u64)(kPage - 1), ecam(device->slot, 0), ecam(0, 0)};
  const u32 id = pci_read32(device->slot, 0);
  for (unsigned p = 0; p < sizeof pages / sizeof *pages; ++p)
    for (u32 offset = 0; offset < kPage; offset += 8) {
      write8(pages[p] + offset + 1, 0);
      write64(pages[p] + offset, (u64)offset << 32 | ~offset);
    }
  set_window(device, 0, 0, 0);
  set_command(device, kPciMemory | kPciBusMaster);
  move_to(device, home_of(device));
  REQUIRE(read32(ecam(device->slot, 0)) == id, "the id is written");
  TRY(start(device, DEFAULT_FEATURES));
  return expect_as_before(device);
}

static const Case cases[] = {
    {"window_opened_and_closed", window_opened_and_closed}, {"decoding_toggled", decoding_toggled},
    {"bus_mastering_toggled", bus_mastering_toggled},       {"moved", moved},
    {"moved_where_it_cannot_be", moved_where_it_cannot_be}, {"all_of_it", all_of_it},
    {"pages_written_all_over", pages_written_all_over},
};
// Of one device, since it is the transport that is at work.
const CaseSet loop_cases = CASE_SET("loop", kBlock, cases);
