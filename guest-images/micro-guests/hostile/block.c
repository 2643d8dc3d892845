// Disk requests that cannot be (virtio 1.2, 5.2.6).
#include "hostile.h"

enum { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13 };
enum { kOk = 0, kIoError = 1, kUnsupported = 2, kNoAnswer = 0xff };

static struct {
  u32 type, reserved;
  u64 sector;
} header;
static struct {
  u64 sector;
  u32 count, flags;
} segments[4];
static volatile u8 status;

static u64 capacity(Device* device) { return read64(device->config); }

// A request's header, in descriptor 0, which leads to 1.
static void begin(Queue* queue, u32 type, u64 sector) {
  header.type = type;
  header.sector = sector;
  status = kNoAnswer;
  set_descriptor(queue, 0, address_of(&header), sizeof header, kNext, 1);
}

static void end_with_status(Queue* queue, u16 index) {
  set_descriptor(queue, index, address_of(&status), 1, kWrite, 0);
}

// The status of the request that begins with descriptor 0; kNoAnswer when none comes.
static u8 answer_to(Queue* queue) {
  UsedElement used;
  queue_offer(queue, 0);
  queue_ring(queue);
  return WAIT_FOR(queue_take(queue, &used)) ? status : kNoAnswer;
}

// The same of a request with `length` bytes of data.
static u8 request(Device* device, u32 type, u64 sector, u64 data, u32 length, bool writable) {
  Queue* queue = &device->queues[0];
  begin(queue, type, sector);
  if (length != 0) set_descriptor(queue, 1, data, length, (u16)(kNext | (writable ? kWrite : 0)), 2);
  end_with_status(queue, length == 0 ? 1 : 2);
  return answer_to(queue);
}

static Outcome answers(Device* device, u8 wanted, u32 type, u64 sector, u32 length, bool writable) {
  const u8 answer = request(device, type, sector, address_of(scratch), length, writable);
  REQUIRE(answer != kNoAnswer, "no answer");
  REQUIRE(answer == wanted, "another status than it should be");
  return expect_works(device);
}

static Outcome read_behind_end(Device* device) {
  return answers(device, kIoError, kIn, capacity(device), 512, true);
}
static Outcome write_behind_end(Device* device) {
  return answers(device, kIoError, kOut, capacity(device), 512, false);
}
static Outcome read_over_end(Device* device) {
  return answers(device, kIoError, kIn, capacity(device) - 1, 1024, true);
}
static Outcome write_over_end(Device* device) {
  return answers(device, kIoError, kOut, capacity(device) - 1, 1024, false);
}
static Outcome last_sector(Device* device) {
  return answers(device, kOk, kIn, capacity(device) - 1, 512, true);
}
static Outcome sector_wraps(Device* device) { return answers(device, kIoError, kIn, ~(u64)0, 1024, true); }
static Outcome bytes_wrap(Device* device) { return answers(device, kIoError, kIn, (u64)1 << 55, 512, true); }
static Outcome bytes_wrap_to_0(Device* device) {
  return answers(device, kIoError, kOut, (~(u64)0 >> 9) + 1, 512, false);
}
static Outcome sign_bit(Device* device) { return answers(device, kIoError, kOut, (u64)1 << 54, 512, false); }
static Outcome no_data(Device* device) { return answers(device, kIoError, kIn, 0, 0, true); }
static Outcome nothing_to_write(Device* device) { return answers(device, kIoError, kOut, 0, 0, true); }
static Outcome odd_length(Device* device) { return answers(device, kIoError, kIn, 0, 511, true); }
static Outcome one_byte_more(Device* device) { return answers(device, kIoError, kOut, 0, 513, false); }
static Outcome read_into_readable(Device* device) { return answers(device, kIoError, kIn, 0, 512, false); }
static Outcome write_from_writable(Device* device) { return answers(device, kIoError, kOut, 0, 512, true); }
static Outcome flush_with_data(Device* device) { return answers(device, kOk, kFlush, ~(u64)0, 512, false); }

static Outcome unknown_types(Device* device) {
  static const u32 types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 0x7fffffff, 0x80000000, 0xffffffff};
  for (unsigned i = 0; i < sizeof types / sizeof *types; ++i)
    TRY(answers(device, kUnsupported, types[i], 0, 512, i % 2 == 0));
  return NULL;
}

static Outcome id_of_any_length(Device* device) {
  static const u32 lengths[] = {0, 1, 19, 20, 21, 4096};
  for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; ++i)
    TRY(answers(device, kOk, kGetId, 0, lengths[i], true));
  return NULL;
}

