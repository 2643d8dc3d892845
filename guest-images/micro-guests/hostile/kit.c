#include "hostile.h"

enum {
  kNetHeader = 12,
  kBuffers = 64,
  kBufferBytes = 2048,
  kFrameBytes = 128,
};

u8 scratch[kScratchBytes] __attribute__((aligned(4096)));
static u8 good_data[4096] __attribute__((aligned(4096)));
static u8 buffers[kBuffers][kBufferBytes];

static struct {
  u32 type, reserved;
  u64 sector;
} block_header;
static volatile u8 block_status;

// 5.19.6: requests, and their answers.
static u32 flush_type;
static volatile u32 flush_answer;

// Good requests use the last descriptors.
static u16 good_head(const Queue* queue) { return (u16)(queue->size - kChainLength); }

static SocketHeader socket_header;

// 5.11.6, and Linux's fuse.h: FUSE_INIT, by which a session begins.
static struct {
  u32 length, operation;
  u64 unique, node;
  u32 caller[4];
  u32 major, minor, read_ahead, flags;
} files_request;
static struct {
  u32 length;
  int error;
  u64 unique;
  u32 major, minor;
  u8 rest[56];
} files_answer;

// A page of RAM that nothing lies in.
enum { kFreePage = 0x20000000, kPageBytes = 4096 };
static u32 page_numbers[4 * kChainLength];

// 5.3.6.2
typedef struct {
  u32 id;
  u16 event, value;
} ControlMessage;
static ControlMessage control_messages[3];
static u8 control_buffers[16][128];

bool receives(const Device* device) {
  return device->type == kNet || device->type == kVsock || device->type == kConsole ||
         device->type == kChannels;
}

// --- set-up ------------------------------------------------------------------------------------------

u64 home_of(const Device* device) { return 0xc0000000 + (u64)device->slot * 0x8000; }

void use_bar_at(Device* device, u64 bar) {
  const u64 by = bar - device->bar;
  device->bar += by;
  device->common += by;
  device->isr += by;
  device->config += by;
  device->notify += by;
  device->table += by;
  device->pending += by;
  for (u16 i = 0; i < kQueuesMax; ++i) device->queues[i].doorbell += by;
}

Outcome prepare(Device* device, u64 features) {
  REQUIRE(virtio_reset(device), "a reset is never done");
  REQUIRE(virtio_negotiate(device, features), "features are refused");
  virtio_use_msix(device);
  return NULL;
}

// Half of a ring at most, so that a case finds room for its own.
static void fill_with_buffers(Queue* queue) {
  for (u16 i = 0; i < kBuffers && i < queue->size / 2; ++i) {
    set_descriptor(queue, i, address_of(buffers[i]), kBufferBytes, kWrite, 0);
    queue_offer(queue, i);
  }
  queue_ring(queue);
}

// 5.3.6.2: what a driver says before a channel (here the first) carries anything.
static void open_channel(Device* device) {
  Queue* in = &device->queues[2];
  Queue* out = &device->queues[3];
  if ((device->features & FEATURE(1)) == 0) return;
  for (u16 i = 0; i < 16; ++i) {
    set_descriptor(in, i, address_of(control_buffers[i]), sizeof control_buffers[i], kWrite, 0);
    queue_offer(in, i);
  }
  queue_ring(in);
  control_messages[0] = (ControlMessage){0, 0, 1};
  control_messages[1] = (ControlMessage){1, 3, 1};
  control_messages[2] = (ControlMessage){1, 6, 1};
  for (u16 i = 0; i < 3; ++i) {
    set_descriptor(out, i, address_of(&control_messages[i]), sizeof control_messages[i], 0, 0);
    queue_offer(out, i);
  }
  queue_ring(out);
}

