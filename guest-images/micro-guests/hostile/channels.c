// Control messages that mean nothing, come too early or too often, and channels that are not open
// (virtio 1.2, 5.3.6.2).
#include "hostile.h"

enum { kIn0 = 0, kOut0 = 1, kTold = 2, kTell = 3, kIn1 = 4, kOut1 = 5 };
enum { kDeviceReady = 0, kPortAdd = 1, kPortRemove = 2, kPortReady = 3, kPortOpen = 6, kPortName = 7 };
enum { kMultiport = 1 };

typedef struct {
  u32 id;
  u16 event, value;
} Message;

// Says what lies in scratch, `bytes` of it.
static Outcome tell_bytes(Device* device, u32 bytes, u16 flags) {
  Queue* queue = &device->queues[kTell];
  UsedElement used;
  set_descriptor(queue, 0, address_of(scratch), bytes, flags, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  // Those of open_channel() come first.
  REQUIRE(WAIT_FOR(queue_take(queue, &used) && queue->seen == queue->offered),
          "a message does not come back from the device");
  REQUIRE(used.length == 0, "the device has written into a message");
  return NULL;
}

static Outcome tell(Device* device, u32 id, u16 event, u16 value) {
  *(Message*)scratch = (Message){id, event, value};
  return tell_bytes(device, sizeof(Message), 0);
}

static Outcome every_event(Device* device) {
  static const u32 ids[] = {0, 2, 31, 0x7fffffff, 0xffffffff};
  for (u16 event = 0; event < 20; ++event)
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; ++i) TRY(tell(device, ids[i], event, (u16)(i % 3)));
  TRY(tell(device, 1, 0xffff, 1));
  return expect_works(device);
}

// What only the device says.
static Outcome events_of_the_device(Device* device) {
  TRY(tell(device, 1, kPortAdd, 1));
  TRY(tell(device, 1, kPortRemove, 1));
  TRY(tell(device, 1, kPortName, 1));
  return expect_works(device);
}

static Outcome message_of(Device* device, u32 bytes, u16 flags) {
  memset(scratch, 0, 4096);
  *(Message*)scratch = (Message){1, kPortOpen, 0};
  TRY(tell_bytes(device, bytes, flags));
  return expect_lives(device);
}
static Outcome message_of_0(Device* device) { return message_of(device, 0, 0); }
static Outcome message_of_7(Device* device) {
  TRY(message_of(device, 7, 0));
  return expect_works(device);
}
static Outcome message_of_4096(Device* device) { return message_of(device, 4096, 0); }
static Outcome message_of_1_mib(Device* device) { return message_of(device, kScratchBytes, 0); }
static Outcome message_writable(Device* device) {
  TRY(message_of(device, 8, kWrite));
  return expect_works(device);
}

static Outcome message_in_8_pieces(Device* device) {
  Queue* queue = &device->queues[kTell];
  UsedElement used;
  *(Message*)scratch = (Message){1, kPortOpen, 1};
  for (u16 i = 0; i < 8; ++i)
    set_descriptor(queue, i, address_of(scratch) + i, 1, i < 7 ? kNext : 0, (u16)(i + 1));
  queue_offer(queue, 0);
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used) && queue->seen == queue->offered),
          "a message does not come back");
  return expect_works(device);
}

static Outcome not_ready_after_all(Device* device) {
  TRY(tell(device, 0, kDeviceReady, 0));
  TRY(tell(device, 1, kPortReady, 0));
  return expect_works(device);
}

static Outcome opened_and_closed(Device* device) {
  for (unsigned i = 0; i < 100; ++i) TRY(tell(device, 1, kPortOpen, (u16)(i % 2)));
  return expect_works(device);
}

// Each asks for all the device has to say; nobody takes it.
static Outcome ready_again_and_again(Device* device) {
  for (unsigned i = 0; i < 200; ++i) {
    TRY(tell(device, 0, kDeviceReady, 1));
    TRY(tell(device, 1, kPortReady, 1));
  }
  return expect_works(device);
}

// --- queues that are not as they should be ---------------------------------------------------------------

static Outcome begin(Device* device, u64 features, u16 queues) {
  pool_release(0);
  TRY(prepare(device, features));
  for (u16 i = 0; i < 6; ++i)
    if ((queues >> i & 1) != 0) virtio_set_queue(device, i, 0);
  virtio_run(device);
  return NULL;
}

static Outcome told_in(Device* device, u64 address, u32 length, u16 flags) {
  TRY(begin(device, DEFAULT_FEATURES, 0x3f));
  Queue* queue = &device->queues[kTold];
  for (u16 i = 0; i < 8; ++i) {
    set_descriptor(queue, i, address, length, flags, i);
    queue_offer(queue, i);
  }
  queue_ring(queue);
  static const Message messages[] = {{0, kDeviceReady, 1}, {1, kPortReady, 1}};
  Queue* telling = &device->queues[kTell];
  for (u16 i = 0; i < 2; ++i) {
    set_descriptor(telling, i, address_of(messages + i), sizeof(Message), 0, 0);
    queue_offer(telling, i);
  }
  queue_ring(telling);
  return NULL;
}

