// Virtio over PCI (virtio 1.2, 4.1), modern only: one BAR with a page each for the common configuration, the
// ISR status, the device's configuration and the notifications, then the MSI-X table.
//
// Owner: the machine, as Synced<VirtioPci>. Thread: registers on vCPU threads, notified() and the device's
// completions on the event loop's, all with the lock held.
// The guest controls every access and every byte of its rings.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "devices/pci/device.h"
#include "devices/pci/msix.h"
#include "devices/virtio/device.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/bus.h"
#include "vmm/core/doorbell.h"

namespace snug {

class VirtioPci final : public PciDevice, public BusDevice, private VirtioHost {
 public:
  static constexpr unsigned kBar = 0;
  static constexpr uint64_t kBarSize = 0x8000;

  struct Environment {
    const GuestMemory& memory;
    DoorbellBinder& doorbells;
    MsiVectorSource& vectors;
  };

  // `line`, `gsi`: INTx, for a guest that does not use MSI-X. `device`, `line` and what the
  // environment names must outlive it.
  static Result<std::unique_ptr<Synced<VirtioPci>>> create(VirtioDevice& device, IrqLine& line, uint8_t gsi,
                                                           const Environment& environment);
  // create() only.
  VirtioPci(VirtioDevice& device, IrqLine& line, uint8_t gsi, const Environment& environment);
  ~VirtioPci() override;

  // --- wiring, by the machine ---

  // One per queue: counts the guest's notifications.
  int doorbell_fd(uint16_t queue) const { return queues_[queue].doorbell.get(); }
  uint16_t queue_count() const { return static_cast<uint16_t>(queues_.size()); }
  // A doorbell has rung (its count has been taken).
  void notified(uint16_t queue);
  // The BAR is at this address from now on / nowhere. While the driver is ready the doorbells there are
  // bound.
  Result<void> map_doorbells(uint64_t bar_address);
  void unmap_doorbells();

  // --- the guest's side ---

  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;
  void before_config_read(uint16_t offset, size_t length) override;
  void after_config_write(uint16_t offset, size_t length) override;

 private:
  struct Queue {
    explicit Queue(const GuestMemory& memory) : ring(memory) {}
    VirtQueue ring;
    VirtQueueLayout layout;
    uint16_t max_size = 0;
    uint16_t vector = 0xffff;
    bool enabled = false;
    UniqueFd doorbell;
  };

  Result<void> prepare(const Environment& environment);
  void add_capabilities();

  // VirtioHost
  VirtQueue& queue(uint16_t index) override { return queues_[index].ring; }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t queue) override;
  void config_changed() override;
  void needs_reset(const std::string& why) override;
  void again(uint16_t queue) override;
  void stopped() override;

  bool live() const;
  void read_common(uint64_t offset, std::span<std::byte> data);
  void write_common(uint64_t offset, std::span<const std::byte> data);
  void write_queue_register(uint64_t offset, size_t width, uint64_t value);
  void write_status(uint8_t value);
  void write_queue_enable(Queue& queue);
  void reset_queue(uint16_t index);
  void reset();
  void reset_registers();
  uint16_t checked_vector(uint64_t value) const;
  void interrupt(uint16_t vector, uint8_t cause);
  void update_line();
  Result<void> bind_doorbells();
  void unbind_doorbells();
  Doorbell doorbell_at(uint64_t bar_address, uint16_t queue) const;
  bool config_access(uint64_t& offset, size_t& length) const;

  VirtioDevice& device_;
  IrqLine& line_;
  const GuestMemory& memory_;
  DoorbellBinder& doorbells_;
  std::unique_ptr<Msix> msix_;
  std::vector<Queue> queues_;
  uint64_t bar_address_ = 0;  // 0: nowhere
  bool bound_ = false;        // the doorbells, at bar_address_
  uint16_t config_access_capability_ = 0;

  // Registers (4.1.4.3).
  uint8_t status_ = 0;
  uint8_t isr_ = 0;
  uint8_t generation_ = 0;
  uint16_t config_vector_ = 0xffff;
  uint16_t queue_select_ = 0;
  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint64_t driver_features_ = 0;

  bool started_ = false;    // the device, by start()
  bool resetting_ = false;  // stop() has left requests under way
  bool complained_ = false;
  bool line_level_ = false;
};

}  // namespace snug
