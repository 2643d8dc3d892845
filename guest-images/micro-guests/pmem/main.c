// A file as memory (virtio 1.2, 5.19), by commands on the serial port, a line each, numbers in hexadecimal:
//   read OFFSET          prints "read: " and the 8 bytes there as a number
//   write OFFSET NUMBER  writes 8 bytes; prints "written"
//   flush                prints "flush: " and the answer
//   out OFFSET           the disk takes its first sector from there; prints "out: " and the status
//   in OFFSET            the disk's first sector goes there; likewise
//   head OFFSET          the disk finds a request's header there; likewise
//   storm ROUNDS         resets the device that often with its ring full of flushes; prints "storm: " and how many
//                        were answered before
//   reboot               resets the machine, the ring full of flushes
//   quit                 powers off
// Where a device asks for a reset it prints "needs reset", and sets all up anew.
#include "virtio.h"

// Entered by PVH, with page tables of its own: those of the other way in end where the memory begins.
__asm__(
    ".pushsection .note.pvh, \"a\", @note\n"
    ".balign 4\n"
    ".long 4, 4, 18\n"
    ".asciz \"Xen\"\n"
    ".long pvh_start\n"
    ".popsection\n");

enum { kNoAnswer = 0x55 };

static Device pmem, disk;
static u64 start;

static struct {
  u32 type, reserved;
  u64 sector;
} header;
static u32 type;
static volatile u32 answer;
static volatile u8 status;

static void set_up(void) {
  Device* const all[] = {&pmem, &disk};
  pool_release(0);
  for (unsigned i = 0; i < 2; ++i) {
    if (all[i]->name == NULL) continue;
    if (!virtio_reset(all[i]) || !virtio_negotiate(all[i], VERSION_1))
      give_up("a device that does not start");
    virtio_use_msix(all[i]);
    virtio_set_queue(all[i], 0, 0);
    virtio_run(all[i]);
  }
}

// True when the chain at descriptor 0 is answered.
static bool answered(Device* device) {
  Queue* queue = &device->queues[0];
  UsedElement used;
  queue_offer(queue, 0);
  queue_ring(queue);
  bool done = false;
  if (!WAIT_FOR((done = queue_take(queue, &used)) || (virtio_status(device) & kNeedsReset) != 0))
    give_up("no answer");
  if (done) return true;
  print("needs reset\r\n");
  set_up();
  return false;
}

static void say(const char* what, u64 value) {
  print(what);
  print_hex(value);
  print("\r\n");
}

static void flush(void) {
  Queue* queue = &pmem.queues[0];
  type = 0;
  answer = kNoAnswer;
  set_descriptor(queue, 0, address_of(&type), sizeof type, kNext, 1);
  set_descriptor(queue, 1, address_of(&answer), sizeof answer, kWrite, 0);
  if (answered(&pmem)) say("flush: ", answer);
}

static void transfer(u64 offset, bool out) {
  Queue* queue = &disk.queues[0];
  header.type = out ? 1 : 0;
  header.sector = 0;
  status = kNoAnswer;
  set_descriptor(queue, 0, address_of(&header), sizeof header, kNext, 1);
  set_descriptor(queue, 1, start + offset, 512, (u16)(kNext | (out ? 0 : kWrite)), 2);
  set_descriptor(queue, 2, address_of(&status), 1, kWrite, 0);
  if (answered(&disk)) say(out ? "out: " : "in: ", status);
}

static void request_with_header_at(u64 offset) {
  Queue* queue = &disk.queues[0];
  status = kNoAnswer;
  set_descriptor(queue, 0, start + offset, sizeof header, kNext, 1);
  set_descriptor(queue, 1, address_of(&status), 1, kWrite, 0);
  if (answered(&disk)) say("head: ", status);
}

static void fill_ring(void) {
  Queue* queue = &pmem.queues[0];
  type = 0;
  answer = kNoAnswer;
  for (u16 head = 0; head + 1 < queue->size; head = (u16)(head + 2)) {
    set_descriptor(queue, head, address_of(&type), sizeof type, kNext, (u16)(head + 1));
    set_descriptor(queue, (u16)(head + 1), address_of(&answer), sizeof answer, kWrite, 0);
    queue_offer(queue, head);
  }
  queue_ring(queue);
}

// Now and then the flushes are on their way, now and then done. Behind the reset nothing is heard of them.
static void storm(u64 rounds) {
  u64 taken = 0;
  for (u64 round = 0; round < rounds; ++round) {
    Queue* queue = &pmem.queues[0];
    write64(start + round % 256 * 4096, round);
    fill_ring();
    for (u64 spin = 0; spin < round % 16 * 4096; ++spin) pause();
    UsedElement used;
    while (queue_take(queue, &used)) ++taken;
    if (!virtio_reset(&pmem)) give_up("a reset that does not end");
    const u16 index = queue->used[1];
    answer = kNoAnswer;
    for (u64 spin = 0; spin < 65536; ++spin) pause();
    if (queue->used[1] != index || answer != kNoAnswer) give_up("an answer behind the reset");
    set_up();
  }
  say("storm: ", taken);
}

static u64 number_at(const char** text) {
  u64 value = 0;
  while (**text == ' ') ++*text;
  for (; **text > ' '; ++*text)
    value = value * 16 + (u64)(**text <= '9' ? **text - '0' : (**text | 32) - 'a' + 10);
  return value;
}

void guest_main(void) {
  if (!virtio_find(kPmem, "pmem", &pmem)) give_up("no memory device");
  (void)virtio_find(kBlock, "blk", &disk);
  set_up();
  start = read64(pmem.config);
  say("pmem: ", read64(pmem.config + 8));
  for (;;) {
    char line[80];
    read_line(line, sizeof line);
    const char* at = line;
    while (*at > ' ') ++at;
    const u64 offset = number_at(&at);
    if (equal(line, "quit")) return;
    if (equal(line, "flush")) {
      flush();
    } else if (starts_with(line, "read ")) {
      say("read: ", read64(start + offset));
    } else if (starts_with(line, "write ")) {
      write64(start + offset, number_at(&at));
      print("written\r\n");
    } else if (starts_with(line, "out ") || starts_with(line, "in ")) {
      transfer(offset, line[0] == 'o');
    } else if (starts_with(line, "head ")) {
      request_with_header_at(offset);
    } else if (starts_with(line, "storm ")) {
      storm(offset);
    } else if (equal(line, "reboot")) {
      fill_ring();
      out8(0x64, 0xfe);
      give_up("no reset");
    } else {
      print("unknown command\r\n");
    }
  }
}
