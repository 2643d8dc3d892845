// The virtio devices of a machine: each in a PCI slot of its own, with its interrupt line, its doorbells and
// what else it waits for on the event loop. A new kind of device is one more add_ function.
//
// Owner: the machine. Thread: the event loop's; a device with a thread of its own does its work on that, and
// what belongs to its loop is only touched there, by LoopThread::call().
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/pci/root.h"
#include "devices/virtio/balloon/balloon.h"
#include "devices/virtio/block/block.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/block/disk_image.h"
#include "devices/virtio/console/channels.h"
#include "devices/virtio/console/console.h"
#include "devices/virtio/console/peer.h"
#include "devices/virtio/fs/fs.h"
#include "devices/virtio/net/net.h"
#include "devices/virtio/pci.h"
#include "devices/virtio/pmem/pmem.h"
#include "devices/virtio/vsock/vsock.h"
#include "vmm/base/result.h"
#include "vmm/core/bus.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/loop_thread.h"
#include "vmm/core/shared_irq_line.h"
#include "vmm/core/state.h"
#include "vmm/kvm/irq_routes.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine/pci_bars.h"

namespace snug {

struct NicConfig {
  NetConfig device;
  std::unique_ptr<NetBackend> backend;
  bool thread = false;  // of its own, instead of the loop's
};

struct VsockDeviceConfig {
  VsockConfig device;
  VsockBackend* backend = nullptr;  // the caller's
};

// A channel and the host's end of it.
struct ChannelEnd {
  std::string name;
  PortPeer* port = nullptr;  // the caller's
};

struct BalloonStatus {
  uint64_t target = 0;      // bytes, as the next two
  uint64_t size = 0;        // what the guest says it has
  uint64_t given_back = 0;  // to the host, since the start
  BalloonStats stats;       // as of the last time they were asked for
  bool stats_awaited = false;
};

class VirtioDevices {
 public:
  // All of it outlives this, but for `pci` and `bars`, which are used by the add_ functions only.
  struct Environment {
    EventLoop& loop;
    const GuestMemory& memory;
    kvm::Vm& vm;
    Synced<PciRoot>& pci;
    PciBars& bars;
    Bus& mmio;
    bool packed_rings;                 // offered to drivers
    std::function<void()> user_space;  // a program of the guest has a console or a channel open; any thread
    // A file in the guest's memory has become shorter: what to say. Once; the loop's thread; only posts.
    std::function<void(std::string)> lost_file;
    std::function<void()> thread_begins;  // what each thread of a device does first; may be empty
  };
  explicit VirtioDevices(const Environment& environment);
  ~VirtioDevices();

  // In the order in which the guest shall see them: slots 1, 2, ... Before the guest runs. Errors: what the
  // host refuses, a bus that is full.
  Result<void> add_disk(DiskConfig config);
  // `region`: that file in the guest's memory.
  Result<void> add_pmem(const PmemFile& file, const GuestMemory::FileRegion& region);
  Result<void> add_nic(NicConfig config);
  Result<void> add_share(FsConfig config);
  Result<void> add_vsock(const VsockDeviceConfig& config);
  Result<void> add_rng();
  Result<void> add_balloon(uint64_t target);
  // `port` outlives this.
  Result<void> add_console(PortPeer& port);
  // One device for all of them.
  Result<void> add_channels(const std::vector<ChannelEnd>& channels);
  // Once, behind all of them: starts the devices' own threads. Errors: the host has none left.
  Result<void> start();

  // What to say of a file in the guest's memory that has become shorter since; "": none has.
  std::string lost_file() const;

  // Of interface `index`: its cable pulled out; plugged in again; plugged into another backend.
  void disconnect_nic(size_t index);
  Result<void> reconnect_nic(size_t index);
  Result<void> connect_nic(size_t index, std::unique_ptr<NetBackend> backend);
  // Reaches for a port of the guest: VirtioVsock::connect(). Only with such a device.
  void connect_vsock(uint32_t guest_port, UniqueFd stream, VsockDone done);

  // The memory, bytes, that the guest is asked to give back. It may take its time. False: there is no
  // balloon.
  bool set_balloon(uint64_t bytes);
  // Asks the guest for new statistics; false when it tells none.
  bool refresh_balloon();
  std::optional<BalloonStatus> balloon();