Outcome start(Device* device, u64 features) {
  TRY(prepare(device, features));
  for (u16 i = 0; i < device->queue_count && i < kQueuesMax; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  REQUIRE((virtio_status(device) & (kDriverOk | kNeedsReset)) == kDriverOk, "the device does not start");
  if (receives(device)) fill_with_buffers(answers_of(device));
  if (device->type == kChannels) open_channel(device);
  return NULL;
}

Outcome recover(Device* device) {
  const u64 home = home_of(device);
  pci_write32(device->slot, kPciBar0, (u32)home);
  pci_write16(device->slot, kPciCommand, kPciMemory | kPciBusMaster);
  use_bar_at(device, home);
  // From before the start: an answer to an earlier case may come first, and with it the only interrupt.
  const unsigned vector = vector_of(device, (u16)(answers_of(device) - device->queues));
  const u64 before = interrupts[vector];
  TRY(start(device, DEFAULT_FEATURES));
  TRY(good_request(device));
  REQUIRE(WAIT_FOR(interrupts[vector] != before), "the interrupt of a good request never comes");
  return NULL;
}

// --- requests ----------------------------------------------------------------------------------------

// 5.3.2: those of a channels' first port follow on the pairs of port 0 and of the control messages.
Queue* requests_of(Device* device) {
  return &device->queues[device->type == kChannels ? 5 : receives(device) || device->type == kFs ? 1 : 0];
}
Queue* answers_of(Device* device) {
  return &device->queues[device->type == kChannels ? 4 : device->type == kFs ? 1 : 0];
}

static void put(volatile Descriptor* table, u16 index, const volatile void* at, u32 length, u16 flags) {
  table[index].address = address_of(at);
  table[index].length = length;
  table[index].flags = flags;
  table[index].next = (u16)(index + 1);
}

// Asks for a connection to a port where nobody listens.
static void set_socket_header(const Device* device, u32 port) {
  socket_header = (SocketHeader){read64(device->config), 2, port, 9999, 0, 1, 1, 0, 4096, 0};
}

static void set_files_request(void) {
  static u64 unique = 0;
  memset(&files_request, 0, sizeof files_request);
  files_request.length = sizeof files_request;
  files_request.operation = 26;
  files_request.unique = ++unique;
  files_request.major = 7;
  files_request.minor = 38;
}

void fill_chain(Device* device, volatile Descriptor* table, u16 first) {
  switch (device->type) {
    case kBlock:
      block_header.type = 0;
      block_header.sector = 8;
      block_status = 0xff;
      put(table, first, &block_header, sizeof block_header, kNext);
      put(table, (u16)(first + 1), scratch, 512, kNext | kWrite);
      put(table, (u16)(first + 2), &block_status, 1, kWrite);
      break;
    case kNet:
      put(table, first, scratch, kNetHeader, kNext);
      put(table, (u16)(first + 1), scratch + 64, 64, kNext);
      put(table, (u16)(first + 2), scratch + 128, 64, 0);
      memset(scratch, 0, kNetHeader);
      break;
    case kVsock:
      set_socket_header(device, 1);
      put(table, first, &socket_header, 16, kNext);
      put(table, (u16)(first + 1), (u8*)&socket_header + 16, 16, kNext);
      put(table, (u16)(first + 2), (u8*)&socket_header + 32, 12, 0);
      break;
    case kPmem:
      flush_type = 0;
      flush_answer = 1;
      put(table, first, &flush_type, 2, kNext);
      put(table, (u16)(first + 1), (u8*)&flush_type + 2, 2, kNext);
      put(table, (u16)(first + 2), &flush_answer, sizeof flush_answer, kWrite);
      break;
    case kBalloon:
      for (u32 i = 0; i < 4 * kChainLength; ++i) page_numbers[i] = kFreePage / kPageBytes + i;
      for (u16 i = 0; i < kChainLength; ++i)
        put(table, (u16)(first + i), page_numbers + 4 * i, 16, i + 1 < kChainLength ? kNext : 0);
      break;
    case kFs:
      set_files_request();
      put(table, first, &files_request, 40, kNext);
      put(table, (u16)(first + 1), &files_request.major, 16, kNext);
      put(table, (u16)(first + 2), &files_answer, sizeof files_answer, kWrite);
      break;
    case kConsole:
    case kChannels:
      for (u16 i = 0; i < kChainLength; ++i)
        put(table, (u16)(first + i), scratch + 16 * i, 16, i + 1 < kChainLength ? kNext : 0);
      break;
    default:
      put(table, first, scratch, 16, kNext | kWrite);
      put(table, (u16)(first + 1), scratch + 16, 16, kNext | kWrite);
      put(table, (u16)(first + 2), scratch + 32, 16, kWrite);
      break;
  }
}

u16 make_chain(Device* device, Queue* queue, u16 first) {
  fill_chain(device, queue->descriptors, first);
  return first;
}

void fill_ring(Device* device, Queue* queue) {
  make_chain(device, queue, 0);
  for (unsigned i = 0; i < queue->size; ++i) queue_offer(queue, 0);
  queue_ring(queue);
}

// Waits for the answer to a chain; those to others are passed over.
static bool wait_for(Queue* queue, u16 head, UsedElement* used) {
  return WAIT_FOR(queue_take(queue, used) && used->id == head);
}

static Outcome good_block(Device* device) {
  static u32 round = 0;
  Queue* queue = &device->queues[0];
  UsedElement used;
  const u64 sector = 64;
  ++round;
  for (u32 type = 1; type < 2; --type) {
    for (unsigned i = 0; i < sizeof good_data; ++i) good_data[i] = (u8)(type == 1 ? i * 7 + round : 0);
    block_header.type = type;
    block_header.sector = sector;
    block_status = 0xff;
    put(queue->descriptors, good_head(queue), &block_header, sizeof block_header, kNext);
    put(queue->descriptors, (u16)(good_head(queue) + 1), good_data, sizeof good_data,
        (u16)(kNext | (type == 0 ? kWrite : 0)));
    put(queue->descriptors, (u16)(good_head(queue) + 2), &block_status, 1, kWrite);
    queue_ask(queue);
    queue_offer(queue, good_head(queue));
    queue_ring(queue);
    REQUIRE(wait_for(queue, good_head(queue), &used), "a good disk request is not answered");
    REQUIRE(block_status == 0, "a good disk request fails");
  }
  for (unsigned i = 0; i < sizeof good_data; ++i)
    REQUIRE(*(volatile u8*)&good_data[i] == (u8)(i * 7 + round), "the disk gives back something else");
  return NULL;
}

static Outcome good_rng(Device* device) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  memset(good_data, 0, 64);
  put(queue->descriptors, good_head(queue), good_data, 64, kWrite);
  queue_ask(queue);
  queue_offer(queue, good_head(queue));
  queue_ring(queue);
  REQUIRE(wait_for(queue, good_head(queue), &used), "a good entropy request is not answered");
  REQUIRE(used.length == 64, "entropy of another length");
  u8 sum = 0;
  for (unsigned i = 0; i < 64; ++i) sum |= *(volatile u8*)&good_data[i];
  REQUIRE(sum != 0, "64 bytes of entropy are all 0");
  return NULL;
}

