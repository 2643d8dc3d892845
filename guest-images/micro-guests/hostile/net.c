// Frames that cannot be, and buffers for frames that cannot be (virtio 1.2, 5.1.6).
#include "hostile.h"

enum { kHeader = 12, kMerge = 15 };

static Queue* in(Device* device) { return &device->queues[0]; }
static Queue* out(Device* device) { return &device->queues[1]; }

// Sends what the chain at `head` holds and waits until it comes back.
static Outcome send(Device* device, u16 head) {
  UsedElement used;
  queue_offer(out(device), head);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "a frame does not come back from the device");
  REQUIRE(used.length == 0, "the device has written into a frame");
  return expect_works(device);
}

static Outcome frame_of(Device* device, u32 length) {
  memset(scratch, 0, kHeader);
  memset(scratch + kHeader, 0x02, 64);
  set_descriptor(out(device), 0, address_of(scratch), length, 0, 0);
  return send(device, 0);
}

static Outcome half_a_header(Device* device) { return frame_of(device, 5); }
static Outcome header_alone(Device* device) { return frame_of(device, kHeader); }
static Outcome too_short(Device* device) { return frame_of(device, kHeader + 13); }
static Outcome shortest(Device* device) { return frame_of(device, kHeader + 14); }
static Outcome longest(Device* device) { return frame_of(device, kHeader + 65535); }
static Outcome too_long(Device* device) { return frame_of(device, kHeader + 65536); }
static Outcome one_mebibyte(Device* device) { return frame_of(device, kScratchBytes); }

static Outcome two_gib(Device* device) {
  set_descriptor(out(device), 0, 0x10000000, 0x80000000, 0, 0);
  return send(device, 0);
}

static Outcome writable(Device* device) {
  UsedElement used;
  set_descriptor(out(device), 0, address_of(scratch), 256, kWrite, 0);
  queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "a frame does not come back from the device");
  return expect_works(device);
}

// Offloads that nobody has offered, checksums outside of the frame.
static Outcome header_of(Device* device, u8 value) {
  memset(scratch, value, kHeader);
  memset(scratch + kHeader, 0x02, 128);
  set_descriptor(out(device), 0, address_of(scratch), kHeader + 128, 0, 0);
  return send(device, 0);
}
static Outcome header_of_ones(Device* device) { return header_of(device, 0xff); }
static Outcome header_of_aa(Device* device) { return header_of(device, 0xaa); }

static Outcome in_pieces(Device* device, u16 pieces) {
  memset(scratch, 0, kHeader);
  for (u16 i = 0; i < pieces; ++i)
    set_descriptor(out(device), i, address_of(scratch) + i, 1, i + 1 < pieces ? kNext : 0, (u16)(i + 1));
  return send(device, 0);
}
static Outcome in_60_pieces(Device* device) { return in_pieces(device, 60); }
static Outcome in_230_pieces(Device* device) { return in_pieces(device, 230); }

static Outcome same_frame_200_times(Device* device) {
  memset(scratch, 0, kHeader);
  set_descriptor(out(device), 0, address_of(scratch), kHeader + 60, 0, 0);
  const u16 seen = out(device)->used[1];
  for (unsigned i = 0; i < 200; ++i) queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR((u16)(out(device)->used[1] - seen) == 200), "frames are not sent");
  out(device)->seen = out(device)->used[1];
  return expect_works(device);
}

