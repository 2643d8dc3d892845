// A driver for virtio devices over PCI (virtio 1.2, 4.1), modern only, with split rings and MSI-X: what a
// benchmark needs, and what a hostile guest bends.
#pragma once

#include "pci.h"

typedef enum {
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kRng = 4,
  kBalloon = 5,
  kVsock = 19,
  kFs = 26,
  kPmem = 27,
  kChannels = 0x100 + kConsole,  // a console device with many ports (5.3.3: MULTIPORT)
} DeviceType;

#define FEATURE(bit) ((u64)1 << (bit))
#define INDIRECT FEATURE(28)
#define EVENT_IDX FEATURE(29)
#define VERSION_1 FEATURE(32)
#define RING_PACKED FEATURE(34)

// 2.1: device status.
enum { kAcknowledge = 1, kDriver = 2, kDriverOk = 4, kFeaturesOk = 8, kNeedsReset = 64, kFailed = 128 };

// 4.1.4.3: common configuration.
enum {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kQueueCount = 0x12,
  kStatus = 0x14,
  kGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOffset = 0x1e,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueReset = 0x3a,
};

// 2.7.5: the descriptor table.
typedef struct {
  u64 address;
  u32 length;
  u16 flags;
  u16 next;
} Descriptor;
enum { kNext = 1, kWrite = 2, kIndirect = 4 };

typedef struct {
  u32 id;
  u32 length;
} UsedElement;

enum { kQueuesMax = 6, kQueueSizeMax = 1024 };

typedef struct {
  u16 index, size;
  volatile Descriptor* descriptors;
  volatile u16* available;  // flags, index, ring, used event
  volatile u16* used;       // flags, index, ring, available event
  u16 offered, seen;        // entries put into / taken from the rings so far
  u16 announced;            // `offered` at the last doorbell
  bool event_idx;
  u64 doorbell;
  u64 doorbells;  // rung so far
} Queue;

typedef struct {
  const char* name;
  DeviceType type;
  u8 slot;
  // Where the capabilities say.
  u64 bar;
  u64 common, isr, config, notify;
  u32 multiplier;
  u64 table, pending;
  u16 msix, access;  // capabilities in configuration space
  u16 vector_count;
  u16 queue_count;
  u64 offered, features;
  Queue queues[kQueuesMax];
  unsigned first_vector;  // of ours: its queue i has first_vector + i, its configuration the one before
} Device;

// Finds the first device of a type. False when there is none.
bool virtio_find(DeviceType type, const char* name, Device* device);

// The steps of 3.1.1, one after the other.
bool virtio_reset(Device* device);
bool virtio_negotiate(Device* device, u64 wanted);
void virtio_use_msix(Device* device);
// A fresh ring; nothing in it. `size` 0: the largest.
void virtio_set_queue(Device* device, u16 index, u16 size);
// The registers of a queue, without making a ring.
void virtio_place_queue(Device* device, u16 index, u16 size, u64 descriptors, u64 available, u64 used);
void virtio_run(Device* device);
u8 virtio_status(const Device* device);

// Vector of a queue, as an index of interrupts[].
static inline unsigned vector_of(const Device* device, u16 queue) { return device->first_vector + queue; }
static inline unsigned config_vector_of(const Device* device) { return device->first_vector - 1; }

static inline volatile u16* available_index(const Queue* queue) { return queue->available + 1; }
static inline volatile u16* used_event(const Queue* queue) { return queue->available + 2 + queue->size; }
static inline volatile u16* available_event(const Queue* queue) {
  return queue->used + 2 + 4 * (size_t)queue->size;
}

void set_descriptor(Queue* queue, u16 index, u64 address, u32 length, u16 flags, u16 next);
// Makes a chain available; the device need not hear of it before queue_notify().
void queue_offer(Queue* queue, u16 head);
// Rings the doorbell if the device asks for it / whatever it asks for.
void queue_notify(Queue* queue);
void queue_ring(Queue* queue);
// Takes the next used element. False when there is none yet.
bool queue_take(Queue* queue, UsedElement* element);
// Asks for an interrupt with the next used element.
void queue_ask(Queue* queue);
