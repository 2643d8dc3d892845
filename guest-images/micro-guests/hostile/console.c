// Output that never ends, buffers in which no input fits, and a window that the driver may not resize
// (virtio 1.2, 5.3.6).
#include "hostile.h"

enum { kColumns = 0, kPorts = 4, kEmergency = 8 };

static Queue* in(Device* device) { return answers_of(device); }
static Queue* out(Device* device) { return requests_of(device); }

// Offers what is in descriptor 0 and waits until it comes back.
static Outcome send(Device* device) {
  UsedElement used;
  queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "output does not come back from the device");
  REQUIRE(used.length == 0, "the device has written into output");
  return expect_works(device);
}

static Outcome output(Device* device, u64 address, u32 length, u16 flags) {
  set_descriptor(out(device), 0, address, length, flags, 0);
  return send(device);
}

static Outcome nothing(Device* device) { return output(device, address_of(scratch), 0, 0); }
static Outcome writable(Device* device) { return output(device, address_of(scratch), 4096, kWrite); }
// The other end sends all of it back, and nobody takes that: most is dropped.
static Outcome one_mebibyte(Device* device) { return output(device, address_of(scratch), kScratchBytes, 0); }
static Outcome a_hundred_mebibytes(Device* device) { return output(device, 0x20000000, 100 << 20, 0); }

static Outcome in_pieces_of_1_byte(Device* device) {
  for (u16 i = 0; i < out(device)->size - kChainLength; ++i)
    set_descriptor(out(device), i, address_of(scratch) + i, 1, i + 4 < out(device)->size ? kNext : 0,
                   (u16)(i + 1));
  return send(device);
}

static Outcome reset_within_output(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    pool_release(0);
    TRY(start(device, DEFAULT_FEATURES));
    set_descriptor(out(device), 0, 0x20000000, 100 << 20, 0, 0);
    for (unsigned k = 0; k < 8; ++k) queue_offer(out(device), 0);
    queue_ring(out(device));
    REQUIRE(virtio_reset(device), "a reset with output under way is never done");
  }
  return NULL;
}

// --- buffers for input -----------------------------------------------------------------------------------

// A device with its queues, and buffers as a case has them; then output that comes back as input.
static Outcome buffers(Device* device, u64 address, u32 length, u16 flags, u16 count) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  for (u16 i = 0; i < 2; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  for (u16 i = 0; i < count; ++i) {
    set_descriptor(in(device), i, address, length, flags, i);
    queue_offer(in(device), i);
  }
  queue_ring(in(device));
  set_descriptor(out(device), 0, address_of(scratch), 64, 0, 0);
  queue_offer(out(device), 0);
  queue_ring(out(device));
  return NULL;
}

static Outcome useless(Device* device, u32 length, u16 flags) {
  TRY(buffers(device, address_of(scratch) + 4096, length, flags, 8));
  REQUIRE(WAIT_FOR(in(device)->used[1] == 8), "useless buffers do not come back");
  return expect_lives(device);
}
static Outcome buffers_of_0(Device* device) { return useless(device, 0, kWrite); }
static Outcome buffers_readable(Device* device) { return useless(device, 64, 0); }

static Outcome buffers_of_1(Device* device) {
  TRY(buffers(device, address_of(scratch) + 4096, 1, kWrite, 32));
  REQUIRE(WAIT_FOR(in(device)->used[1] == 32), "32 bytes do not come in 32 buffers");
  for (u16 i = 0; i < 32; ++i)
    REQUIRE(in(device)->used[4 + 4 * i] == 1, "more than one byte in a buffer of one");
  return expect_lives(device);
}

static Outcome broken(Device* device, u64 address, u32 length, u16 flags) {
  TRY(buffers(device, address, length, flags, 8));
  REQUIRE(WAIT_FOR((virtio_status(device) & kNeedsReset) != 0), "the device does not ask for a reset");
  return NULL;
}
static Outcome buffers_in_hole(Device* device) { return broken(device, option("low_end", 0), 64, kWrite); }
static Outcome buffers_over_end(Device* device) {
  return broken(device, option("high_end", 0) - 32, 64, kWrite);
}
static Outcome buffers_wrapping(Device* device) { return broken(device, ~(u64)0 - 31, 64, kWrite); }
static Outcome buffers_looping(Device* device) {
  return broken(device, address_of(scratch) + 4096, 16, kWrite | kNext);
}
static Outcome buffers_of_2_gib(Device* device) {
  TRY(buffers(device, 0x20000000, 0x80000000, kWrite, 8));
  REQUIRE(WAIT_FOR(in(device)->used[1] != 0), "input does not come in a buffer of 2 GiB");
  return expect_lives(device);
}

static Outcome no_input_queue(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  virtio_set_queue(device, 1, 0);
  virtio_run(device);
  UsedElement used;
  set_descriptor(out(device), 0, address_of(scratch), 64, 0, 0);
  for (unsigned i = 0; i < 8; ++i) {
    queue_offer(out(device), 0);
    queue_ring(out(device));
    REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "output does not come back without an input queue");
    write32(device->notify, 0);
  }
  return expect_lives(device);
}

// --- configuration ---------------------------------------------------------------------------------------

// 5.3.4: a character, whatever the state of the device.
static Outcome emergency_writes(Device* device) {
  for (unsigned i = 0; i < 50; ++i) {
    write32(device->config + kEmergency, 0xffffff00 | '.');
    write16(device->config + kEmergency, '.');
    write8(device->config + kEmergency, '.');
  }
  TRY(expect_works(device));
  REQUIRE(virtio_reset(device), "a reset is never done");
  for (unsigned i = 0; i < 50; ++i) write32(device->config + kEmergency, '.');
  return NULL;
}

static Outcome window_written(Device* device) {
  const u32 size = read32(device->config + kColumns), ports = read32(device->config + kPorts);
  for (u32 i = 0; i < 8; ++i) write8(device->config + i, 0xff);
  write32(device->config + kColumns, 0x00ff00ff);
  write32(device->config + kPorts, 0xffffffff);
  REQUIRE(read32(device->config + kColumns) == size, "the driver sets the window's size");
  REQUIRE(read32(device->config + kPorts) == ports, "the driver sets the number of ports");
  return expect_works(device);
}

static Outcome queues_of_other_ports(Device* device) {
  for (u32 i = 2; i < 40; ++i) write32(device->notify + i * device->multiplier, i);
  for (u16 i = 2; i < 8; ++i) {
    virtio_place_queue(device, i, 16, 0x1000, 0x2000, 0x3000);
    write16(device->common + kQueueEnable, 1);
  }
  return expect_lives(device);
}

static const Case cases[] = {
    {"nothing", nothing},
    {"writable", writable},
    {"one_mebibyte", one_mebibyte},
    {"a_hundred_mebibytes", a_hundred_mebibytes},
    {"in_pieces_of_1_byte", in_pieces_of_1_byte},
    {"reset_within_output", reset_within_output},
    {"buffers_of_0", buffers_of_0},
    {"buffers_readable", buffers_readable},
    {"buffers_of_1", buffers_of_1},
    {"buffers_in_hole", buffers_in_hole},
    {"buffers_over_end", buffers_over_end},
    {"buffers_wrapping", buffers_wrapping},
    {"buffers_looping", buffers_looping},
    {"buffers_of_2_gib", buffers_of_2_gib},
    {"no_input_queue", no_input_queue},
    {"emergency_writes", emergency_writes},
    {"window_written", window_written},
    {"queues_of_other_ports", queues_of_other_ports},
};
const CaseSet console_cases = CASE_SET("byte", kConsole, cases);
