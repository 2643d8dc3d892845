// Pages that cannot be given, and reports and statistics that say nothing (virtio 1.2, 5.5.6).
#include "hostile.h"

enum { kInflate = 0, kDeflate = 1, kStats = 2, kReport = 4 };
enum { kTarget = 0, kActual = 4, kPoison = 12 };
enum { kPage = 4096, kPagePoison = 4 };
// RAM that nothing lies in.
#define FREE ((u64)0x20000000)

// Offers what is in descriptor 0 and waits until it comes back.
static Outcome send(Device* device, u16 index) {
  Queue* queue = &device->queues[index];
  UsedElement used;
  queue_offer(queue, 0);
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "a buffer does not come back from the device");
  REQUIRE(used.length == 0, "the device says that it has written into it");
  return expect_works(device);
}

// --- lists of pages --------------------------------------------------------------------------------------

static Outcome list(Device* device, u16 index, u32 bytes, u16 flags) {
  set_descriptor(&device->queues[index], 0, address_of(scratch), bytes, flags, 0);
  return send(device, index);
}

static Outcome list_of(Device* device, u16 index, u32 first, u32 step, u32 count) {
  for (u32 i = 0; i < count; ++i) ((u32*)scratch)[i] = first + i * step;
  return list(device, index, 4 * count, 0);
}

static Outcome list_of_3_bytes(Device* device) { return list(device, kInflate, 3, 0); }
static Outcome list_of_4095_bytes(Device* device) {
  TRY(list_of(device, kInflate, FREE / kPage, 1, 1024));
  return list(device, kInflate, 4095, 0);
}
static Outcome writable_list(Device* device) { return list(device, kInflate, 4096, kWrite); }
static Outcome longest_list(Device* device) {
  return list_of(device, kInflate, FREE / kPage, 1, kScratchBytes / 4);
}
static Outcome list_of_2_gib(Device* device) {
  TRY(list_of(device, kInflate, FREE / kPage, 1, 1));
  set_descriptor(&device->queues[kInflate], 0, FREE, 0x80000000, 0, 0);
  queue_offer(&device->queues[kInflate], 0);
  queue_ring(&device->queues[kInflate]);
  // Page 0, half a milliard times: nobody waits for the end of it.
  REQUIRE(virtio_reset(device), "a reset with a list under way is never done");
  return NULL;
}
static Outcome same_page_again_and_again(Device* device) {
  return list_of(device, kInflate, FREE / kPage, 0, 10000);
}
static Outcome every_other_page(Device* device) { return list_of(device, kInflate, FREE / kPage, 2, 20000); }
static Outcome backwards(Device* device) {
  return list_of(device, kInflate, FREE / kPage + 20000, 0xffffffff, 20000);
}
static Outcome pages_in_hole(Device* device) {
  return list_of(device, kInflate, (u32)(option("low_end", 0) / kPage), 1, 4096);
}
static Outcome pages_around_hole(Device* device) {
  return list_of(device, kInflate, (u32)(option("low_end", 0) / kPage) - 100, 1, 200);
}
static Outcome pages_behind_ram(Device* device) {
  return list_of(device, kInflate, (u32)(option("high_end", 0) / kPage) - 100, 1, 200);
}
static Outcome last_page_numbers(Device* device) { return list_of(device, kInflate, 0xffffff00, 1, 256); }
static Outcome own_registers(Device* device) {
  return list_of(device, kInflate, (u32)(device->bar / kPage), 1, 8);
}
static Outcome the_list_itself(Device* device) {
  for (unsigned i = 0; i < 1024; ++i) ((u32*)scratch)[i] = (u32)(address_of(scratch) / kPage);
  return list(device, kInflate, 4096, 0);
}

