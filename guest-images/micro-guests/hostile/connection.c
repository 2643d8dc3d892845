// Connections that there are, on port 77 of the host, whose other end sends back what it gets; and a guest
// that does with them what it may not (virtio 1.2, 5.10.6).
#include "hostile.h"

enum { kRequest = 1, kResponse = 2, kRefuse = 3, kShutdown = 4, kData = 5, kUpdate = 6, kAsk = 7 };
enum { kEchoPort = 77, kRoom = 0x10000, kPacket = 4096 };

static u32 guest_port = 5000;

static Queue* in(Device* device) { return &device->queues[0]; }
static Queue* out(Device* device) { return &device->queues[1]; }

static SocketHeader packet(const Device* device, u16 operation, u32 length) {
  return (SocketHeader){read64(device->config), 2, guest_port, kEchoPort, length, 1, operation, 0, kRoom, 0};
}

// Sends it, with as much behind it as `bytes` says.
static Outcome send(Device* device, SocketHeader header, u32 bytes) {
  UsedElement used;
  memcpy(scratch, &header, sizeof header);
  set_descriptor(out(device), 0, address_of(scratch), sizeof header + bytes, 0, 0);
  queue_offer(out(device), 0);
  queue_ring(out(device));
  REQUIRE(WAIT_FOR(queue_take(out(device), &used)), "a packet does not come back from the device");
  return NULL;
}

static Outcome send_plain(Device* device, u16 operation) {
  return send(device, packet(device, operation, 0), 0);
}

// Whether a packet of the connection with one of two operations has come; others are passed over.
static bool one_has_come(Device* device, u16 operation, u16 other) {
  UsedElement used;
  while (queue_take(in(device), &used)) {
    const volatile Descriptor* descriptor = in(device)->descriptors + used.id % in(device)->size;
    const SocketHeader received = *(const SocketHeader*)(uintptr_t)descriptor->address;
    queue_offer(in(device), (u16)used.id);
    queue_ring(in(device));
    if (received.port == guest_port && (received.operation == operation || received.operation == other))
      return true;
  }
  return false;
}

static bool has_come(Device* device, u16 operation) { return one_has_come(device, operation, operation); }

static Outcome wait_for(Device* device, u16 operation) {
  REQUIRE(WAIT_FOR(has_come(device, operation)), "what the device should send does not come");
  return NULL;
}

static Outcome connect(Device* device) {
  ++guest_port;
  TRY(send_plain(device, kRequest));
  return wait_for(device, kResponse);
}

// A connection that works: a packet goes there and back.
static Outcome connect_and_try(Device* device) {
  TRY(connect(device));
  TRY(send(device, packet(device, kData, 100), 100));
  return wait_for(device, kData);
}

// The device resets that connection, and others still work.
static Outcome is_reset(Device* device) {
  TRY(wait_for(device, kRefuse));
  TRY(connect_and_try(device));
  return expect_works(device);
}

static Outcome still_works(Device* device) {
  TRY(send(device, packet(device, kData, 10), 10));
  TRY(wait_for(device, kData));
  return expect_works(device);
}

// --- operations at the wrong time ------------------------------------------------------------------------

static Outcome wrong_operation(Device* device, u16 operation) {
  TRY(connect(device));
  TRY(send_plain(device, operation));
  return is_reset(device);
}
static Outcome requested_twice(Device* device) { return wrong_operation(device, kRequest); }
static Outcome answered_unasked(Device* device) { return wrong_operation(device, kResponse); }
static Outcome operation_0(Device* device) { return wrong_operation(device, 0); }
static Outcome operation_8(Device* device) { return wrong_operation(device, 8); }
static Outcome operation_65535(Device* device) { return wrong_operation(device, 0xffff); }

static Outcome refused_and_used_on(Device* device) {
  TRY(connect(device));
  TRY(send_plain(device, kRefuse));
  TRY(send(device, packet(device, kData, 100), 100));
  return is_reset(device);
}

