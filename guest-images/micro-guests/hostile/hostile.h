// Guests that break the rules of virtio and PCI, one case at a time. A case is run on one device; afterwards
// the device is reset and has to work again.
#pragma once

#include "virtio.h"

// What was not as specified; NULL when all was.
typedef const char* Outcome;

// virtio 1.2, 5.10.6
typedef struct __attribute__((packed)) {
  u64 source_cid, cid;
  u32 source_port, port;
  u32 length;
  u16 type, operation;
  u32 flags, room, taken;
} SocketHeader;

typedef struct {
  const char* name;
  Outcome (*run)(Device* device);
} Case;

typedef struct {
  const char* name;
  DeviceType device;  // EVERY_DEVICE: each that is there
  u64 needs;          // features without which there is nothing to try
  const Case* cases;
  size_t count;
} CaseSet;
#define EVERY_DEVICE ((DeviceType)0)

#define CASE_SET_WITH(title, device, needs, cases) \
  { title, device, needs, cases, sizeof(cases) / sizeof *(cases) }
#define CASE_SET(title, device, cases) CASE_SET_WITH(title, device, 0, cases)

extern const CaseSet ring_cases, indirect_cases, packed_cases, layout_cases, queue_reset_cases, status_cases,
    register_cases, msix_cases, bar_cases, loop_cases, config_cases, block_cases, net_cases, rng_cases,
    vsock_cases, connection_cases, balloon_cases, console_cases, channel_cases, fs_cases, pmem_cases;

enum { kScratchBytes = 1 << 20 };
extern u8 scratch[kScratchBytes];  // for whatever requests carry

// --- set-up ------------------------------------------------------------------------------------------

// All that the device offers but what is harmful to the tests themselves.
#define DEFAULT_FEATURES (~(u64)0 & ~RING_PACKED)

// Reset, negotiation, MSI-X, every queue, DRIVER_OK.
Outcome start(Device* device, u64 features);
// The same up to where the queues would be set up.
Outcome prepare(Device* device, u64 features);
// A device that has met anything works again: BAR back in its place, reset, start, a good request.
Outcome recover(Device* device);
// Where the machine has put the BAR; address it by another place from now on.
u64 home_of(const Device* device);
void use_bar_at(Device* device, u64 bar);

// --- requests ----------------------------------------------------------------------------------------

// The queue that takes requests.
Queue* requests_of(Device* device);
// The queue in which the device answers: the same, or for those that bring things, the one with buffers for
// them.
bool receives(const Device* device);
Queue* answers_of(Device* device);
// Fills descriptors `first` to `first` + 2 with a good request; returns its head.
enum { kChainLength = 3 };
u16 make_chain(Device* device, Queue* queue, u16 first);
// The same into any table, for indirect descriptors.
void fill_chain(Device* device, volatile Descriptor* table, u16 first);
// Offers such a request as often as the ring has entries, and rings.
void fill_ring(Device* device, Queue* queue);
// A request that must be answered rightly, without a reset before it.
Outcome good_request(Device* device);

// --- what must come of it ----------------------------------------------------------------------------

Outcome expect_needs_reset(Device* device);  // DEVICE_NEEDS_RESET, and nothing moves any more
Outcome expect_works(Device* device);        // as if nothing had been
Outcome expect_lives(Device* device);        // one of the two
// Offers a chain, rings, and expects.
Outcome submit_broken(Device* device, u16 head);
Outcome submit_works(Device* device, u16 head);
Outcome submit_lives(Device* device, u16 head);

#define REQUIRE(condition, what)   \
  do {                             \
    if (!(condition)) return what; \
  } while (0)
#define TRY(outcome)                 \
  do {                               \
    const Outcome tried = (outcome); \
    if (tried != NULL) return tried; \
  } while (0)