static Outcome useless(Device* device, u32 length, u16 flags) {
  TRY(told_in(device, address_of(scratch) + 4096, length, flags));
  REQUIRE(WAIT_FOR(device->queues[kTold].used[1] >= 2), "useless buffers do not come back");
  return expect_lives(device);
}
static Outcome told_in_0_bytes(Device* device) { return useless(device, 0, kWrite); }
static Outcome told_in_9_bytes(Device* device) { return useless(device, 9, kWrite); }
static Outcome told_in_readable(Device* device) { return useless(device, 128, 0); }
static Outcome told_in_hole(Device* device) {
  TRY(told_in(device, option("low_end", 0), 128, kWrite));
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}
static Outcome told_in_a_loop(Device* device) {
  TRY(told_in(device, address_of(scratch) + 4096, 16, kWrite | kNext));
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

static Outcome without_queue_for_messages(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES, 1 << kTell | 1 << kIn1 | 1 << kOut1));
  TRY(tell(device, 0, kDeviceReady, 1));
  TRY(tell(device, 1, kPortReady, 1));
  TRY(tell(device, 1, kPortOpen, 1));
  write32(device->notify + kTold * device->multiplier, kTold);
  return expect_lives(device);
}

static Outcome message_index_too_far(Device* device) {
  *available_index(&device->queues[kTell]) = 0x4000;
  queue_ring(&device->queues[kTell]);
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}

// One port and no messages: the channels are not there.
static Outcome without_multiport(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES & ~FEATURE(kMultiport), 0x3f));
  static const u16 queues[] = {kTell, kOut1};
  for (unsigned i = 0; i < 2; ++i) {
    Queue* queue = &device->queues[queues[i]];
    set_descriptor(queue, 0, address_of(scratch), 64, 0, 0);
    queue_offer(queue, 0);
    queue_ring(queue);
  }
  for (u32 i = 0; i < 6; ++i) write32(device->notify + i * device->multiplier, i);
  return expect_lives(device);
}

// --- bytes -----------------------------------------------------------------------------------------------

static Outcome output(Device* device, u16 index, u32 bytes, u16 flags) {
  Queue* queue = &device->queues[index];
  UsedElement used;
  set_descriptor(queue, 0, address_of(scratch), bytes, flags, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "bytes do not come back from the device");
  REQUIRE(used.length == 0, "the device has written into output");
  return expect_works(device);
}

static Outcome through_port_0(Device* device) {
  TRY(output(device, kOut0, 4096, 0));
  return output(device, kOut0, kScratchBytes, 0);
}
static Outcome writable(Device* device) { return output(device, kOut1, 4096, kWrite); }
static Outcome nothing(Device* device) { return output(device, kOut1, 0, 0); }

static Outcome through_a_closed_channel(Device* device) {
  TRY(begin(device, DEFAULT_FEATURES, 0x3f));
  Queue* queue = &device->queues[kOut1];
  UsedElement used;
  set_descriptor(queue, 0, address_of(scratch), 64, 0, 0);
  for (unsigned i = 0; i < 8; ++i) {
    queue_offer(queue, 0);
    queue_ring(queue);
    REQUIRE(WAIT_FOR(queue_take(queue, &used)), "bytes of a closed channel do not come back");
  }
  return expect_lives(device);
}

// The other end sends all of it back and nobody takes that: the device holds the rest.
static Outcome more_than_anybody_takes(Device* device) {
  Queue* queue = &device->queues[kOut1];
  set_descriptor(queue, 0, 0x20000000, 100 << 20, 0, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  for (unsigned i = 0; i < 10; ++i) TRY(tell(device, 1, kPortOpen, (u16)(i % 2)));
  REQUIRE(virtio_reset(device), "a reset with bytes under way is never done");
  return NULL;
}

static const Case cases[] = {
    {"every_event", every_event},
    {"events_of_the_device", events_of_the_device},
    {"message_of_0", message_of_0},
    {"message_of_7", message_of_7},
    {"message_of_4096", message_of_4096},
    {"message_of_1_mib", message_of_1_mib},
    {"message_writable", message_writable},
    {"message_in_8_pieces", message_in_8_pieces},
    {"not_ready_after_all", not_ready_after_all},
    {"opened_and_closed", opened_and_closed},
    {"ready_again_and_again", ready_again_and_again},
    {"told_in_0_bytes", told_in_0_bytes},
    {"told_in_9_bytes", told_in_9_bytes},
    {"told_in_readable", told_in_readable},
    {"told_in_hole", told_in_hole},
    {"told_in_a_loop", told_in_a_loop},
    {"without_queue_for_messages", without_queue_for_messages},
    {"message_index_too_far", message_index_too_far},
    {"without_multiport", without_multiport},
    {"through_port_0", through_port_0},
    {"writable", writable},
    {"nothing", nothing},
    {"through_a_closed_channel", through_a_closed_channel},
    {"more_than_anybody_takes", more_than_anybody_takes},
};
const CaseSet channel_cases = CASE_SET("message", kChannels, cases);
