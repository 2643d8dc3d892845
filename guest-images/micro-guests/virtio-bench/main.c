// Drives virtio devices as fast as they go and says how fast that was. On the command line: requests=N at
// depth 32 and requests_alone=N at depth 1, for each device that is there; with deep=N, disk requests and
// frames also at that depth, or as many as the ring has room for.
#include "virtio.h"

// Entered by PVH, the only way into an ELF file that snug and QEMU share: a Xen note of type 18.
__asm__(
    ".pushsection .note.pvh, \"a\", @note\n"
    ".balign 4\n"
    ".long 4, 4, 18\n"
    ".asciz \"Xen\"\n"
    ".long pvh_start\n"
    ".popsection\n");

enum {
  kDepth = 32,
  kDeepest = 340,
  kSector = 512,
  kBlockData = 4096,
  kLongData = 128 << 10,
  kEntropy = 256,
  kFrame = 1514,
  kNetHeader = 12,
};

// A line for whoever started this: what, how many, how long, how often either side woke the other.
static void report(const char* what, u32 bytes, unsigned depth, u64 requests, u64 ticks, u64 doorbells,
                   u64 interrupted) {
  print("bench: ");
  print(what);
  const u64 figures[] = {bytes, depth, requests, ticks, doorbells, interrupted};
  for (unsigned i = 0; i < sizeof figures / sizeof *figures; ++i) {
    print(" ");
    print_number(figures[i]);
  }
  print("\r\n");
}

// A kind of request: `prepare` fills the chain that begins at descriptor `head`.
typedef struct {
  const char* what;
  u32 bytes;
  u16 chain_length;
  void (*prepare)(Queue* queue, u16 head, u64 number);
  // Whether the answer is what it should be.
  bool (*check)(u16 head, const UsedElement* used);
} Work;

static void measure(Device* device, u16 index, const Work* work, unsigned depth, u64 requests) {
  if (requests == 0) return;
  Queue* queue = &device->queues[index];
  if (depth > queue->size / work->chain_length) depth = queue->size / work->chain_length;
  const u64 doorbells = queue->doorbells, interrupted = interrupts[vector_of(device, index)];
  u64 begun = 0, ended = 0;
  const u64 start = now();
  for (; begun < depth && begun < requests; ++begun) {
    const u16 head = (u16)(begun * work->chain_length);
    work->prepare(queue, head, begun);
    queue_offer(queue, head);
  }
  queue_notify(queue);
  while (ended < requests) {
    UsedElement used;
    if (!WAIT_FOR(queue_take(queue, &used))) give_up("a request was never answered");
    do {
      if (!work->check((u16)used.id, &used)) give_up("a request went wrong");
      ++ended;
      if (begun < requests) {
        work->prepare(queue, (u16)used.id, begun++);
        queue_offer(queue, (u16)used.id);
      }
    } while (queue_take(queue, &used));
    queue_ask(queue);
    queue_notify(queue);
  }
  report(work->what, work->bytes, depth, requests, now() - start, queue->doorbells - doorbells,
         interrupts[vector_of(device, index)] - interrupted);
}

