#include "virtio.h"

// 4.1.4: capability types, and offsets in a capability.
enum { kCapCommon = 1, kCapNotify = 2, kCapIsr = 3, kCapDevice = 4, kCapAccess = 5 };
enum { kCapType = 3, kCapBar = 4, kCapOffset = 8, kCapExtra = 16 };
enum { kIdVendor = 0x09, kIdMsix = 0x11 };
enum { kMultiport = 1 };
enum { kMsixEnable = 0x8000, kMsixFunctionMask = 0x4000 };

static unsigned vectors_given = 0;

static void read_capability(Device* device, u16 at) {
  const u8 slot = device->slot;
  if (pci_read8(slot, at) == kIdMsix) {
    const u32 table = pci_read32(slot, (u16)(at + 4)), pending = pci_read32(slot, (u16)(at + 8));
    device->msix = at;
    device->vector_count = (u16)((pci_read16(slot, (u16)(at + 2)) & 0x7ff) + 1);
    device->table = pci_bar(slot, table & 7) + (table & ~7u);
    device->pending = pci_bar(slot, pending & 7) + (pending & ~7u);
    return;
  }
  if (pci_read8(slot, at) != kIdVendor) return;
  const u64 bar = pci_bar(slot, pci_read8(slot, (u16)(at + kCapBar)));
  const u64 address = bar + pci_read32(slot, (u16)(at + kCapOffset));
  switch (pci_read8(slot, (u16)(at + kCapType))) {
    case kCapCommon:
      device->bar = bar;
      device->common = address;
      break;
    case kCapNotify:
      device->notify = address;
      device->multiplier = pci_read32(slot, (u16)(at + kCapExtra));
      break;
    case kCapIsr:
      device->isr = address;
      break;
    case kCapDevice:
      device->config = address;
      break;
    case kCapAccess:
      device->access = at;
      break;
    default:
      break;
  }
}

static u64 offered_features(const Device* device) {
  u64 bits = 0;
  for (u32 i = 0; i < 2; ++i) {
    write32(device->common + kDeviceFeatureSelect, i);
    bits |= (u64)read32(device->common + kDeviceFeature) << (32 * i);
  }
  return bits;
}

bool virtio_find(DeviceType type, const char* name, Device* device) {
  for (u8 slot = 1; slot < kSlots; ++slot) {
    if (pci_read32(slot, kPciVendor) != (0x10400000u | ((u32)type & 0xff) << 16 | 0x1af4u)) continue;
    memset(device, 0, sizeof *device);
    device->name = name;
    device->type = type;
    device->slot = slot;
    for (u16 at = pci_read8(slot, kPciCapabilities); at != 0; at = pci_read8(slot, (u16)(at + 1)))
      read_capability(device, at);
    pci_write16(slot, kPciCommand, kPciMemory | kPciBusMaster);
    device->offered = offered_features(device);
    const bool ports = (device->offered & FEATURE(kMultiport)) != 0;
    if ((type == kConsole && ports) || (type == kChannels && !ports)) continue;
    device->queue_count = read16(device->common + kQueueCount);
    device->first_vector = vectors_given + 1;
    vectors_given += kQueuesMax + 1;
    if (vectors_given > kVectors) give_up("too many devices for the guest's vectors");
    return true;
  }
  return false;
}

u8 virtio_status(const Device* device) { return read8(device->common + kStatus); }

bool virtio_reset(Device* device) {
  write8(device->common + kStatus, 0);
  // 2.4.1: done when it reads 0.
  return WAIT_FOR(virtio_status(device) == 0);
}

bool virtio_negotiate(Device* device, u64 wanted) {
  write8(device->common + kStatus, kAcknowledge);
  write8(device->common + kStatus, kAcknowledge | kDriver);
  device->features = wanted & device->offered;
  for (u32 i = 0; i < 2; ++i) {
    write32(device->common + kDriverFeatureSelect, i);
    write32(device->common + kDriverFeature, (u32)(device->features >> (32 * i)));
  }
  write8(device->common + kStatus, kAcknowledge | kDriver | kFeaturesOk);
  return (virtio_status(device) & kFeaturesOk) != 0;
}