// The ring's own pages are gone, and with them all that the driver had offered.
static Outcome the_ring_itself(Device* device) {
  Queue* queue = &device->queues[kInflate];
  ((u32*)scratch)[0] = (u32)(address_of(queue->descriptors) / kPage);
  ((u32*)scratch)[1] = (u32)(address_of(queue->available) / kPage);
  ((u32*)scratch)[2] = (u32)(address_of(queue->used) / kPage);
  set_descriptor(queue, 0, address_of(scratch), 12, 0, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  return expect_lives(device);
}

static Outcome in_pieces_of_1_byte(Device* device) {
  Queue* queue = &device->queues[kInflate];
  for (u32 i = 0; i < 16; ++i) ((u32*)scratch)[i] = FREE / kPage + i;
  for (u16 i = 0; i < 60; ++i)
    set_descriptor(queue, i, address_of(scratch) + i, 1, i < 59 ? kNext : 0, (u16)(i + 1));
  return send(device, kInflate);
}

static Outcome deflated_but_never_given(Device* device) {
  return list_of(device, kDeflate, FREE / kPage + 5000, 1, 5000);
}
static Outcome nonsense_deflated(Device* device) {
  memset(scratch, 0xff, 8192);
  return list(device, kDeflate, 8192, 0);
}
static Outcome writable_deflated(Device* device) { return list(device, kDeflate, 4096, kWrite); }
static Outcome two_gib_deflated(Device* device) {
  set_descriptor(&device->queues[kDeflate], 0, FREE, 0x80000000, 0, 0);
  return send(device, kDeflate);
}

// --- reports ---------------------------------------------------------------------------------------------

static Outcome report(Device* device, u64 address, u32 length, u16 flags) {
  set_descriptor(&device->queues[kReport], 0, address, length, flags, 0);
  return send(device, kReport);
}

static Outcome report_readable(Device* device) {
  volatile u64* page = (volatile u64*)(FREE + 16 * kPage);
  *page = 77;
  TRY(report(device, address_of(page), kPage, 0));
  REQUIRE(*page == 77, "what was not offered for writing is gone");
  return NULL;
}
static Outcome report_of_1_byte(Device* device) {
  volatile u64* page = (volatile u64*)(FREE + 16 * kPage);
  *page = 77;
  TRY(report(device, address_of(page), 1, kWrite));
  TRY(report(device, address_of(page) - 1, kPage, kWrite));
  REQUIRE(*page == 77, "a page that was reported in part is gone");
  return NULL;
}
static Outcome report_of_2_gib(Device* device) { return report(device, FREE, 0x80000000, kWrite); }
static Outcome report_of_hole(Device* device) {
  set_descriptor(&device->queues[kReport], 0, option("low_end", 0), kPage, kWrite, 0);
  queue_offer(&device->queues[kReport], 0);
  queue_ring(&device->queues[kReport]);
  return expect_needs_reset(device);
}
static Outcome report_of_end_of_ram(Device* device) {
  return report(device, option("high_end", 0) - kPage, kPage, kWrite);
}
static Outcome report_in_pieces(Device* device) {
  Queue* queue = &device->queues[kReport];
  for (u16 i = 0; i < 60; ++i)
    set_descriptor(queue, i, FREE + 1024 * (u64)i, 1024, kWrite | (i < 59 ? kNext : 0), (u16)(i + 1));
  return send(device, kReport);
}

static Outcome reports_not_negotiated(Device* device) {
  pool_release(0);
  TRY(start(device, DEFAULT_FEATURES & ~FEATURE(5)));
  set_descriptor(&device->queues[kReport], 0, FREE, kPage, kWrite, 0);
  queue_offer(&device->queues[kReport], 0);
  queue_ring(&device->queues[kReport]);
  return expect_works(device);
}

// 5.5.6.7: a pattern that the driver relies on is not to be lost.
static Outcome report_of_poisoned_page(Device* device) {
  volatile u64* page = (volatile u64*)(FREE + 16 * kPage);
  if ((device->features & FEATURE(kPagePoison)) == 0) return NULL;
  write32(device->config + kPoison, 0xaaaaaaaa);
  *page = 77;
  TRY(report(device, address_of(page), kPage, kWrite));
  REQUIRE(*page == 77, "a poisoned page is gone");
  write32(device->config + kPoison, 0);
  TRY(report(device, address_of(page), kPage, kWrite));
  REQUIRE(*page == 0, "a page that was reported stays");
  return NULL;
}

// --- statistics and configuration ------------------------------------------------------------------------

// The device keeps the last buffer, and gives back each that another replaces.
static Outcome statistics(Device* device, u32 bytes, u16 flags) {
  Queue* queue = &device->queues[kStats];
  UsedElement used;
  for (u16 i = 0; i < 2; ++i) {
    set_descriptor(queue, i, address_of(scratch), bytes, flags, 0);
    queue_offer(queue, i);
  }
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "statistics that others replace do not come back");
  return expect_works(device);
}