// More than every buffer on the way holds, with nobody who takes what comes back.
static Outcome flood(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  for (u16 i = 0; i < 2; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  memset(scratch, 0, kHeader);
  set_descriptor(out(device), 0, address_of(scratch), kHeader + 60000, 0, 0);
  for (unsigned i = 0; i < 250; ++i) queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(virtio_reset(device), "a reset with frames under way is never done");
  return NULL;
}

// --- buffers ---------------------------------------------------------------------------------------------

// Fresh queues, with buffers as a case has them; then a frame that is to be received.
static Outcome begin(Device* device, u64 features) {
  pool_release(0);
  TRY(prepare(device, features));
  for (u16 i = 0; i < 2; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  return NULL;
}

static void frame_comes(Device* device) {
  memset(scratch, 0, kHeader);
  memset(scratch + kHeader, 0x02, 256);
  set_descriptor(out(device), 100, address_of(scratch), kHeader + 256, 0, 0);
  queue_offer(out(device), 100);
  queue_ring(out(device));
}

static void offer_buffer(Device* device, u16 head, u64 address, u32 length, u16 flags) {
  set_descriptor(in(device), head, address, length, flags, (u16)(head + 1));
  queue_offer(in(device), head);
}

static Outcome broken_buffer(Device* device, u64 address, u32 length, u16 flags) {
  TRY(begin(device, DEFAULT_FEATURES));
  offer_buffer(device, 0, address, length, flags);
  queue_ring(in(device));
  frame_comes(device);
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

static Outcome buffer_in_hole(Device* device) {
  return broken_buffer(device, option("low_end", 0), 2048, kWrite);
}
static Outcome buffer_wraps(Device* device) { return broken_buffer(device, ~(u64)0 - 100, 2048, kWrite); }
static Outcome buffer_over_end(Device* device) {
  return broken_buffer(device, option("high_end", 0) - 100, 2048, kWrite);
}
static Outcome buffer_loops(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES));
  set_descriptor(in(device), 0, address_of(scratch), 64, kWrite | kNext, 0);
  queue_offer(in(device), 0);
  queue_ring(in(device));
  frame_comes(device);
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

static Outcome buffer_index_too_far(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES));
  *available_index(in(device)) = 0x4000;
  queue_ring(in(device));
  frame_comes(device);
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

// Buffers in which no frame fits come back empty, and the frame is lost.
static Outcome useless_buffers(Device* device, u64 features, u32 length, u16 flags) {
  TRY(begin(device, features));
  for (u16 i = 0; i < 16; ++i) offer_buffer(device, i, address_of(scratch) + 4096, length, flags);
  queue_ring(in(device));
  for (unsigned i = 0; i < 4; ++i) frame_comes(device);
  REQUIRE(WAIT_FOR(in(device)->used[1] != 0), "useless buffers do not come back");
  REQUIRE(expect_lives(device) == NULL, "the device is gone");
  return NULL;
}

static Outcome buffers_of_1(Device* device) { return useless_buffers(device, DEFAULT_FEATURES, 1, kWrite); }
static Outcome buffers_of_11(Device* device) { return useless_buffers(device, DEFAULT_FEATURES, 11, kWrite); }
static Outcome buffers_of_12(Device* device) {
  return useless_buffers(device, DEFAULT_FEATURES & ~FEATURE(kMerge), 12, kWrite);
}
static Outcome buffers_of_100(Device* device) {
  return useless_buffers(device, DEFAULT_FEATURES & ~FEATURE(kMerge), 100, kWrite);
}
static Outcome readable_buffers(Device* device) { return useless_buffers(device, DEFAULT_FEATURES, 2048, 0); }

static Outcome merged_from_tiny(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES));
  if ((device->features & FEATURE(kMerge)) == 0) return NULL;
  for (u16 i = 0; i < 200; ++i) offer_buffer(device, i, address_of(scratch) + 4096 + 16 * (u64)i, 12, kWrite);
  queue_ring(in(device));
  frame_comes(device);
  REQUIRE(WAIT_FOR(in(device)->used[1] >= 23), "a frame in 23 buffers does not come");
  return expect_lives(device);
}

// More buffers than the ring holds would be needed for this frame.
static Outcome merged_from_too_few(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES));
  for (u16 i = 0; i < 256; ++i) offer_buffer(device, i, address_of(scratch) + 0x80000, 12, kWrite);
  queue_ring(in(device));
  memset(scratch, 0, kHeader);
  set_descriptor(out(device), 0, address_of(scratch), kHeader + 60000, 0, 0);
  queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(out(device)->used[1] == 1), "a frame is not sent");
  return expect_lives(device);
}

static Outcome no_buffers(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES));
  for (unsigned i = 0; i < 50; ++i) frame_comes(device);
  REQUIRE(WAIT_FOR(out(device)->used[1] == 50), "frames are not sent");
  return expect_lives(device);
}

static Outcome no_receive_queue(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  virtio_set_queue(device, 1, 0);
  virtio_run(device);
  for (unsigned i = 0; i < 10; ++i) frame_comes(device);
  write32(device->notify, 0);
  REQUIRE(WAIT_FOR(out(device)->used[1] == 10), "frames are not sent");
  return expect_lives(device);
}

static Outcome doorbell_of_control_queue(Device* device) {
  for (u32 i = 2; i < 40; ++i) write32(device->notify + i * device->multiplier, i);
  return expect_works(device);
}

static const Case cases[] = {
    {"half_a_header", half_a_header},
    {"header_alone", header_alone},
    {"too_short", too_short},
    {"shortest", shortest},
    {"longest", longest},
    {"too_long", too_long},
    {"one_mebibyte", one_mebibyte},
    {"two_gib", two_gib},
    {"writable", writable},
    {"header_of_ones", header_of_ones},
    {"header_of_aa", header_of_aa},
    {"in_60_pieces", in_60_pieces},
    {"in_230_pieces", in_230_pieces},
    {"same_frame_200_times", same_frame_200_times},
    {"flood", flood},
    {"buffer_in_hole", buffer_in_hole},
    {"buffer_wraps", buffer_wraps},
    {"buffer_over_end", buffer_over_end},
    {"buffer_loops", buffer_loops},
    {"buffer_index_too_far", buffer_index_too_far},
    {"buffers_of_1", buffers_of_1},
    {"buffers_of_11", buffers_of_11},
    {"buffers_of_12", buffers_of_12},
    {"buffers_of_100", buffers_of_100},
    {"readable_buffers", readable_buffers},
    {"merged_from_tiny", merged_from_tiny},
    {"merged_from_too_few", merged_from_too_few},
    {"no_buffers", no_buffers},
    {"no_receive_queue", no_receive_queue},
    {"doorbell_of_control_queue", doorbell_of_control_queue},
};
const CaseSet net_cases = CASE_SET("frame", kNet, cases);
