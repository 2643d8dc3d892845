#include "devices/virtio/queue_registers.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/base/endian.h"

namespace snug {

void VirtioQueueRegisters::add(uint16_t max_size) {
  queues_.emplace_back(memory_).max_size = max_size;
  clear(static_cast<uint16_t>(count() - 1));
}

// 4.1.3.1: registers are written whole; of the 64-bit ones also each half.
VirtioQueueRegisters::Wish VirtioQueueRegisters::write(uint64_t offset, size_t width, uint64_t value) {
  if (selected_ >= count()) return Wish::kNothing;
  Queue& queue = queues_[selected_];
  const auto is = [&](uint64_t where, size_t size) { return offset == where && width == size; };
  if (is(common::kQueueVector, 2)) return Wish::kVector;
  if (is(common::kQueueReset, 2)) return value == 1 ? Wish::kReset : Wish::kNothing;
  // 4.1.4.3.2: the rest is settled while the queue is enabled, and when the driver is ready unless the queue
  // has been reset.
  if (!queue.open) return Wish::kNothing;
  if (is(common::kQueueEnable, 2)) return value == 1 ? Wish::kEnable : Wish::kNothing;
  if (is(common::kQueueSize, 2)) {
    // 0 or more than the device can: the queue cannot be used, which enabling it will say.
    queue.layout.size = value <= queue.max_size ? static_cast<uint16_t>(value) : 0;
    return Wish::kNothing;
  }
  struct Address {
    uint64_t where;
    uint64_t* field;
  };
  for (const auto& [where, field] : {Address{common::kQueueDescriptors, &queue.layout.descriptors},
                                     Address{common::kQueueDriver, &queue.layout.available},
                                     Address{common::kQueueDevice, &queue.layout.used}}) {
    if (is(where, 8)) *field = value;
    if (is(where, 4)) *field = (*field & ~uint64_t{0xffffffff}) | value;
    if (is(where + 4, 4)) *field = (*field & 0xffffffff) | value << 32;
  }
  return Wish::kNothing;
}

void VirtioQueueRegisters::show(std::span<std::byte, common::kSize> image) const {
  const auto put = [image](uint64_t where, size_t width, uint64_t value) {
    store_le(image.subspan(where, width), value);
  };
  put(common::kQueueCount, 2, count());
  put(common::kQueueSelect, 2, selected_);
  // 4.1.4.3.1: a queue that does not exist has size 0.
  if (selected_ >= count()) return;
  const Queue& queue = queues_[selected_];
  put(common::kQueueSize, 2, queue.layout.size);
  put(common::kQueueVector, 2, queue.vector);
  put(common::kQueueEnable, 2, queue.enabled ? 1 : 0);
  put(common::kQueueNotifyOffset, 2, selected_);
  put(common::kQueueDescriptors, 8, queue.layout.descriptors);
  put(common::kQueueDriver, 8, queue.layout.available);
  put(common::kQueueDevice, 8, queue.layout.used);
  put(common::kQueueNotifyData, 2, selected_);
  put(common::kQueueReset, 2, queue.resetting ? 1 : 0);
}

std::string VirtioQueueRegisters::enable(uint16_t index, const VirtQueueFeatures& features) {
  Queue& queue = queues_[index];
  queue.enabled = true;
  queue.open = false;
  return queue.ring.start(queue.layout, features);
}

void VirtioQueueRegisters::settle() {
  for (Queue& queue : queues_) queue.open = false;
}

void VirtioQueueRegisters::begin_reset(uint16_t index) {
  queues_[index].ring.stop();
  queues_[index].resetting = true;
}

void VirtioQueueRegisters::stop() {
  for (Queue& queue : queues_) queue.ring.stop();
}

void VirtioQueueRegisters::clear(uint16_t index) {
  Queue& queue = queues_[index];
  queue.ring.stop();
  queue.enabled = queue.resetting = false;
  queue.open = true;
  queue.vector = common::kNoVector;
  queue.layout = {.size = queue.max_size, .descriptors = 0, .available = 0, .used = 0};
}

void VirtioQueueRegisters::clear() {
  for (uint16_t i = 0; i < count(); ++i) clear(i);
  selected_ = 0;
}

bool VirtioQueueRegisters::any_resetting() const { return std::ranges::any_of(queues_, &Queue::resetting); }

void VirtioQueueRegisters::save(SectionWriter& out) const {
  out.number(count());
  out.number(selected_);
  for (const Queue& queue : queues_) {
    out.number(queue.layout.size);
    out.number(queue.layout.descriptors);
    out.number(queue.layout.available);
    out.number(queue.layout.used);
    out.number(queue.vector);
    out.flag(queue.enabled);
    out.flag(queue.open);
    queue.ring.save(out);
  }
}

void VirtioQueueRegisters::restore(const VirtQueueFeatures& features, SectionReader& in) {
  if (const auto queues = in.number<uint16_t>(); queues != count() && in.good())
    return in.refuse(fmt::format("{} queues, and the device has {}", queues, count()));
  selected_ = in.number<uint16_t>();
  for (Queue& queue : queues_) {
    queue.layout.size = in.number_to<uint16_t>(queue.max_size);
    queue.layout.descriptors = in.number<uint64_t>();
    queue.layout.available = in.number<uint64_t>();
    queue.layout.used = in.number<uint64_t>();
    queue.vector = in.number<uint16_t>();
    queue.enabled = in.flag();
    queue.open = in.flag();
    // One that cannot be there was refused when the guest enabled it, and does not run.
    if (in.good() && queue.enabled) (void)queue.ring.start(queue.layout, features);
    queue.ring.restore(in);
  }
}

}  // namespace snug
