// Persistent memory (virtio 1.2, 5.19): a file of the host that the guest has as memory. The guest reads and
// writes it without the device, which says where it is and flushes it.
//
// Thread: as VirtioDevice; completed() on the event loop, with the transport's lock held. RefusedWrites: its
// bus's lock held, count() any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/device.h"
#include "vmm/core/bus.h"

namespace snug {

// An open file for the guest's memory.
struct PmemFile {
  int fd = -1;          // the caller's; open for writing unless it is read-only
  std::string storage;  // where the bytes are, for messages
  uint64_t bytes = 0;   // of the file
  uint64_t room = 0;    // bytes that the guest has at least; zeros behind the file, which is read-only then
  bool read_only = false;
  BlockEngine engine = BlockEngine::kAuto;  // that flushes
};

struct PmemConfig {
  std::string name;     // for messages
  std::string storage;  // the same
  uint64_t start = 0;   // guest-physical
  uint64_t size = 0;    // bytes
  bool read_only = false;
};

// What a guest writes to memory that it can only read ends here: an exit for each write. It is lost, which
// the log says once, and its next flush fails.
class RefusedWrites final : public BusDevice {
 public:
  RefusedWrites(std::string name, std::string storage)
      : name_(std::move(name)), storage_(std::move(storage)) {}
  uint64_t count() const { return count_; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  std::string name_;
  std::string storage_;
  std::atomic<uint64_t> count_ = 0;
};

class VirtioPmem final : public VirtioDevice {
 public:
  // `backend` flushes file 0; none of a read-only one, which has `refused` instead (outlives this).
  VirtioPmem(PmemConfig config, std::unique_ptr<BlockBackend> backend, const RefusedWrites* refused);

  // Counts up when completed() is to be called; -1: never.
  int event_fd() const { return backend_ ? backend_->event_fd() : -1; }
  void completed();

  VirtioType type() const override { return VirtioType::kPmem; }
  std::string_view name() const override { return config_.name; }
  uint32_t pci_class() const override { return 0x00ff00; }
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  std::string unsaveable() const override;
  bool settle() override { return !under_way_ && flushing_.empty() && waiting_.empty(); }
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

 private:
  static constexpr std::array<uint16_t, 1> kQueueSizes{64};
  static constexpr size_t kAnswerBytes = 4;
  // A request of the guest.
  struct Request {
    uint16_t head = 0;
    std::array<uint64_t, kAnswerBytes> answer{};  // where each byte of its answer goes, guest-physical
  };
  enum class Taken { kWaiting, kAnswered, kBroken };

  Taken take();
  void answer(const Request& request, int32_t value);
  void begin_flush();
  void fail(const std::string& why);

  PmemConfig config_;
  const RefusedWrites* refused_;
  uint64_t refused_before_ = 0;  // that a flush has told of
  VirtioHost* host_ = nullptr;
  bool started_ = false;
  bool failed_ = false;  // waits for a reset
  bool complained_ = false;
  bool under_way_ = false;       // flush_
  bool stopping_ = false;        // what is under way is not given back
  bool queue_stopping_ = false;  // the same, of the queue alone
  VirtChain chain_;
  // Requests that wait for flush_; and for the next one, since they came while it was under way.
  std::vector<Request> flushing_;
  std::vector<Request> waiting_;
  BlockRequest flush_;
  std::unique_ptr<BlockBackend> backend_;  // last: it ends only when it is done with flush_
};

}  // namespace snug
