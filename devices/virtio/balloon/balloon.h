// Memory balloon (virtio 1.2, 5.5): the guest gives pages back to the host, which takes them out of the
// guest's RAM until the guest touches them again. Some it gives because the balloon is to have a size
// (inflate, deflate), others because it has no use for them at the moment (free-page reporting).
//
// Which pages is the guest's word: addresses outside of RAM are passed over, any other page of it may go. A
// guest can harm itself only.
//
// Thread: as VirtioDevice; set_target() and refresh_stats() on the event loop, with the transport's lock
// held.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "devices/virtio/device.h"

namespace snug {

// What the guest says about its memory (5.5.6.3); nothing where it says nothing. Bytes, or counts of events.
struct BalloonStats {
  std::optional<uint64_t> swap_in, swap_out, major_faults, minor_faults;
  std::optional<uint64_t> free, total, available, disk_caches;
  std::optional<uint64_t> huge_page_allocations, huge_page_failures;
};

struct BalloonConfig {
  uint64_t target = 0;  // bytes that the balloon is to have at first
  // Called with the lock held: the balloon's size has changed; the guest has told its statistics.
  std::function<void(uint64_t bytes)> on_size;
  std::function<void(const BalloonStats&)> on_stats;
};

class VirtioBalloon final : public VirtioDevice {
 public:
  explicit VirtioBalloon(BalloonConfig config);

  // The size that the guest is asked to bring the balloon to, bytes; it may take its time, or not get there.
  void set_target(uint64_t bytes);
  uint64_t target() const { return uint64_t{target_pages_} * kPage; }
  // What the guest says the balloon has, bytes.
  uint64_t size() const { return uint64_t{actual_pages_} * kPage; }
  // Asks the guest for new statistics. False when it tells none, or has not told those asked for before.
  bool refresh_stats();
  // Whether it has not told those yet that it was asked for.
  bool stats_awaited() const { return stats_awaited_; }
  const BalloonStats& stats() const { return stats_; }
  // Bytes given back to the host since the start, pages given twice counted twice.
  uint64_t given_back() const { return given_back_; }

  VirtioType type() const override { return VirtioType::kBalloon; }
  std::string_view name() const override { return "balloon"; }
  uint32_t pci_class() const override { return 0x00ff00; }
  uint64_t features() const override;
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void write_config(uint64_t offset, std::span<const std::byte> data) override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

 private:
  static constexpr uint64_t kPage = 4096;  // 5.5.6: whatever the guest's own pages are
  static constexpr std::array<uint16_t, 5> kQueueSizes{64, 64, 64, 64, 64};

  enum class Work { kInflate, kDeflate, kStats, kReport };
  // A chain that is not done with: its place in the list of pages.
  struct Held {
    VirtChain chain;
    bool valid = false;
    uint64_t done = 0;  // bytes of an inflate list; buffers of a report
  };

  Work work_of(uint16_t queue) const;
  bool do_chain(Work work, Held& held, size_t& budget);
  bool inflate(Held& held, size_t& budget);
  bool report(Held& held, size_t& budget);
  void give_back(uint64_t gpa, uint64_t length);
  void take_stats();

  BalloonConfig config_;
  VirtioHost* host_ = nullptr;
  uint64_t features_ = 0;
  uint32_t target_pages_ = 0;
  uint32_t actual_pages_ = 0;
  uint32_t poison_ = 0;
  std::array<Held, kQueueSizes.size()> held_;
  Held stats_buffer_;  // the guest's, until it is asked for new ones
  bool stats_awaited_ = false;
  BalloonStats stats_;
  uint64_t given_back_ = 0;
  std::vector<uint32_t> pages_;
};

}  // namespace snug
