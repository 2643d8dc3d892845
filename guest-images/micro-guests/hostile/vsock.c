// Packets of sockets that cannot be, and buffers for them (virtio 1.2, 5.10.6).
#include "hostile.h"

enum { kHeader = sizeof(SocketHeader) };
enum { kSourceCid = 0, kCid = 8, kSourcePort = 16, kPort = 20, kLength = 24, kType = 28, kOperation = 30 };

static Queue* in(Device* device) { return &device->queues[0]; }
static Queue* out(Device* device) { return &device->queues[1]; }

// A packet that is right in itself, at the start of scratch.
static void write_header(Device* device, u16 operation, u32 length) {
  memset(scratch, 0, kHeader);
  const u64 cid = read64(device->config), host = 2;
  const u32 port = 77, room = 0x10000;
  const u16 type = 1;
  memcpy(scratch + kSourceCid, &cid, 8);
  memcpy(scratch + kCid, &host, 8);
  memcpy(scratch + kSourcePort, &port, 4);
  memcpy(scratch + kPort, &port, 4);
  memcpy(scratch + kLength, &length, 4);
  memcpy(scratch + kType, &type, 2);
  memcpy(scratch + kOperation, &operation, 2);
  memcpy(scratch + 36, &room, 4);
}

static Outcome send(Device* device, u32 bytes) {
  UsedElement used;
  set_descriptor(out(device), 0, address_of(scratch), bytes, 0, 0);
  queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "a packet does not come back from the device");
  return expect_works(device);
}

static Outcome send_operation(Device* device, u16 operation, u32 length, u32 bytes) {
  write_header(device, operation, length);
  return send(device, bytes);
}

static Outcome every_operation(Device* device) {
  for (u16 operation = 0; operation < 10; ++operation) TRY(send_operation(device, operation, 0, kHeader));
  return send_operation(device, 0xffff, 0, kHeader);
}

static Outcome data_to_nobody(Device* device) { return send_operation(device, 5, 4096, kHeader + 4096); }
static Outcome less_data_than_said(Device* device) { return send_operation(device, 5, 4096, kHeader + 10); }
static Outcome more_data_than_said(Device* device) { return send_operation(device, 5, 10, kHeader + 4096); }
static Outcome length_of_4_gib(Device* device) { return send_operation(device, 5, 0xffffffff, kHeader); }
static Outcome request_with_data(Device* device) { return send_operation(device, 1, 100, kHeader + 100); }

static Outcome with(Device* device, u16 operation, u32 offset, u64 value, u32 size) {
  write_header(device, operation, 0);
  memcpy(scratch + offset, &value, size);
  return send(device, kHeader);
}

static Outcome other_sources(Device* device) {
  static const u64 cids[] = {0, 1, 2, 4, 0xffffffff, ~(u64)0};
  for (unsigned i = 0; i < 6; ++i) TRY(with(device, 1, kSourceCid, cids[i], 8));
  return NULL;
}

static Outcome other_destinations(Device* device) {
  static const u64 cids[] = {0, 1, 3, 0x100000002, 0xffffffff, ~(u64)0};
  for (unsigned i = 0; i < 6; ++i) TRY(with(device, 1, kCid, cids[i], 8));
  return NULL;
}

static Outcome other_types(Device* device) {
  static const u16 types[] = {0, 2, 3, 0x7fff, 0xffff};
  for (u16 operation = 1; operation < 8; ++operation)
    for (unsigned i = 0; i < 5; ++i) TRY(with(device, operation, kType, types[i], 2));
  return NULL;
}

static Outcome of_ones(Device* device) {
  memset(scratch, 0xff, 4096);
  return send(device, 4096);
}

static Outcome short_packet(Device* device, u32 bytes) {
  write_header(device, 1, 0);
  set_descriptor(out(device), 0, address_of(scratch), bytes, 0, 0);
  return submit_lives(device, 0);
}
static Outcome of_1_byte(Device* device) { return short_packet(device, 1); }
static Outcome of_43_bytes(Device* device) { return short_packet(device, 43); }

static Outcome writable(Device* device) {
  set_descriptor(out(device), 0, address_of(scratch), kHeader, kWrite, 0);
  return submit_lives(device, 0);
}

// --- buffers ---------------------------------------------------------------------------------------------

static Outcome begin(Device* device) {
  pool_release(0);
  TRY(prepare(device, DEFAULT_FEATURES));
  for (u16 i = 0; i < 3; ++i) virtio_set_queue(device, i, 0);
  virtio_run(device);
  return NULL;
}

// Each is answered, and more wait for an answer than the device may keep.
static Outcome answers_without_buffers(Device* device) {
  TRY(begin(device));
  write_header(device, 1, 0);
  set_descriptor(out(device), 0, address_of(scratch), kHeader, 0, 0);
  for (unsigned round = 0; round < 8; ++round) {
    for (unsigned i = 0; i < 100; ++i) queue_offer(out(device), 0);
    queue_ring(out(device));
    // Not all are taken: the device waits for buffers.
    for (u64 until = now() + ticks_khz() / 4; now() < until && out(device)->used[1] != out(device)->offered;)
      pause();
    if (out(device)->used[1] != out(device)->offered) break;
  }
  return expect_lives(device);
}

static Outcome buffers_of(Device* device, u64 address, u32 length, u16 flags) {
  TRY(begin(device));
  for (u16 i = 0; i < 8; ++i) {
    set_descriptor(in(device), i, address, length, flags, i);
    queue_offer(in(device), i);
  }
  queue_ring(in(device));
  for (unsigned i = 0; i < 4; ++i) {
    queue_offer(out(device), make_chain(device, out(device), 0));
    queue_ring(out(device));
  }
  return expect_lives(device);
}
static Outcome buffers_of_1(Device* device) {
  return buffers_of(device, address_of(scratch) + 4096, 1, kWrite);
}
static Outcome buffers_of_43(Device* device) {
  return buffers_of(device, address_of(scratch) + 4096, 43, kWrite);
}
static Outcome buffers_readable(Device* device) {
  return buffers_of(device, address_of(scratch) + 4096, 2048, 0);
}
static Outcome buffers_in_hole(Device* device) {
  return buffers_of(device, option("low_end", 0), 2048, kWrite);
}
static Outcome buffers_looping(Device* device) {
  return buffers_of(device, address_of(scratch) + 4096, 16, kWrite | kNext);
}

static Outcome event_queue_broken(Device* device) {
  Queue* queue = &device->queues[2];
  *available_index(queue) = 0x7777;
  queue_ring(queue);
  return expect_lives(device);
}

static const Case cases[] = {
    {"every_operation", every_operation},
    {"data_to_nobody", data_to_nobody},
    {"less_data_than_said", less_data_than_said},
    {"more_data_than_said", more_data_than_said},
    {"length_of_4_gib", length_of_4_gib},
    {"request_with_data", request_with_data},
    {"other_sources", other_sources},
    {"other_destinations", other_destinations},
    {"other_types", other_types},
    {"of_ones", of_ones},
    {"of_1_byte", of_1_byte},
    {"of_43_bytes", of_43_bytes},
    {"writable", writable},
    {"answers_without_buffers", answers_without_buffers},
    {"buffers_of_1", buffers_of_1},
    {"buffers_of_43", buffers_of_43},
    {"buffers_readable", buffers_readable},
    {"buffers_in_hole", buffers_in_hole},
    {"buffers_looping", buffers_looping},
    {"event_queue_broken", event_queue_broken},
};
const CaseSet vsock_cases = CASE_SET("packet", kVsock, cases);
