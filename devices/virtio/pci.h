// Virtio over PCI (virtio 1.2, 4.1), modern only: one BAR. It begins with what can be read as memory, the
// common configuration, the device's configuration and the MSI-X table; the registers whose reads do
// something, and the notifications, have pages of their own behind it.
//
// Owner: the machine, as Synced<VirtioPci>. Thread: registers on vCPU threads, notified() and the device's
// completions on the event loop's, all with the lock held.
// The guest controls every access and every byte of its rings.
#pragma once

#include <memory>

#include "devices/pci/device.h"
#include "devices/pci/msix.h"
#include "devices/pci/register_pages.h"
#include "devices/virtio/device.h"
#include "devices/virtio/doorbells.h"
#include "devices/virtio/queue_registers.h"
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
    bool packed_rings = true;  // offer them
  };

  // `line`, `gsi`: INTx, for a guest that does not use MSI-X. `device`, `line` and what the
  // environment names must outlive it.
  static Result<std::unique_ptr<Synced<VirtioPci>>> create(VirtioDevice& device, IrqLine& line, uint8_t gsi,
                                                           const Environment& environment);
  // create() only.
  VirtioPci(VirtioDevice& device, IrqLine& line, uint8_t gsi, const Environment& environment);

  // --- wiring, by the machine ---

  // The beginning of the BAR, always current.
  std::span<const std::byte> register_pages() const { return pages_.bytes(); }

  // One per queue: counts the guest's notifications.
  int doorbell_fd(uint16_t queue) const { return doorbells_.fd(queue); }
  uint16_t queue_count() const { return queues_.count(); }
  // A doorbell has rung.
  void notified(uint16_t queue);
  // Whether the device works: the driver is ready, and neither side has given up.
  bool live() const;
  // The BAR is at this address from now on / nowhere. While the driver is ready the doorbells there are
  // bound.
  Result<void> map_doorbells(uint64_t bar_address);
  void unmap_doorbells() { doorbells_.move(0); }

  // --- snapshots, while no vCPU runs ---

  // "" or, in words, why its state cannot be told.
  std::string unsaveable() const { return started_ ? device_.unsaveable() : ""; }
  // False: requests are under way, or a reset; ask again when some are done. True: it can be saved.
  bool settle();
  void save(SectionWriter& out) const;
  // Into one that no driver has touched yet, and whose configuration space was restored.
  void restore(SectionReader& in);
  // All its doorbells ring: what was put back is taken again. `interrupt`: the guest hears from each queue,
  // too, since what it was told last may have been lost.
  void wake(bool interrupt);

  // --- the guest's side ---

  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;
  void before_config_read(uint16_t offset, size_t length) override;
  void after_config_write(uint16_t offset, size_t length) override;
  bool config_is_memory() const override;

 private:
  Result<void> prepare(const Environment& environment);
  void add_capabilities();

  // VirtioHost
  VirtQueue& queue(uint16_t index) override { return queues_.ring(index); }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t queue) override;
  void interrupt(uint16_t queue) override;
  void config_changed() override;
  void config_updated() override;
  void needs_reset(const std::string& why) override;
  void again(uint16_t queue) override { doorbells_.ring_own(queue); }
  void stopped() override;
  void queue_stopped(uint16_t queue) override;
  std::optional<VirtioRingPlace> ring_place(uint16_t queue) const override;
  void ring_elsewhere(uint16_t queue, int event_fd) override;

  void show_common();
  bool show_device_config();
  void write_common(uint64_t offset, std::span<const std::byte> data);
  void write_queue_register(uint64_t offset, size_t width, uint64_t value);
  void write_status(uint8_t value);
  bool accepts(uint8_t bit) const;
  void start_device();
  VirtQueueFeatures ring_features() const;
  void enable_queue(uint16_t queue);
  void reset_queue(uint16_t queue);
  void reset();
  void reset_registers();
  uint16_t checked_vector(uint64_t value) const;
  void raise(uint16_t vector, uint8_t cause);
  void update_line();
  bool config_access(uint64_t& offset, size_t& length) const;

  VirtioDevice& device_;
  IrqLine& line_;
  const GuestMemory& memory_;
  VirtioDoorbells doorbells_;
  RegisterPages pages_;
  std::unique_ptr<Msix> msix_;
  VirtioQueueRegisters queues_;
  const uint64_t offered_;  // features
  uint16_t config_access_capability_ = 0;

  // Registers (4.1.4.3) beside those of queues.
  uint8_t status_ = 0;
  uint8_t isr_ = 0;
  uint8_t generation_ = 0;
  uint16_t config_vector_ = common::kNoVector;
  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint64_t driver_features_ = 0;

  bool started_ = false;    // the device, by start()
  bool resetting_ = false;  // stop() has left requests under way
  bool complained_ = false;
  bool line_level_ = false;
};

}  // namespace snug