  // --- snapshots, while no vCPU runs ---

  // "" or which device cannot be saved, and why.
  std::string unsaveable();
  // What has to be copied with it, in the order of the disks.
  const std::vector<DiskSource>& written_disks() const { return written_disks_; }
  // As they are while they are settled.
  const std::vector<const VirtioFs*>& shares() const { return shares_; }
  // Nothing of them works until what it returns is gone.
  using Stillness = std::vector<std::unique_lock<std::mutex>>;
  Stillness hold_still();
  // The rest with that held. False: requests are under way still: let go, and try again.
  bool settle();
  void save(StateWriter& state);
  // What the host's ends hold of it, for a process that has their descriptors too: a section for each
  // nic_end() and overlay_end().
  void save_ends(StateWriter& ends) const;
  static constexpr uint16_t kEndsVersion = 1;
  static std::string nic_end(size_t index) { return fmt::format("nic{}", index + 1); }
  // Of the disks that are ephemeral.
  static std::string overlay_end(size_t number) { return fmt::format("overlay{}", number + 1); }
  // Before start(), when configuration spaces were restored. Errors: a state that is none, or other devices'.
  Result<void> restore(StateReader& state);
  // They work on what lies in their queues: Stillness is over. `interrupt`: see VirtioPci::wake().
  void wake(bool interrupt);

  // Of hvc `index`: the size of the window that shows it.
  void set_console_size(size_t index, const WindowSize& size);

 private:
  // A device with all that it hangs on, in the order of use.
  struct Slot {
    std::unique_ptr<LoopThread> thread;  // or none: the loop's
    std::unique_ptr<VirtioDevice> device;
    std::unique_ptr<IrqLine> line;
    std::unique_ptr<Synced<VirtioPci>> transport;
    std::vector<EventLoop::Watch> watches;  // doorbells, the device's own events
  };
  // A disk among the slots, whose file may become larger or smaller.
  struct Disk {
    VirtioBlock* device = nullptr;
    Synced<VirtioPci>* transport = nullptr;
    int fd = -1;  // the configuration's
  };
  // A file in the guest's memory.
  struct Pmem {
    PmemFile file;
    uint64_t gpa = 0;
    // Of those that are read-only, at `gpa` of the bus. Outlives the device.
    std::unique_ptr<Synced<RefusedWrites>> refused;
  };
  // A network interface among the slots.
  struct Nic {
    VirtioNet* device = nullptr;
    Slot* slot = nullptr;
    std::vector<EventLoop::Watch> watches;  // the backend's
  };

  // Other devices of one kind among the slots.
  template <class Device>
  struct Placed {
    Device* device = nullptr;
    Synced<VirtioPci>* transport = nullptr;
  };

  // Into the next slot, which stays where it is. Errors: as the add_ functions.
  Result<Slot*> add(std::unique_ptr<VirtioDevice> device, bool own_thread = false);
  EventLoop& loop_of(Slot& slot) { return slot.thread ? slot.thread->loop() : environment_.loop; }
  // Runs `task` on the thread of the slot's loop.
  static void call(Slot& slot, const std::function<void()>& task);
  // Calls back on the slot's loop, with the lock of its transport held.
  Result<EventLoop::Watch> watch(Slot& slot, int fd, uint32_t epoll_events, std::function<void()> callback);
  static void poll_disk(Slot& slot, VirtioBlock& disk);
  Result<void> watch_sizes();
  Result<void> watch_nic(Nic& nic);

  Environment environment_;
  std::vector<Pmem> pmem_;
  kvm::IrqRoutes irq_routes_;
  SharedIrqLine irq_;  // INTA of every slot
  std::deque<Slot> slots_;
  size_t disk_count_ = 0;
  std::vector<Disk> disks_;                // those that can be resized
  std::vector<DiskSource> written_disks_;  // those that the guest may write to
  EventLoop::Timer sizes_;                 // of disks and files
  std::vector<Nic> nics_;
  std::vector<const VirtioFs*> shares_;
  VirtioVsock* vsock_ = nullptr;
  Synced<VirtioPci>* vsock_transport_ = nullptr;
  Placed<VirtioBalloon> balloon_;
  std::vector<Placed<VirtioConsole>> consoles_;
  std::vector<PortPeer*> ports_;  // that tell us of events
};

}  // namespace snug
