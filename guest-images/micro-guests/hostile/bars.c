// BARs that are moved, sized, overlapped and switched off while the device is live.
#include "bars.h"

static void go_home(Device* device) { move_to(device, home_of(device)); }

static Outcome moved(Device* device) {
  const u64 old = device->common;
  move_to(device, FREE_PLACE);
  REQUIRE(read8(old + kStatus) == 0xff, "a device answers where it was");
  TRY(good_request(device));
  go_home(device);
  return expect_works(device);
}

static Outcome moved_all_the_time(Device* device) {
  for (unsigned i = 0; i < 24; ++i) {
    move_to(device, FREE_PLACE + (u64)i * kBarBytes);
    if (i % 4 == 0) TRY(good_request(device));
  }
  go_home(device);
  return expect_works(device);
}

static Outcome moved_with_requests_under_way(Device* device) {
  Queue* queue = requests_of(device);
  fill_ring(device, queue);
  move_to(device, FREE_PLACE);
  const u16 wanted = queue->offered;
  REQUIRE(WAIT_FOR(queue->used[1] == wanted), "requests under way are lost when the BAR moves");
  queue->seen = wanted;
  return expect_works(device);
}

static Outcome sized(Device* device) {
  set_bar(device, 0xffffffff);
  REQUIRE(pci_read32(device->slot, kPciBar0) == 0xffff8000, "the BAR has another size");
  go_home(device);
  return expect_works(device);
}

static Outcome sized_with_decoding_off(Device* device) {
  set_command(device, kPciBusMaster);
  set_bar(device, 0xffffffff);
  set_bar(device, home_of(device));
  set_command(device, kPciMemory | kPciBusMaster);
  return expect_works(device);
}

static Outcome written_byte_by_byte(Device* device) {
  for (unsigned i = 0; i < 4; ++i) pci_write8(device->slot, (u16)(kPciBar0 + i), (u8)(FREE_PLACE >> (8 * i)));
  use_bar_at(device, FREE_PLACE);
  TRY(good_request(device));
  go_home(device);
  return expect_works(device);
}

// Somewhere where somebody else is: he stays there, and the device comes back when it moves away.
static Outcome over(Device* device, u64 address) {
  set_bar(device, address);
  (void)read32(address);
  set_bar(device, home_of(device));
  return expect_works(device);
}

static Outcome over_ram(Device* device) {
  volatile u32* word = (volatile u32*)(uintptr_t)(0x2000000 + 0x14);
  *word = 0x12345678;
  set_bar(device, 0x2000000);
  REQUIRE(*word == 0x12345678, "a BAR hides RAM");
  *word = 0;
  set_bar(device, home_of(device));
  return expect_works(device);
}

static Outcome over_address_0(Device* device) { return over(device, 0); }
static Outcome over_local_apic(Device* device) { return over(device, 0xfee00000); }
static Outcome over_io_apic(Device* device) { return over(device, 0xfec00000); }
static Outcome over_kvm_pages(Device* device) { return over(device, 0xfffb8000); }
static Outcome over_top(Device* device) { return over(device, 0xffff8000); }
static Outcome over_end_of_ram(Device* device) { return over(device, option("low_end", 0) - 0x8000); }

static Outcome over_configuration_space(Device* device) {
  set_bar(device, ECAM);
  REQUIRE(read32(ecam(0, 0)) == 0x00081b36, "a BAR hides configuration space");
  set_bar(device, home_of(device));
  return expect_works(device);
}

static u8 neighbour_of(const Device* device) { return device->slot == 1 ? 2 : 1; }

static Outcome over_neighbour(Device* device) {
  const u64 theirs = pci_bar(neighbour_of(device), 0);
  const u16 queues = read16(theirs + kQueueCount);
  set_bar(device, theirs);
  REQUIRE(read16(theirs + kQueueCount) == queues, "a device takes its neighbour's place");
  set_bar(device, home_of(device));
  return expect_works(device);
}

// The neighbour moves away and back while this one covers its place.
static Outcome places_swapped(Device* device) {
  const u8 neighbour = neighbour_of(device);
  const u64 theirs = pci_bar(neighbour, 0);
  set_bar(device, theirs);
  pci_write32(neighbour, kPciBar0, (u32)home_of(device));
  use_bar_at(device, theirs);
  TRY(good_request(device));
  pci_write32(neighbour, kPciBar0, (u32)FREE_PLACE);
  set_bar(device, home_of(device));
  pci_write32(neighbour, kPciBar0, (u32)theirs);
  use_bar_at(device, home_of(device));
  REQUIRE(read16(theirs + kQueueCount) != 0xffff, "the neighbour is gone");
  return expect_works(device);
}