static Outcome good_flush(Device* device) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  const u16 head = good_head(queue);
  fill_chain(device, queue->descriptors, head);
  queue_ask(queue);
  queue_offer(queue, head);
  queue_ring(queue);
  REQUIRE(wait_for(queue, head, &used), "a good flush is not answered");
  REQUIRE(used.length == 4 && flush_answer == 0, "a good flush fails");
  return NULL;
}

// A frame with a number that the other end sends back. Others may come before it.
static Outcome good_net(Device* device) {
  static u32 number = 0;
  Queue* in = &device->queues[0];
  Queue* out = &device->queues[1];
  UsedElement used;
  ++number;
  memset(good_data, 0, kNetHeader + kFrameBytes);
  u8* frame = good_data + kNetHeader;
  memset(frame, 0x02, 12);
  frame[12] = 0x88;
  frame[13] = 0xb5;
  memcpy(frame + 14, "good", 4);
  memcpy(frame + 18, &number, sizeof number);
  put(out->descriptors, good_head(out), good_data, kNetHeader + kFrameBytes, 0);
  queue_ask(in);
  queue_ask(out);
  queue_offer(out, good_head(out));
  queue_ring(out);
  REQUIRE(wait_for(out, good_head(out), &used), "a good frame is not sent");
  for (;;) {
    REQUIRE(WAIT_FOR(queue_take(in, &used)), "a good frame does not come back");
    REQUIRE(used.id < kBuffers, "a buffer that was never offered comes back");
    const u8* received = buffers[used.id];
    const bool found = used.length == kNetHeader + kFrameBytes &&
                       same(received + kNetHeader + 14, frame + 14, kFrameBytes - 14);
    queue_offer(in, (u16)used.id);
    queue_ring(in);
    if (found) return NULL;
  }
}

// A connection that is refused. The answers to others may come before it.
static Outcome good_vsock(Device* device) {
  static u32 port = 100000;
  Queue* in = &device->queues[0];
  Queue* out = &device->queues[1];
  UsedElement used;
  ++port;
  set_socket_header(device, port);
  put(out->descriptors, good_head(out), &socket_header, sizeof socket_header, 0);
  queue_ask(in);
  queue_ask(out);
  queue_offer(out, good_head(out));
  queue_ring(out);
  REQUIRE(wait_for(out, good_head(out), &used), "a good packet is not sent");
  for (;;) {
    REQUIRE(WAIT_FOR(queue_take(in, &used)), "a connection is not refused");
    REQUIRE(used.id < kBuffers, "a buffer that was never offered comes back");
    const volatile SocketHeader* received = (const volatile SocketHeader*)buffers[used.id];
    const bool found =
        used.length == sizeof(SocketHeader) && received->port == port && received->operation == 3;
    queue_offer(in, (u16)used.id);
    queue_ring(in);
    if (found) return NULL;
  }
}

// A page that is in the balloon is gone, with what was in it.
static Outcome good_balloon(Device* device) {
  volatile u64* page = (volatile u64*)(u64)kFreePage;
  UsedElement used;
  for (u16 i = 0; i < 2; ++i) {
    Queue* queue = &device->queues[i];
    *page = 0x676f6f64;
    page_numbers[0] = kFreePage / kPageBytes;
    put(queue->descriptors, good_head(queue), page_numbers, 4, 0);
    queue_ask(queue);
    queue_offer(queue, good_head(queue));
    queue_ring(queue);
    REQUIRE(wait_for(queue, good_head(queue), &used), "a good list of pages is not answered");
    if (i == 0) REQUIRE(*page == 0, "a page that was given keeps what was in it");
  }
  return NULL;
}

