// Block device (virtio 1.2, 5.2). Data goes straight between guest memory and the backend.
//
// Thread: as VirtioDevice; completed() on the event loop, with the transport's lock held.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/changes.h"
#include "devices/virtio/device.h"

namespace snug {

struct BlockConfig {
  std::string name;                     // for messages
  std::string storage;                  // where the bytes are, for messages
  uint64_t size = 0;                    // bytes; what is beyond the last whole sector of 512 is not shown
  uint32_t block_size = 512;            // logical, bytes
  uint32_t physical_block_size = 4096;  // bytes: writes of less cost more
  bool read_only = false;
  bool ephemeral = false;      // nothing outlives the guest: there is nothing to flush
  bool written = false;        // an earlier boot may have written to it
  bool takes_flushes = false;  // an ephemeral one too, since its guest has been told so
  bool discard = false;        // offer DISCARD and WRITE_ZEROES
  std::string serial;          // at most 20 bytes
  uint16_t queues = 1;         // 1 to kMaxQueues
  uint16_t queue_size = 256;   // entries of each, a power of two from 16
};

class VirtioBlock final : public VirtioDevice {
 public:
  VirtioBlock(BlockConfig config, std::unique_ptr<BlockBackend> backend);

  // Counts up when completed() is to be called.
  int event_fd() const { return backend_->event_fd(); }
  void completed();
  // For a thread that looks for work by itself (EventLoop::poll_with). look() does what there is and asks
  // for no notification, which saves the guest its doorbell; rest() asks for them again. True when there was
  // something.
  bool look();
  bool rest();
  // The disk has become larger or smaller; the guest is told.
  void set_size(uint64_t bytes);
  // Bytes, whole sectors.
  uint64_t size() const { return config_.size; }

  // Whether it is noted from now on what the guest's requests change on the disk, those that are under way
  // included. Nothing that was noted before counts any more.
  void note_changes(bool noting);
  // What was noted since, or since the last call; only while it is.
  BlockChanges take_changes() { return std::exchange(*changes_, {}); }
  bool notes_changes() const { return changes_.has_value(); }
  // Whether the guest may have written to it, in this boot or an earlier one.
  bool written() const { return config_.written; }
  // Something that no request has done; only while it is noted.
  void note_change(uint64_t offset, uint64_t length) { changes_->add(offset, length); }

  VirtioType type() const override { return VirtioType::kBlock; }
  std::string_view name() const override { return config_.name; }
  uint32_t pci_class() const override { return 0x018000; }
  uint64_t features() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  bool settle() override { return under_way_ == 0; }
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

  static constexpr size_t kMaxQueues = 16;

 private:
  // A request of the guest that the backend works on.
  struct Slot {
    BlockRequest request;
    uint16_t queue = 0;
    uint16_t head = 0;
    uint64_t status_gpa = 0;
    uint32_t data_bytes = 0;       // that the guest may read afterwards
    std::vector<VirtBuffer> room;  // for them, of a request that reads
    // What it changes, bytes of the disk; the request itself is used up by then.
    uint64_t changed_at = 0;
    uint64_t changed_bytes = 0;
  };

  struct Queue {
    bool waiting = false;   // found no free slot
    bool silent = false;    // left without asking for notifications
    bool stopping = false;  // what is under way is not given back
    size_t under_way = 0;
  };

  // What became of a chain.
  enum class Taken { kUnderWay, kAnswered, kBroken };
  void serve(uint16_t queue, bool ask);
  bool take_all(uint16_t queue, unsigned& budget);
  Taken take(uint16_t queue);
  Taken answer(uint16_t queue, uint8_t status, uint32_t written);
  bool prepare_transfer(Slot& slot, uint64_t sector, bool read);
  bool prepare_range(Slot& slot, uint32_t type);
  uint8_t prepare(Slot& slot, uint32_t type, uint64_t sector);
  Taken answer_id(uint16_t queue);
  void fail(const std::string& why);
  void complain(const BlockRequest& request, int error);

  BlockConfig config_;
  std::vector<uint16_t> queue_sizes_;
  VirtioHost* host_ = nullptr;
  bool started_ = false;
  bool write_through_ = false;
  bool stopping_ = false;
  bool failed_ = false;  // waits for a reset
  bool complained_ = false;
  VirtChain chain_;
  uint64_t status_gpa_ = 0;                   // of chain_
  std::vector<std::unique_ptr<Slot>> slots_;  // never shrinks; requests stay where they are
  std::vector<size_t> free_;                  // indexes of slots_
  std::vector<Queue> queues_;
  size_t under_way_ = 0;
  std::optional<BlockChanges> changes_;
  std::unique_ptr<BlockBackend> backend_;  // last: it ends only when it is done with the slots
};

}  // namespace snug
