// The queues of a transport with their registers in the common configuration (virtio 1.2, 4.1.4.3): which
// queue is selected, and of each its size, place, vector, and whether it is enabled.
//
// Owner: a transport, which does what takes more than the registers. Thread: the transport's lock held.
// The guest controls every write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/common_config.h"
#include "devices/virtio/queue.h"

namespace snug {

class VirtioQueueRegisters {
 public:
  explicit VirtioQueueRegisters(const GuestMemory& memory) : memory_(memory) {}

  // Set-up: one more queue, of at most `max_size` entries.
  void add(uint16_t max_size);
  uint16_t count() const { return static_cast<uint16_t>(queues_.size()); }

  VirtQueue& ring(uint16_t queue) { return queues_[queue].ring; }
  const VirtQueue& ring(uint16_t queue) const { return queues_[queue].ring; }
  const VirtQueueLayout& layout(uint16_t queue) const { return queues_[queue].layout; }
  uint16_t vector(uint16_t queue) const { return queues_[queue].vector; }
  bool enabled(uint16_t queue) const { return queues_[queue].enabled; }
  bool resetting(uint16_t queue) const { return queues_[queue].resetting; }

  // --- the guest's side ---

  void select(uint16_t queue) { selected_ = queue; }
  uint16_t selected() const { return selected_; }
  // What a write asks the transport to do with the queue that is selected.
  enum class Wish { kNothing, kVector, kEnable, kReset };
  Wish write(uint64_t offset, size_t width, uint64_t value);
  // Puts what the guest reads into an image of the common configuration.
  void show(std::span<std::byte, common::kSize> image) const;

  // --- the transport's ---

  void set_vector(uint16_t queue, uint16_t vector) { queues_[queue].vector = vector; }
  // Starts the ring where the registers say. "" or, in words, why it cannot be there; it counts as enabled
  // then, too.
  std::string enable(uint16_t queue, const VirtQueueFeatures& features);
  // The driver is ready: what is not enabled stays so, unless it is cleared.
  void settle();
  // Stops the ring; the reset is over with clear().
  void begin_reset(uint16_t queue);
  // Stops the rings, with registers as they are.
  void stop();
  // As they are before a driver comes: one, or all and the selection.
  void clear(uint16_t queue);
  void clear();

  // For snapshots, with no reset under way. Restored into registers as clear() leaves them.
  bool any_resetting() const;
  void save(SectionWriter& out) const;
  void restore(const VirtQueueFeatures& features, SectionReader& in);

 private:
  struct Queue {
    explicit Queue(const GuestMemory& memory) : ring(memory) {}
    VirtQueue ring;
    VirtQueueLayout layout;
    uint16_t max_size = 0;
    uint16_t vector = common::kNoVector;
    bool enabled = false;
    bool resetting = false;
    bool open = true;  // size and place may be written
  };

  const GuestMemory& memory_;
  std::vector<Queue> queues_;
  uint16_t selected_ = 0;
};

}  // namespace snug