// --- ranges ----------------------------------------------------------------------------------------------

static Outcome range(Device* device, u32 type, u64 sector, u32 count, u32 flags, u32 length) {
  if ((device->features & FEATURE(13)) == 0) return NULL;
  segments[0].sector = sector;
  segments[0].count = count;
  segments[0].flags = flags;
  segments[1] = segments[0];
  const u8 answer = request(device, type, 0, address_of(segments), length, false);
  REQUIRE(answer != kNoAnswer, "no answer");
  REQUIRE(answer != kOk, "a range that cannot be is taken");
  return expect_works(device);
}

static Outcome discard_behind_end(Device* device) {
  return range(device, kDiscard, capacity(device), 8, 0, 16);
}
static Outcome discard_over_end(Device* device) {
  return range(device, kDiscard, capacity(device) - 4, 8, 0, 16);
}
static Outcome discard_wraps(Device* device) { return range(device, kDiscard, ~(u64)0, 8, 0, 16); }
static Outcome discard_4g_sectors(Device* device) { return range(device, kDiscard, 0, 0xffffffff, 0, 16); }
static Outcome discard_nothing(Device* device) { return range(device, kDiscard, 0, 0, 0, 16); }
static Outcome discard_flags(Device* device) { return range(device, kDiscard, 0, 8, 1, 16); }
static Outcome discard_unknown_flags(Device* device) { return range(device, kDiscard, 0, 8, 0xfffffffe, 16); }
static Outcome discard_half_a_segment(Device* device) { return range(device, kDiscard, 0, 8, 0, 8); }
static Outcome discard_two_segments(Device* device) { return range(device, kDiscard, 0, 8, 0, 32); }
static Outcome zeroes_behind_end(Device* device) {
  return range(device, kWriteZeroes, capacity(device), 8, 0, 16);
}
static Outcome zeroes_wrap(Device* device) { return range(device, kWriteZeroes, ~(u64)0 - 3, 8, 0, 16); }
static Outcome zeroes_unknown_flags(Device* device) { return range(device, kWriteZeroes, 0, 8, 2, 16); }
static Outcome zeroes_without_segment(Device* device) { return range(device, kWriteZeroes, 0, 8, 0, 0); }

// --- shapes ----------------------------------------------------------------------------------------------

static Outcome header_short(Device* device) {
  Queue* queue = &device->queues[0];
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[0].length = 15;
  return submit_broken(device, head);
}

static Outcome status_missing(Device* device) {
  Queue* queue = &device->queues[0];
  set_descriptor(queue, 0, address_of(&header), 16, 0, 0);
  return submit_broken(device, 0);
}

static Outcome status_readable(Device* device) {
  Queue* queue = &device->queues[0];
  begin(queue, kIn, 0);
  set_descriptor(queue, 1, address_of(&status), 1, 0, 0);
  return submit_broken(device, 0);
}

static Outcome nothing_but_status(Device* device) {
  set_descriptor(&device->queues[0], 0, address_of(&status), 1, kWrite, 0);
  return submit_broken(device, 0);
}

// 2.7.4.1: the driver may cut a request as it likes.
static Outcome header_byte_by_byte(Device* device) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  begin(queue, kIn, 0);
  for (u16 i = 0; i < 16; ++i) set_descriptor(queue, i, address_of(&header) + i, 1, kNext, (u16)(i + 1));
  // Data and status in one piece.
  set_descriptor(queue, 16, address_of(scratch), 513, kWrite, 0);
  scratch[512] = kNoAnswer;
  queue_offer(queue, 0);
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "no answer");
  REQUIRE(*(volatile u8*)&scratch[512] == kOk && used.length == 513, "a header in pieces is not understood");
  return expect_works(device);
}

// `count` pieces of data, each behind the one before or in the same place, and what must come of it.
static Outcome in_pieces(Device* device, u32 type, u16 count, u64 at, u64 step, u32 length, u8 wanted) {
  Queue* queue = &device->queues[0];
  begin(queue, type, 0);
  for (u16 i = 1; i <= count; ++i)
    set_descriptor(queue, i, at + step * i, length, (u16)(kNext | (type == kIn ? kWrite : 0)), (u16)(i + 1));
  end_with_status(queue, (u16)(count + 1));
  const u8 answer = answer_to(queue);
  REQUIRE(answer != kNoAnswer, "no answer");
  REQUIRE(answer == wanted, "another status than it should be");
  return expect_works(device);
}
// 200 bytes: not whole sectors.
static Outcome data_byte_by_byte(Device* device) {
  return in_pieces(device, kIn, 200, address_of(scratch), 1, 1, kIoError);
}
// The most that a queue of 256 holds.
static Outcome as_long_as_the_queue(Device* device) {
  return in_pieces(device, kIn, 254, address_of(scratch), 0, 4096, kOk);
}
// 16 GiB: more than a request may move.
static Outcome more_than_4_gib(Device* device) {
  return in_pieces(device, kOut, 8, 0, 0, 0x80000000, kIoError);
}

