// One boot of one guest: memory, VM, buses, devices, kernel, vCPUs. A reset makes a new Machine; nothing of
// the old one survives but the console's host end.
//
// Thread: everything on the loop's thread, but for the devices and guest_event(), which vCPUs call.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "boot/kernel.h"
#include "devices/legacy/serial_peer.h"
#include "devices/pci/root.h"
#include "devices/pci/windows.h"
#include "vmm/base/result.h"
#include "vmm/core/bus.h"
#include "vmm/core/dirty_log.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/lifecycle.h"
#include "vmm/core/state.h"
#include "vmm/core/thread_kind.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine/drain_timer.h"
#include "vmm/machine/kernel_cache.h"
#include "vmm/machine/legacy_devices.h"
#include "vmm/machine/pci_bars.h"
#include "vmm/machine/run_state.h"
#include "vmm/machine/vcpu_threads.h"
#include "vmm/machine/virtio_devices.h"

namespace snug {

// Open files and numbers: building a machine opens nothing by name.
struct MachineConfig {
  uint32_t cpus = 1;
  uint64_t memory = 0;                  // bytes
  int kernel_fd = -1;                   // the caller's, open for reading
  KernelCache* kernel_cache = nullptr;  // the caller's
  std::vector<int> initrd_fds;
  std::string cmdline;
  bool kaslr = true;
  bool stop_on_panic = true;  // vCPUs stop as soon as the guest reports a panic
  std::vector<DiskConfig> disks;
  std::vector<PmemFile> pmem;  // at most GuestMemory::kFilesMax
  std::vector<NicConfig> nics;
  std::vector<FsConfig> shares;
  std::optional<VsockDeviceConfig> vsock;
  bool rng = true;                  // an entropy device
  bool packed_rings = true;         // offered to virtio drivers
  bool pci_ports = false;           // Linux may reach configuration space by ports
  std::optional<uint64_t> balloon;  // the bytes it is to have at first; nothing: no balloon
  std::vector<PortPeer*> consoles;  // the caller's
  std::vector<ChannelEnd> channels;
  // Where it begins, in place of its kernel: as save() has told it, and the RAM of that moment, which nobody
  // may write to any more.
  struct Saved {
    std::vector<std::byte> state;
    int memory = -1;      // the caller's
    std::string touched;  // what own_pages() takes
    // That file is to be its RAM, and it is the same machine, which another process has run so far.
    bool same = false;
  };
  std::optional<Saved> saved;
  // What each thread of the machine does before all else; may be empty.
  std::function<void(ThreadKind)> thread_begins;
};

// What happens to a machine, told on the loop's thread.
struct MachineEvents {
  std::function<void(GuestEvent, uint32_t value)> guest_event;
  std::function<void(VcpuReport)> vcpu_end;
  // It cannot go on: what to say.
  std::function<void(std::string)> failed;
  // A sign of user space: a program opens a console or a channel. Once or more often.
  std::function<void()> user_space;
};

class Machine final : public LifecycleSink {
 public:
  // Errors: everything that set-up can meet; the message says which step.
  static Result<std::unique_ptr<Machine>> build(const kvm::Kvm& kvm, MachineConfig config, EventLoop& loop,
                                                SerialPeer& console, MachineEvents events);
  ~Machine() override;

  Result<void> start();
  void pause();
  void resume();
  // Stops and joins every vCPU; `final_state` says why. Idempotent.
  void stop(RunState final_state);
  RunState state() const { return states_.current(); }

  void press_power_button();

  // --- snapshots: paused ---

  // Its state. Nothing: requests of devices are under way still; they need the loop, and a moment.
  // `write_rest` is called while nothing writes to RAM or disks, with the locks of all devices held. wake()
  // afterwards, however it ends. Errors: what cannot be saved; those of `write_rest`.
  Result<std::optional<std::vector<std::byte>>> save(const std::function<Result<void>()>& write_rest);
  // Which pages of RAM are written to while it runs, by the guest and its devices.
  std::unique_ptr<DirtyLog> dirty_log();
  void wake() { virtio_->wake(false); }

  // To reach devices while the guest runs.
  VirtioDevices& virtio() { return *virtio_; }

  // The exit status that the guest has asked for; 0 unless it has.
  int guest_status() { return legacy_->guest_status.lock()->status(); }
  // The guest would have reported a panic.
  bool reports_panics() { return legacy_->pvpanic.lock()->has_driver(); }
  const boot::LoadedKernel& kernel() const { return kernel_; }
  const GuestMemory& memory() const { return memory_; }
  // After stop().
  std::string describe_vcpus() const { return vcpus_->describe(); }
  ExitStats exit_stats() const { return vcpus_->stats(); }
  uint64_t cpu_ns_at_first_run() const { return vcpus_->cpu_ns_at_first_run(); }

  void guest_event(GuestEvent event, uint32_t value) override;

 private:
  Machine(EventLoop& loop, SerialPeer& console, MachineEvents events, GuestMemory memory);
  Result<void> map_pmem(const kvm::Kvm& kvm, const MachineConfig& config);
  Result<void> create_devices();
  Result<void> create_virtio_devices(MachineConfig& config);
  Result<void> load(const MachineConfig& config);
  Result<void> create_vcpus(const MachineConfig& config, StateReader* state);
  Result<void> write_generation();
  void save_shape(StateWriter& state) const;
  Result<void> check_shape(StateReader& state);
  Result<void> restore_devices(StateReader& state, bool same);
  void connect_console();
  void keep_printing_back();

  EventLoop& loop_;
  SerialPeer& console_;
  MachineEvents events_;
  // Posts to the loop that arrive after this machine is gone find it expired.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  RunStates states_;
  bool stop_on_panic_ = true;
  uint32_t cpus_ = 0;

  // Declared in the order of use: vCPU threads go first, memory last.
  GuestMemory memory_;
  std::unique_ptr<kvm::Vm> vm_;
  Bus ports_{"port"};
  Bus mmio_{"MMIO"};
  std::unique_ptr<LegacyDevices> legacy_;
  std::unique_ptr<VirtioDevices> virtio_;
  std::unique_ptr<PciBars> bars_;
  std::unique_ptr<Synced<PciRoot>> pci_;
  std::unique_ptr<Synced<PciConfigPorts>> pci_ports_;
  std::unique_ptr<Synced<PciEcam>> pci_ecam_;
  boot::LoadedKernel kernel_;
  CpuState entry_;
  std::once_flag printing_kept_back_;
  std::unique_ptr<DrainTimer> drain_timer_;
  std::unique_ptr<VcpuThreads> vcpus_;
};

}  // namespace snug