static Outcome of_another_type(Device* device) {
  TRY(connect(device));
  for (u16 type = 2; type < 5; ++type) {
    SocketHeader header = packet(device, kData, 10);
    header.type = type;
    TRY(send(device, header, 10));
    TRY(wait_for(device, kRefuse));
  }
  return expect_works(device);
}

static Outcome of_another_cid(Device* device) {
  TRY(connect_and_try(device));
  SocketHeader header = packet(device, kRefuse, 0);
  header.source_cid += 1;
  TRY(send(device, header, 0));
  header = packet(device, kRefuse, 0);
  header.cid = 1;
  TRY(send(device, header, 0));
  return still_works(device);
}

// --- lengths ---------------------------------------------------------------------------------------------

static Outcome says_more_than_it_brings(Device* device) {
  TRY(connect(device));
  TRY(send(device, packet(device, kData, kPacket), 10));
  return is_reset(device);
}
static Outcome says_4_gib(Device* device) {
  TRY(connect(device));
  TRY(send(device, packet(device, kData, 0xffffffff), kPacket));
  return is_reset(device);
}
static Outcome brings_more_than_it_says(Device* device) {
  TRY(connect(device));
  TRY(send(device, packet(device, kData, 100), kPacket));
  TRY(wait_for(device, kData));
  return still_works(device);
}
static Outcome data_of_0_bytes(Device* device) {
  TRY(connect_and_try(device));
  for (unsigned i = 0; i < 100; ++i) TRY(send(device, packet(device, kData, 0), 0));
  return still_works(device);
}
static Outcome data_behind_other_operations(Device* device) {
  TRY(connect_and_try(device));
  for (unsigned i = 0; i < 10; ++i) TRY(send(device, packet(device, i % 2 == 0 ? kUpdate : kAsk, 500), 500));
  return still_works(device);
}

// --- credit ----------------------------------------------------------------------------------------------

// The other end can send nothing back, and so takes nothing more in the end.
static Outcome data_beyond_its_credit(Device* device) {
  TRY(connect(device));
  SocketHeader header = packet(device, kData, 60000);
  header.room = 0;
  for (unsigned i = 0; i < 400 && !has_come(device, kRefuse); ++i) TRY(send(device, header, 60000));
  TRY(send(device, header, 60000));
  return is_reset(device);
}

static Outcome no_room(Device* device) {
  TRY(connect(device));
  SocketHeader header = packet(device, kData, 100);
  header.room = 0;
  TRY(send(device, header, 100));
  TRY(wait_for(device, kAsk));
  return still_works(device);
}

static Outcome taken_runs_ahead(Device* device) {
  TRY(connect(device));
  static const u32 counts[] = {1, 0x7fffffff, 0x80000000, 0xffffffff, 12345};
  for (unsigned i = 0; i < sizeof counts / sizeof *counts; ++i) {
    SocketHeader header = packet(device, kUpdate, 0);
    header.taken = counts[i];
    header.room = i % 2 == 0 ? 0xffffffff : 1;
    TRY(send(device, header, 0));
  }
  return expect_works(device);
}

static Outcome credit_asked_for_without_end(Device* device) {
  TRY(connect_and_try(device));
  for (unsigned i = 0; i < 300; ++i) TRY(send_plain(device, kAsk));
  TRY(wait_for(device, kUpdate));
  return still_works(device);
}

// --- ends ------------------------------------------------------------------------------------------------

static Outcome shut(Device* device, u32 flags) {
  SocketHeader header = packet(device, kShutdown, 0);
  header.flags = flags;
  return send(device, header, 0);
}

