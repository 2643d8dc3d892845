// What a virtio device is to its transport, and the transport to a device (virtio 1.2, chapters 2 and 3).
//
// Thread: every call in either direction with the transport's lock held; on vCPU threads (registers) or the
// event loop's (queues, completions). No call may block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "devices/virtio/queue.h"

namespace snug {

// Device ids, virtio 1.2 chapter 5.
enum class VirtioType : uint16_t {
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kRng = 4,
  kBalloon = 5,
  kSocket = 19,
  kFs = 26,
  kPmem = 27
};

// Feature bits, 6.
constexpr uint64_t kVirtioIndirect = uint64_t{1} << 28;
constexpr uint64_t kVirtioEventIdx = uint64_t{1} << 29;
constexpr uint64_t kVirtioVersion1 = uint64_t{1} << 32;
constexpr uint64_t kVirtioRingPacked = uint64_t{1} << 34;
constexpr uint64_t kVirtioRingReset = uint64_t{1} << 40;

// A queue, for whoever works on it in place of this process (the kernel's vhost).
struct VirtioRingPlace {
  VirtQueueLayout layout;
  // Adding 1 interrupts the guest for this queue; -1: that takes VirtioHost::interrupt().
  int interrupt_fd = -1;
};

// The transport, as its device sees it.
class VirtioHost {
 public:
  virtual ~VirtioHost() = default;
  virtual VirtQueue& queue(uint16_t index) = 0;
  virtual const GuestMemory& memory() const = 0;
  // Interrupts the guest if it wants to hear of what was pushed to this queue.
  virtual void used(uint16_t queue) = 0;
  // The same for a queue that somebody else works on, who knows that the guest wants it.
  virtual void interrupt(uint16_t /*queue*/) {}
  // The device's configuration has changed.
  virtual void config_changed() = 0;
  // The same by what the guest has asked for: it need not be told.
  virtual void config_updated() = 0;
  // The guest has broken the rules in a way that cannot be answered with an error: the device stands still
  // until it is reset (2.1.2).
  virtual void needs_reset(const std::string& why) = 0;
  // queue_ready() is called once more, soon: for a device that leaves the rest of a long queue for later.
  virtual void again(uint16_t queue) = 0;
  // What stop() has left under way is done.
  virtual void stopped() = 0;
  // What stop_queue() has left under way is done.
  virtual void queue_stopped(uint16_t queue) = 0;
  // Nothing when the queue is not running.
  virtual std::optional<VirtioRingPlace> ring_place(uint16_t /*queue*/) const { return std::nullopt; }
  // The queue's doorbell adds 1 to this descriptor from now on, once at once, and queue_ready() is not
  // called; -1: as before.
  virtual void ring_elsewhere(uint16_t /*queue*/, int /*event_fd*/) {}
};

class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;
  virtual VirtioType type() const = 0;
  virtual std::string_view name() const = 0;  // for messages: "rng", "disk vda"
  virtual uint32_t pci_class() const = 0;     // 24 bits
  // Feature bits beyond the transport's own.
  virtual uint64_t features() const { return 0; }
  // Those of the transport's own that it cannot have.
  virtual uint64_t refused_features() const { return 0; }
  // The largest size of each queue: how many there are.
  virtual std::span<const uint16_t> queue_sizes() const = 0;

  // Device configuration space; what lies outside reads as 0 and ignores writes.
  virtual void read_config(uint64_t offset, std::span<std::byte> data) const = 0;
  virtual void write_config(uint64_t /*offset*/, std::span<const std::byte> /*data*/) {}

  // The driver is ready. `features`: what was negotiated. `host` stays valid until stop().
  virtual void start(VirtioHost& host, uint64_t features) = 0;
  // There may be chains in a queue.
  virtual void queue_ready(uint16_t queue) = 0;
  // Reset: touches no queue and no guest memory once it returns true. Otherwise requests are still under way,
  // host.stopped() tells when they are done, and the guest waits for that.
  virtual bool stop() = 0;
  // The driver takes one queue back (2.6.1) while the device runs on; its chains are not to be given back.
  // As stop(), for this queue: host.queue_stopped() tells when what was under way is done. The queue may
  // start anew then, with queue_ready().
  virtual bool stop_queue(uint16_t queue) = 0;
  // The guest wants to be interrupted for this queue elsewhere: see VirtioHost::ring_place().
  virtual void interrupt_moved(uint16_t /*queue*/) {}

  // --- snapshots: no vCPU runs; all between start() and stop() ---

  // "" or, in words, why its state cannot be told.
  virtual std::string unsaveable() const { return {}; }
  // Every chain that it holds is put back into its queue (VirtQueue::put_back()). False: requests are still
  // under way; it is asked again when some are done.
  virtual bool settle() { return true; }
  // After settle(): what the guest could observe, or what was on its way, with nothing of the host in it.
  virtual void save(SectionWriter& /*out*/) const {}
  // In the place of start(), for one that goes on where another stood. What is wrong with it is the reader's
  // to say.
  virtual void go_on(VirtioHost& host, uint64_t features, SectionReader& in) {
    start(host, features);
    restore(in);
  }
  // Just after start().
  virtual void restore(SectionReader& /*in*/) {}
  // Whatever settle() has done is over: it works again.
  virtual void wake() {}
};

}  // namespace snug