static Outcome statistics_of_5_bytes(Device* device) { return statistics(device, 5, 0); }
static Outcome statistics_writable(Device* device) { return statistics(device, 100, kWrite); }
static Outcome statistics_of_ones(Device* device) {
  memset(scratch, 0xff, kScratchBytes);
  return statistics(device, kScratchBytes, 0);
}
static Outcome one_statistic_again_and_again(Device* device) {
  memset(scratch, 0, kScratchBytes);
  return statistics(device, kScratchBytes, 0);
}

static Outcome ring_full_of_statistics(Device* device) {
  Queue* queue = &device->queues[kStats];
  set_descriptor(queue, 0, address_of(scratch), 100, 0, 0);
  for (unsigned round = 0; round < 20; ++round) {
    const u16 wanted = (u16)(queue->offered + queue->size - 1);
    while (queue->offered != wanted) queue_offer(queue, 0);
    queue_ring(queue);
    REQUIRE(WAIT_FOR(queue->used[1] == (u16)(queue->offered - 1)), "statistics do not come back");
  }
  return expect_works(device);
}

static Outcome statistics_broken(Device* device) {
  *available_index(&device->queues[kStats]) = 0x4000;
  queue_ring(&device->queues[kStats]);
  return expect_needs_reset(device);
}

static Outcome sizes_that_cannot_be(Device* device) {
  static const u32 sizes[] = {1, 0x7fffffff, 0xffffffff, 0x100000, 0};
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    write32(device->config + kActual, sizes[i]);
    REQUIRE(read32(device->config + kActual) == sizes[i], "the size is not what the driver says");
    TRY(good_request(device));
  }
  return expect_works(device);
}

static Outcome target_written(Device* device) {
  const u32 before = read32(device->config + kTarget);
  write32(device->config + kTarget, 0x1234567);
  write16(device->config + kTarget, 0x1234);
  write8(device->config + kTarget + 3, 0x12);
  REQUIRE(read32(device->config + kTarget) == before, "the driver sets the target");
  return expect_works(device);
}

static Outcome half_a_size(Device* device) {
  for (u32 i = 0; i < 16; ++i) {
    write8(device->config + i, 0xff);
    if (i % 2 == 0) write16(device->config + i, 0xffff);
  }
  for (u32 i = 1; i < 40; i += 3) write32(device->config + i, 0xffffffff);
  return expect_works(device);
}

static const Case cases[] = {
    {"list_of_3_bytes", list_of_3_bytes},
    {"list_of_4095_bytes", list_of_4095_bytes},
    {"writable_list", writable_list},
    {"longest_list", longest_list},
    {"list_of_2_gib", list_of_2_gib},
    {"same_page_again_and_again", same_page_again_and_again},
    {"every_other_page", every_other_page},
    {"backwards", backwards},
    {"pages_in_hole", pages_in_hole},
    {"pages_around_hole", pages_around_hole},
    {"pages_behind_ram", pages_behind_ram},
    {"last_page_numbers", last_page_numbers},
    {"own_registers", own_registers},
    {"the_list_itself", the_list_itself},
    {"the_ring_itself", the_ring_itself},
    {"in_pieces_of_1_byte", in_pieces_of_1_byte},
    {"deflated_but_never_given", deflated_but_never_given},
    {"nonsense_deflated", nonsense_deflated},
    {"writable_deflated", writable_deflated},
    {"two_gib_deflated", two_gib_deflated},
    {"report_readable", report_readable},
    {"report_of_1_byte", report_of_1_byte},
    {"report_of_2_gib", report_of_2_gib},
    {"report_of_hole", report_of_hole},
    {"report_of_end_of_ram", report_of_end_of_ram},
    {"report_in_pieces", report_in_pieces},
    {"reports_not_negotiated", reports_not_negotiated},
    {"report_of_poisoned_page", report_of_poisoned_page},
    {"statistics_of_5_bytes", statistics_of_5_bytes},
    {"statistics_writable", statistics_writable},
    {"statistics_of_ones", statistics_of_ones},
    {"one_statistic_again_and_again", one_statistic_again_and_again},
    {"ring_full_of_statistics", ring_full_of_statistics},
    {"statistics_broken", statistics_broken},
    {"sizes_that_cannot_be", sizes_that_cannot_be},
    {"target_written", target_written},
    {"half_a_size", half_a_size},
};
const CaseSet balloon_cases = CASE_SET("page", kBalloon, cases);