static Outcome read_over(Device* device, const volatile void* at) {
  Queue* queue = &device->queues[0];
  for (u64 sector = 0; sector < 32; ++sector) {
    begin(queue, kIn, sector);
    set_descriptor(queue, 1, address_of(at) & ~(u64)511, 512, kNext | kWrite, 2);
    end_with_status(queue, 2);
    queue_offer(queue, 0);
    queue_ring(queue);
  }
  return expect_lives(device);
}
static Outcome read_over_header(Device* device) { return read_over(device, &header); }
static Outcome read_over_status(Device* device) { return read_over(device, &status); }
static Outcome read_over_used_ring(Device* device) { return read_over(device, device->queues[0].used); }

static Outcome status_in_used_ring(Device* device) {
  Queue* queue = &device->queues[0];
  const u16 head = make_chain(device, queue, 0);
  queue->descriptors[2].address = address_of(queue->used) + 2;
  return submit_lives(device, head);
}

static Outcome reset_with_many(Device* device, unsigned rounds) {
  Queue* queue = &device->queues[0];
  for (unsigned i = 0; i < rounds; ++i) {
    for (unsigned k = 0; k < 64; ++k) queue_offer(queue, 0);
    queue_ring(queue);
  }
  REQUIRE(virtio_reset(device), "a reset with requests under way is never done");
  return NULL;
}

static Outcome writes_under_way_and_reset(Device* device) {
  Queue* queue = &device->queues[0];
  begin(queue, kOut, 1024);
  set_descriptor(queue, 1, address_of(scratch), kScratchBytes, kNext, 2);
  end_with_status(queue, 2);
  return reset_with_many(device, 4);
}

static Outcome flushes_under_way_and_reset(Device* device) {
  begin(&device->queues[0], kFlush, 0);
  end_with_status(&device->queues[0], 1);
  return reset_with_many(device, 1);
}

static const Case cases[] = {
    {"read_behind_end", read_behind_end},
    {"write_behind_end", write_behind_end},
    {"read_over_end", read_over_end},
    {"write_over_end", write_over_end},
    {"last_sector", last_sector},
    {"sector_wraps", sector_wraps},
    {"bytes_wrap", bytes_wrap},
    {"bytes_wrap_to_0", bytes_wrap_to_0},
    {"sign_bit", sign_bit},
    {"no_data", no_data},
    {"nothing_to_write", nothing_to_write},
    {"odd_length", odd_length},
    {"one_byte_more", one_byte_more},
    {"read_into_readable", read_into_readable},
    {"write_from_writable", write_from_writable},
    {"flush_with_data", flush_with_data},
    {"unknown_types", unknown_types},
    {"id_of_any_length", id_of_any_length},
    {"discard_behind_end", discard_behind_end},
    {"discard_over_end", discard_over_end},
    {"discard_wraps", discard_wraps},
    {"discard_4g_sectors", discard_4g_sectors},
    {"discard_nothing", discard_nothing},
    {"discard_flags", discard_flags},
    {"discard_unknown_flags", discard_unknown_flags},
    {"discard_half_a_segment", discard_half_a_segment},
    {"discard_two_segments", discard_two_segments},
    {"zeroes_behind_end", zeroes_behind_end},
    {"zeroes_wrap", zeroes_wrap},
    {"zeroes_unknown_flags", zeroes_unknown_flags},
    {"zeroes_without_segment", zeroes_without_segment},
    {"header_short", header_short},
    {"header_byte_by_byte", header_byte_by_byte},
    {"status_missing", status_missing},
    {"status_readable", status_readable},
    {"nothing_but_status", nothing_but_status},
    {"data_byte_by_byte", data_byte_by_byte},
    {"as_long_as_the_queue", as_long_as_the_queue},
    {"more_than_4_gib", more_than_4_gib},
    {"read_over_header", read_over_header},
    {"read_over_status", read_over_status},
    {"read_over_used_ring", read_over_used_ring},
    {"status_in_used_ring", status_in_used_ring},
    {"writes_under_way_and_reset", writes_under_way_and_reset},
    {"flushes_under_way_and_reset", flushes_under_way_and_reset},
};
const CaseSet block_cases = CASE_SET("request", kBlock, cases);