static Outcome shut_of_nothing(Device* device) {
  TRY(connect_and_try(device));
  for (unsigned i = 0; i < 10; ++i) TRY(shut(device, 0));
  return still_works(device);
}
static Outcome shut_with_every_flag(Device* device) {
  TRY(connect_and_try(device));
  TRY(shut(device, 0xffffffff));
  return is_reset(device);
}
static Outcome shut_again_and_again(Device* device) {
  TRY(connect_and_try(device));
  for (unsigned i = 0; i < 10; ++i) TRY(shut(device, 1));
  TRY(shut(device, 3));
  TRY(wait_for(device, kRefuse));
  for (unsigned i = 0; i < 10; ++i) TRY(shut(device, 3));
  return expect_works(device);
}
static Outcome data_after_its_end(Device* device) {
  TRY(connect_and_try(device));
  TRY(shut(device, 2));
  TRY(send(device, packet(device, kData, 100), 100));
  // The other end may have closed already; then the data was on its way, and the guest has the last word.
  REQUIRE(WAIT_FOR(one_has_come(device, kRefuse, kShutdown)), "the connection goes on");
  TRY(send_plain(device, kRefuse));
  TRY(connect_and_try(device));
  return expect_works(device);
}

static Outcome many_connections(Device* device) {
  for (unsigned i = 0; i < 100; ++i) TRY(connect(device));
  return connect_and_try(device);
}

// Each is refused by the guest as soon as it is there.
static Outcome connected_and_gone(Device* device) {
  for (unsigned i = 0; i < 100; ++i) {
    TRY(connect(device));
    TRY(send_plain(device, kRefuse));
  }
  return connect_and_try(device);
}

static Outcome device_reset_in_between(Device* device) {
  for (unsigned i = 0; i < 8; ++i) {
    TRY(connect(device));
    for (unsigned k = 0; k < 4; ++k) TRY(send(device, packet(device, kData, kPacket), kPacket));
    pool_release(0);
    TRY(start(device, DEFAULT_FEATURES));
  }
  // Of the one that the reset has ended.
  TRY(send(device, packet(device, kData, 100), 100));
  return is_reset(device);
}

// What comes has no buffers to lie in.
static Outcome without_buffers(Device* device) {
  TRY(connect(device));
  Queue* queue = in(device);
  const u16 before = queue->used[1];
  SocketHeader header = packet(device, kData, 60000);
  header.room = 0x7fffffff;
  for (unsigned i = 0; i < 4; ++i) TRY(send(device, header, 60000));
  REQUIRE(WAIT_FOR((u16)(queue->used[1] - before) >= queue->size / 4), "what is sent does not come back");
  REQUIRE(virtio_reset(device), "a reset with data under way is never done");
  return NULL;
}

static const Case cases[] = {
    {"requested_twice", requested_twice},
    {"answered_unasked", answered_unasked},
    {"operation_0", operation_0},
    {"operation_8", operation_8},
    {"operation_65535", operation_65535},
    {"refused_and_used_on", refused_and_used_on},
    {"of_another_type", of_another_type},
    {"of_another_cid", of_another_cid},
    {"says_more_than_it_brings", says_more_than_it_brings},
    {"says_4_gib", says_4_gib},
    {"brings_more_than_it_says", brings_more_than_it_says},
    {"data_of_0_bytes", data_of_0_bytes},
    {"data_behind_other_operations", data_behind_other_operations},
    {"data_beyond_its_credit", data_beyond_its_credit},
    {"no_room", no_room},
    {"taken_runs_ahead", taken_runs_ahead},
    {"credit_asked_for_without_end", credit_asked_for_without_end},
    {"shut_of_nothing", shut_of_nothing},
    {"shut_with_every_flag", shut_with_every_flag},
    {"shut_again_and_again", shut_again_and_again},
    {"data_after_its_end", data_after_its_end},
    {"many_connections", many_connections},
    {"connected_and_gone", connected_and_gone},
    {"device_reset_in_between", device_reset_in_between},
    {"without_buffers", without_buffers},
};
const CaseSet connection_cases = CASE_SET("connection", kVsock, cases);