// Each entry of the table a vector of its own: configuration, then the queues.
void virtio_use_msix(Device* device) {
  pci_write16(device->slot, (u16)(device->msix + 2), kMsixEnable | kMsixFunctionMask);
  for (u32 i = 0; i < device->vector_count && i <= kQueuesMax; ++i) {
    const u64 entry = device->table + 16 * i;
    write32(entry, 0xfee00000);
    write32(entry + 4, 0);
    write32(entry + 8, kFirstVector + device->first_vector - 1 + i);
    write32(entry + 12, 0);
  }
  pci_write16(device->slot, (u16)(device->msix + 2), kMsixEnable);
  write16(device->common + kConfigVector, 0);
}

void virtio_place_queue(Device* device, u16 index, u16 size, u64 descriptors, u64 available, u64 used) {
  const u64 common = device->common;
  write16(common + kQueueSelect, index);
  write16(common + kQueueSize, size);
  write16(common + kQueueVector, (u16)(index + 1));
  write32(common + kQueueDescriptors, (u32)descriptors);
  write32(common + kQueueDescriptors + 4, (u32)(descriptors >> 32));
  write32(common + kQueueDriver, (u32)available);
  write32(common + kQueueDriver + 4, (u32)(available >> 32));
  write32(common + kQueueDevice, (u32)used);
  write32(common + kQueueDevice + 4, (u32)(used >> 32));
}

void virtio_set_queue(Device* device, u16 index, u16 size) {
  Queue* queue = &device->queues[index];
  write16(device->common + kQueueSelect, index);
  if (size == 0) size = read16(device->common + kQueueSize);
  if (size > kQueueSizeMax) size = kQueueSizeMax;
  memset(queue, 0, sizeof *queue);
  queue->index = index;
  queue->size = size;
  queue->event_idx = (device->features & EVENT_IDX) != 0;
  queue->descriptors = allocate(16 * (size_t)size, 4096);
  queue->available = allocate(6 + 2 * (size_t)size, 4096);
  queue->used = allocate(6 + 8 * (size_t)size, 4096);
  virtio_place_queue(device, index, size, address_of(queue->descriptors), address_of(queue->available),
                     address_of(queue->used));
  queue->doorbell = device->notify + (u64)read16(device->common + kQueueNotifyOffset) * device->multiplier;
  write16(device->common + kQueueEnable, 1);
}

void virtio_run(Device* device) {
  write8(device->common + kStatus, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
}

void set_descriptor(Queue* queue, u16 index, u64 address, u32 length, u16 flags, u16 next) {
  volatile Descriptor* descriptor = queue->descriptors + index;
  descriptor->address = address;
  descriptor->length = length;
  descriptor->flags = flags;
  descriptor->next = next;
}

void queue_offer(Queue* queue, u16 head) {
  queue->available[2 + queue->offered % queue->size] = head;
  ++queue->offered;
  __asm__ volatile("" : : : "memory");  // x86 keeps the order of stores
  *available_index(queue) = queue->offered;
}

void queue_ring(Queue* queue) {
  ++queue->doorbells;
  queue->announced = queue->offered;
  write32(queue->doorbell, queue->index);
}

void queue_notify(Queue* queue) {
  fence();
  if (queue->event_idx) {
    // 2.7.10.2: whether the device's event index lies among the entries offered since.
    const u16 event = *available_event(queue);
    if ((u16)(queue->offered - event - 1) >= (u16)(queue->offered - queue->announced)) return;
  } else if ((queue->used[0] & 1) != 0) {
    return;
  }
  queue_ring(queue);
}

bool queue_take(Queue* queue, UsedElement* element) {
  if (queue->used[1] == queue->seen) return false;
  __asm__ volatile("" : : : "memory");
  const volatile u16* at = queue->used + 2 + 4 * (size_t)(queue->seen % queue->size);
  element->id = (u32)at[0] | (u32)at[1] << 16;
  element->length = (u32)at[2] | (u32)at[3] << 16;
  ++queue->seen;
  return true;
}

void queue_ask(Queue* queue) {
  if (queue->event_idx) *used_event(queue) = queue->seen;
}