static Outcome decoding_off(Device* device) {
  set_command(device, kPciBusMaster);
  for (unsigned i = 0; i < 16; ++i) {
    (void)read32(device->common + 4 * i);
    write32(device->notify, 0);
  }
  set_command(device, kPciMemory | kPciBusMaster);
  REQUIRE(is_here(device), "a device is gone");
  return expect_works(device);
}

static Outcome decoding_off_with_requests_under_way(Device* device) {
  Queue* queue = requests_of(device);
  fill_ring(device, queue);
  set_command(device, 0);
  set_command(device, kPciMemory | kPciBusMaster);
  REQUIRE(WAIT_FOR(queue->used[1] == queue->offered), "requests under way are lost");
  queue->seen = queue->used[1];
  return expect_works(device);
}

static Outcome moved_with_decoding_off(Device* device) {
  set_command(device, 0);
  move_to(device, FREE_PLACE);
  set_command(device, kPciMemory | kPciBusMaster);
  REQUIRE(is_here(device), "a device does not come to its new place");
  TRY(good_request(device));
  go_home(device);
  return NULL;
}

static Outcome other_bars_written(Device* device) {
  for (u16 at = kPciBar0 + 4; at < kPciBar0 + 24; at += 4) {
    pci_write32(device->slot, at, 0xffffffff);
    REQUIRE(pci_read32(device->slot, at) == 0, "a BAR where there is none");
  }
  pci_write32(device->slot, 0x30, 0xffffffff);
  REQUIRE(pci_read32(device->slot, 0x30) == 0, "a ROM where there is none");
  return expect_works(device);
}

// The window in configuration space, over every edge.
static Outcome window_anywhere(Device* device) {
  static const u32 offsets[] = {0,      1,      2,      3,      0x14,   0x3b,       0xfff,     0x1000,
                                0x4001, 0x7ffc, 0x7ffd, 0x7fff, 0x8000, 0xfffffffc, 0xffffffff};
  static const u32 lengths[] = {0, 1, 2, 3, 4, 5, 8, 0x8000, 0xffffffff};
  static const u8 bars[] = {0, 1, 5, 6, 255};
  const u16 data = window_data(device);
  for (unsigned o = 0; o < sizeof offsets / sizeof *offsets; ++o)
    for (unsigned l = 0; l < sizeof lengths / sizeof *lengths; ++l) {
      set_window(device, bars[(o + l) % sizeof bars], offsets[o], lengths[l]);
      (void)pci_read32(device->slot, data);
      (void)pci_read8(device->slot, (u16)(data + 3));
      (void)pci_read16(device->slot, (u16)(data + 1));
      set_window(device, 0, offsets[o], lengths[l]);
      (void)pci_read32(device->slot, data);
      pci_write32(device->slot, data, 0xffffffff);
      pci_write8(device->slot, (u16)(data + 2), 0);
    }
  return expect_lives(device);
}

static Outcome window_resets(Device* device) {
  set_window(device, 0, (u32)(device->common - device->bar) + kStatus, 1);
  pci_write8(device->slot, window_data(device), 0);
  set_window(device, 0, 0, 0);
  REQUIRE(WAIT_FOR(virtio_status(device) == 0), "a reset through the window is never done");
  return NULL;
}

static const Case cases[] = {
    {"moved", moved},
    {"moved_all_the_time", moved_all_the_time},
    {"moved_with_requests_under_way", moved_with_requests_under_way},
    {"moved_with_decoding_off", moved_with_decoding_off},
    {"sized", sized},
    {"sized_with_decoding_off", sized_with_decoding_off},
    {"written_byte_by_byte", written_byte_by_byte},
    {"over_ram", over_ram},
    {"over_end_of_ram", over_end_of_ram},
    {"over_address_0", over_address_0},
    {"over_local_apic", over_local_apic},
    {"over_io_apic", over_io_apic},
    {"over_kvm_pages", over_kvm_pages},
    {"over_top", over_top},
    {"over_configuration_space", over_configuration_space},
    {"over_neighbour", over_neighbour},
    {"places_swapped", places_swapped},
    {"decoding_off", decoding_off},
    {"decoding_off_with_requests_under_way", decoding_off_with_requests_under_way},
    {"other_bars_written", other_bars_written},
    {"window_anywhere", window_anywhere},
    {"window_resets", window_resets},
};
const CaseSet bar_cases = CASE_SET("bar", EVERY_DEVICE, cases);