// What of good_data has come, where there was `matched` of it before. The buffers go back.
static unsigned match_stream(Queue* in, unsigned matched, unsigned length) {
  UsedElement used;
  while (queue_take(in, &used)) {
    const volatile u8* received = buffers[used.id % kBuffers];
    for (u32 i = 0; i < used.length && i < kBufferBytes && matched < length; ++i)
      matched = received[i] == good_data[matched] ? matched + 1 : received[i] == good_data[0] ? 1 : 0;
    queue_offer(in, (u16)used.id);
    queue_ring(in);
  }
  return matched;
}

// Bytes with a number that the other end sends back. Others may come before them. They are sent again until
// they arrive: what a console's reader is too slow for is dropped.
static Outcome good_stream(Device* device) {
  enum { kLength = 16 };
  static u32 number = 0;
  Queue* in = answers_of(device);
  Queue* out = requests_of(device);
  UsedElement used;
  ++number;
  memcpy(good_data, "\xffgood...", 8);  // the first byte occurs nowhere else
  for (unsigned i = 0; i < 8; ++i) good_data[8 + i] = (u8)('a' + (number >> (4 * i) & 15));
  put(out->descriptors, good_head(out), good_data, kLength, 0);
  const u64 start = now();
  u64 sent = 0;
  bool under_way = false;
  unsigned matched = 0;
  while (now() - start < wait_bound()) {
    matched = match_stream(in, matched, kLength);
    if (!under_way && matched < kLength && (sent == 0 || now() - sent > wait_bound() / 100)) {
      // For an interrupt with the next input. Not asked again for what is taken then: the device may not have
      // looked yet, and would find that nobody asks for it any more.
      queue_ask(in);
      fence();
      if (in->used[1] != in->seen) continue;
      queue_ask(out);
      queue_offer(out, good_head(out));
      queue_ring(out);
      under_way = true;
      sent = now();
    }
    if (queue_take(out, &used) && used.id == good_head(out)) under_way = false;
    if (matched == kLength && !under_way) return NULL;
    pause();
  }
  return under_way ? "good bytes are not taken" : "good bytes do not come back";
}

static Outcome good_files(Device* device) {
  Queue* queue = requests_of(device);
  UsedElement used;
  memset(&files_answer, 0xee, sizeof files_answer);
  fill_chain(device, queue->descriptors, good_head(queue));
  queue_ask(queue);
  queue_offer(queue, good_head(queue));
  queue_ring(queue);
  REQUIRE(wait_for(queue, good_head(queue), &used), "a good request for files is not answered");
  const volatile u64* answered = &files_answer.unique;
  REQUIRE(*answered == files_request.unique && files_answer.error == 0 && files_answer.major == 7,
          "a session of files does not begin");
  return NULL;
}

Outcome good_request(Device* device) {
  switch (device->type) {
    case kFs:
      return good_files(device);
    case kBalloon:
      return good_balloon(device);
    case kConsole:
    case kChannels:
      return good_stream(device);
    case kVsock:
      return good_vsock(device);
    case kBlock:
      return good_block(device);
    case kNet:
      return good_net(device);
    case kPmem:
      return good_flush(device);
    default:
      return good_rng(device);
  }
}

// --- what must come of it ----------------------------------------------------------------------------

Outcome expect_needs_reset(Device* device) {
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  Queue* queue = requests_of(device);
  if (queue->used == NULL) return NULL;
  const u16 used = queue->used[1];
  for (unsigned i = 0; i < 20; ++i) queue_ring(queue);
  REQUIRE(queue->used[1] == used, "the device goes on though it asks for a reset");
  return NULL;
}

Outcome expect_works(Device* device) {
  TRY(good_request(device));
  REQUIRE((virtio_status(device) & kNeedsReset) == 0, "the device asks for a reset");
  return NULL;
}

Outcome expect_lives(Device* device) {
  REQUIRE(virtio_status(device) != 0xff, "the device's registers are gone");
  return NULL;
}

Outcome submit_broken(Device* device, u16 head) {
  queue_offer(requests_of(device), head);
  queue_ring(requests_of(device));
  return expect_needs_reset(device);
}

Outcome submit_works(Device* device, u16 head) {
  queue_offer(requests_of(device), head);
  queue_ring(requests_of(device));
  return expect_works(device);
}

Outcome submit_lives(Device* device, u16 head) {
  queue_offer(requests_of(device), head);
  queue_ring(requests_of(device));
  return expect_lives(device);
}