static bool begin(Device* device, DeviceType type, const char* name, u16 queues) {
  if (!virtio_find(type, name, device)) return false;
  if (!virtio_reset(device) || !virtio_negotiate(device, VERSION_1 | INDIRECT | EVENT_IDX))
    give_up("a device does not begin");
  virtio_use_msix(device);
  for (u16 i = 0; i < queues; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  print("bench: entries ");
  print(name);
  print(" ");
  print_number(device->queues[queues - 1].size);
  print("\r\n");
  return true;
}

// --- disks -------------------------------------------------------------------------------------------

typedef struct {
  u32 type;
  u32 reserved;
  u64 sector;
} BlockHeader;

static u64 sectors;
static struct {
  BlockHeader header;
  u8 status;
  u8* data;
} blocks[kDeepest];

static void prepare_block(Queue* queue, u16 head, u64 number, u32 type, u32 bytes) {
  const unsigned i = head / 3;
  // Not one behind the other, so that nobody reads ahead.
  const u64 places = sectors * kSector / bytes;
  blocks[i].header = (BlockHeader){type, 0, number * 7919 % places * (bytes / kSector)};
  blocks[i].status = 0xff;
  set_descriptor(queue, head, address_of(&blocks[i].header), sizeof(BlockHeader), kNext, (u16)(head + 1));
  set_descriptor(queue, (u16)(head + 1), address_of(blocks[i].data), bytes,
                 (u16)(kNext | (type == 0 ? kWrite : 0)), (u16)(head + 2));
  set_descriptor(queue, (u16)(head + 2), address_of(&blocks[i].status), 1, kWrite, 0);
}

static void prepare_read(Queue* queue, u16 head, u64 number) {
  prepare_block(queue, head, number, 0, kBlockData);
}
static void prepare_write(Queue* queue, u16 head, u64 number) {
  prepare_block(queue, head, number, 1, kBlockData);
}
static void prepare_long_read(Queue* queue, u16 head, u64 number) {
  prepare_block(queue, head, number, 0, kLongData);
}
static void prepare_long_write(Queue* queue, u16 head, u64 number) {
  prepare_block(queue, head, number, 1, kLongData);
}

static bool check_block(u16 head, const UsedElement* used) {
  return used->length >= 1 && *(volatile u8*)&blocks[head / 3].status == 0;
}

static void bench_block(u64 alone, u64 requests, unsigned deep) {
  static Device device;
  if (!begin(&device, kBlock, "blk", 1)) return;
  sectors = read64(device.config);
  for (unsigned i = 0; i < kDeepest; ++i)
    blocks[i].data = allocate(i < kDepth ? kLongData : kBlockData, 4096);
  const Work read = {"blk-read", kBlockData, 3, prepare_read, check_block};
  const Work write = {"blk-write", kBlockData, 3, prepare_write, check_block};
  const Work long_read = {"blk-read", kLongData, 3, prepare_long_read, check_block};
  const Work long_write = {"blk-write", kLongData, 3, prepare_long_write, check_block};
  measure(&device, 0, &read, 1, alone);
  measure(&device, 0, &write, 1, alone);
  measure(&device, 0, &read, kDepth, requests);
  measure(&device, 0, &write, kDepth, requests);
  measure(&device, 0, &long_read, kDepth, requests / 8);
  measure(&device, 0, &long_write, kDepth, requests / 8);
  if (deep == 0) return;
  measure(&device, 0, &read, deep, requests);
  measure(&device, 0, &write, deep, requests);
}

// --- entropy -----------------------------------------------------------------------------------------

static u8 entropy[kDepth][kEntropy];

static void prepare_entropy(Queue* queue, u16 head, u64 number) {
  (void)number;
  set_descriptor(queue, head, address_of(entropy[head]), kEntropy, kWrite, 0);
}

static bool check_entropy(u16 head, const UsedElement* used) {
  (void)head;
  return used->length == kEntropy;
}

static void bench_rng(u64 alone, u64 requests) {
  static Device device;
  if (!begin(&device, kRng, "rng", 1)) return;
  const Work work = {"rng", kEntropy, 1, prepare_entropy, check_entropy};
  measure(&device, 0, &work, 1, alone);
  measure(&device, 0, &work, kDepth, requests);
}

// --- networks ----------------------------------------------------------------------------------------
// The other end may be anything: frames are sent to nobody, with a type that nobody knows.

static u8 frames[kDeepest][kNetHeader + kFrame];
static u8 received[128][2048];

static void prepare_frame(Queue* queue, u16 head, u64 number) {
  u8* frame = frames[head] + kNetHeader;
  for (unsigned i = 0; i < 6; ++i) {
    frame[i] = (u8)(i == 0 ? 0x02 : 0xee);
    frame[6 + i] = (u8)(i == 0 ? 0x02 : 0x11);
  }
  frame[12] = 0x88;  // local experimental EtherType 1, IEEE 802
  frame[13] = 0xb5;
  frame[14] = (u8)number;
  set_descriptor(queue, head, address_of(frames[head]), kNetHeader + kFrame, 0, 0);
}

static bool check_frame(u16 head, const UsedElement* used) { return head < kDeepest && used->length == 0; }

static void prepare_buffer(Queue* queue, u16 head, u64 number) {
  (void)number;
  set_descriptor(queue, head, address_of(received[head]), sizeof received[0], kWrite, 0);
}

// Frames that come back: `count` are sent, the peer returns each.
static void measure_echo(Device* device, u64 count) {
  Queue* in = &device->queues[0];
  Queue* out = &device->queues[1];
  for (u16 head = 0; head < 128; ++head) {
    prepare_buffer(in, head, 0);
    queue_offer(in, head);
  }
  queue_ring(in);
  const u64 doorbells = in->doorbells + out->doorbells;
  const u64 interrupted = interrupts[vector_of(device, 0)] + interrupts[vector_of(device, 1)];
  u64 sent = 0, back = 0;
  u16 free_heads[kDepth], free = 0;
  while (free < kDepth) {
    free_heads[free] = free;
    ++free;
  }
  const u64 start = now();
  while (back < count) {
    UsedElement used;
    const u64 before = sent + back;
    while (queue_take(out, &used)) free_heads[free++] = (u16)used.id;
    while (queue_take(in, &used)) {
      ++back;
      queue_offer(in, (u16)used.id);
    }
    // Never more on the way than there are buffers to come back into.
    for (; free > 0 && sent < count && sent - back < 64; ++sent) {
      const u16 head = free_heads[--free];
      prepare_frame(out, head, sent);
      queue_offer(out, head);
    }
    queue_ask(out);
    queue_ask(in);
    queue_notify(out);
    queue_notify(in);
    if (sent + back == before && !WAIT_FOR(in->used[1] != in->seen || out->used[1] != out->seen))
      give_up("frames are lost");
  }
  report("net-echo", kFrame, kDepth, count, now() - start, in->doorbells + out->doorbells - doorbells,
         interrupts[vector_of(device, 0)] + interrupts[vector_of(device, 1)] - interrupted);
}

static void bench_net(u64 alone, u64 requests, unsigned deep, bool echo) {
  static Device device;
  if (!begin(&device, kNet, "net", 2)) return;
  const Work work = {"net-send", kFrame, 1, prepare_frame, check_frame};
  if (echo) {
    measure_echo(&device, requests);
    return;
  }
  measure(&device, 1, &work, 1, alone);
  measure(&device, 1, &work, kDepth, requests);
  if (deep != 0) measure(&device, 1, &work, deep, requests);
}

void guest_main(void) {
  const u64 alone = option("requests_alone", 1000), requests = option("requests", 10000);
  const unsigned deep = (unsigned)option("deep", 0);
  if (deep > kDeepest) give_up("deeper than there are buffers for");
  print("bench: khz ");
  print_number(ticks_khz());
  print("\r\n");
  bench_rng(alone, requests);
  bench_block(alone, requests, deep);
  bench_net(alone, requests, deep, option("echo", 0) != 0);
  print("bench: done\r\n");
}
