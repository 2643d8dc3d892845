#include "vmm/machine/machine.h"

#include <algorithm>
#include <chrono>

#include "boot/acpi.h"
#include "boot/entry.h"
#include "boot/initrd.h"
#include "boot/reset_vector.h"
#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/log.h"
#include "vmm/core/address_map.h"
#include "vmm/core/memory_image.h"
#include "vmm/core/touched_pages.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine/kernel_placement.h"

namespace snug {
namespace {

// 64-bit BARs go above all memory, on a boundary that suits large ones.
uint64_t mmio64_start(const GuestMemory& memory) {
  return std::max(map::kHoleEnd, align_up(memory.end_of_all(), 4 * kGiB));
}

// Linux reaches configuration space by ports in segment 0 and by ECAM in any other. Ports are exits, ECAM is
// memory to read.
constexpr uint16_t kPciSegmentOfLinux = 1;

Result<GuestMemory> memory_for(const MachineConfig& config) {
  if (config.saved && config.saved->same)
    return GuestMemory::attach(SNUG_TRY(duplicate(config.saved->memory)), config.memory);
  // Who serves shares works on the guest's memory too.
  return config.shares.empty() ? GuestMemory::create(config.memory)
                               : GuestMemory::create_shared(config.memory);
}

}  // namespace

Machine::Machine(EventLoop& loop, SerialPeer& console, MachineEvents events, GuestMemory memory)
    : loop_(loop), console_(console), events_(std::move(events)), memory_(std::move(memory)) {}

Machine::~Machine() { stop(RunState::kKilled); }

Result<std::unique_ptr<Machine>> Machine::build(const kvm::Kvm& kvm, MachineConfig config, EventLoop& loop,
                                                SerialPeer& console, MachineEvents events) {
  if (config.cpus > kvm.max_vcpus())
    return fail_with_hint(fmt::format("{} vCPUs: this host's KVM allows {}", config.cpus, kvm.max_vcpus()),
                          "lower cpus");
  auto memory = SNUG_TRY(memory_for(config));
  std::unique_ptr<Machine> machine(new Machine(loop, console, std::move(events), std::move(memory)));
  machine->stop_on_panic_ = config.stop_on_panic;
  machine->cpus_ = config.cpus;
  SNUG_TRY(machine->map_pmem(kvm, config));
  // The cheap and likely failures first: a broken kernel is reported before anything is asked of KVM.
  std::optional<StateReader> state;
  if (config.saved) {
    state = SNUG_TRY(StateReader::parse(std::move(config.saved->state)));
    SNUG_TRY(machine->check_shape(*state));
    if (!config.saved->same) {
      SNUG_TRY(map_memory_image(machine->memory_, config.saved->memory));
      own_pages(machine->memory_, config.saved->touched);
    }
  } else {
    SNUG_TRY(machine->load(config));
  }
  machine->vm_ = SNUG_TRY(kvm::Vm::create(kvm));
  SNUG_TRY(machine->vm_->add_memory(machine->memory_));
  SNUG_TRY(machine->create_devices());
  SNUG_TRY(machine->create_virtio_devices(config));
  if (state) SNUG_TRY(kvm::restore_vm(*machine->vm_, *state));
  SNUG_TRY(machine->create_vcpus(config, state ? &*state : nullptr));
  machine->connect_console();
  // Behind the vCPUs: their interrupts go to local APICs that are there.
  if (state) SNUG_TRY(machine->restore_devices(*state, config.saved->same));
  return machine;
}

// Before anything is put behind RAM.
Result<void> Machine::map_pmem(const kvm::Kvm& kvm, const MachineConfig& config) {
  for (size_t i = 0; i < config.pmem.size(); ++i) {
    const PmemFile& file = config.pmem[i];
    GuestMemory::FileRegion region{};
    region.gpa = align_up(std::max(memory_.end_of_all(), map::kHoleEnd) + map::kPmemGap, map::kPmemAlignment);
    region.size = align_up(std::max(file.bytes, file.room), GuestMemory::kFileGranule);
    region.access = file.read_only ? GuestMemory::Access::kRead : GuestMemory::Access::kReadWrite;
    region.fd = file.fd;
    region.bytes = file.bytes;
    SNUG_TRY(with_context(memory_.add_file(region, "disk " + file.storage), "disk " + file.storage));
  }
  if (config.pmem.empty()) return {};
  const uint64_t end = mmio64_start(memory_) + map::kPciMmio64Size;
  const uint32_t bits = kvm::physical_bits(SNUG_TRY(kvm::supported_cpuid(kvm)));
  if (end >> bits == 0) return {};
  return fail_with_hint(
      fmt::format(
          "disks of mode pmem: with them guest memory ends at {:#x}, and this CPU's addresses have {} bits",
          end, bits),
      "leave mode out, or make the files smaller");
}

Result<void> Machine::load(const MachineConfig& config) {
  const bool kaslr = config.kaslr && !forbids_kaslr(config.cmdline);
  const auto placement = kaslr ? random_placement(config.initrd_fds) : boot::Placement{};
  kernel_ = SNUG_TRY(with_context(config.kernel_cache->load(config.kernel_fd, memory_, placement), "kernel"));
  std::optional<boot::InitrdPlacement> initrd;
  if (!config.initrd_fds.empty())
    initrd = SNUG_TRY(with_context(boot::load_initrds(config.initrd_fds, memory_, kernel_), "initrd"));
  boot::AcpiConfig acpi;
  acpi.cpus = config.cpus;
  acpi.mmio64_start = mmio64_start(memory_);
  acpi.mmio64_size = map::kPciMmio64Size;
  acpi.pvpanic = true;
  acpi.pci_segment = kernel_.is_linux && !config.pci_ports ? kPciSegmentOfLinux : 0;
  const auto tables = SNUG_TRY(with_context(boot::build_acpi_tables(acpi), "ACPI tables"));
  SNUG_TRY(boot::write_acpi_tables(memory_, tables));
  SNUG_TRY(boot::write_reset_vector(memory_));
  SNUG_TRY(write_generation());
  // A loader of the kernel's own moves it by itself unless it is told not to.
  const bool tell = !kaslr && kernel_.unpacks_itself;
  const std::string cmdline = (tell ? "nokaslr " : "") + config.cmdline;
  entry_ = SNUG_TRY(boot::prepare_entry(memory_, kernel_, initrd, cmdline));
  return {};
}

Result<void> Machine::create_devices() {
  legacy_ = SNUG_TRY(LegacyDevices::create(*vm_, ports_, console_, *this));

  bars_ = std::make_unique<PciBars>(mmio_, *vm_);
  pci_ = std::make_unique<Synced<PciRoot>>(bars_.get());
  pci_ports_ = std::make_unique<Synced<PciConfigPorts>>(*pci_);
  SNUG_TRY(ports_.add({map::kPortPciConfig, 8}, "pci config ports", *pci_ports_));
  pci_ecam_ = std::make_unique<Synced<PciEcam>>(*pci_);
  SNUG_TRY(mmio_.add({map::kEcam, map::kEcamSize}, "pci ecam", *pci_ecam_));
  SNUG_TRY(bars_->add_host_bridge(pci_->unguarded().host_bridge()));

  // An index register: it only matters to what the guest does next.
  SNUG_TRY(vm_->coalesce_writes(AddressSpace::kPort, map::kPortPciConfig, 4));
  return {};
}

// In the order in which the guest sees them.
Result<void> Machine::create_virtio_devices(MachineConfig& config) {
  VirtioDevices::Environment environment{
      loop_,
      memory_,
      *vm_,
      *pci_,
      *bars_,
      mmio_,
      config.packed_rings,
      [this] {
        loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
          if (!alive.expired()) events_.user_space();
        });
      },
      [this](std::string what) {
        loop_.post([this, alive = std::weak_ptr<int>(alive_), what = std::move(what)] {
          if (!alive.expired()) events_.failed(what);
        });
      },
      {}};
  if (config.thread_begins)
    environment.thread_begins = [begins = config.thread_begins] { begins(ThreadKind::kDevice); };
  virtio_ = std::make_unique<VirtioDevices>(environment);
  for (DiskConfig& disk : config.disks) SNUG_TRY(virtio_->add_disk(std::move(disk)));
  for (size_t i = 0; i < config.pmem.size(); ++i)
    SNUG_TRY(virtio_->add_pmem(config.pmem[i], memory_.files()[i]));
  for (NicConfig& nic : config.nics) SNUG_TRY(virtio_->add_nic(std::move(nic)));
  for (FsConfig& share : config.shares) SNUG_TRY(virtio_->add_share(std::move(share)));
  if (config.vsock) SNUG_TRY(virtio_->add_vsock(*config.vsock));
  if (config.rng) SNUG_TRY(virtio_->add_rng());
  if (config.balloon) SNUG_TRY(virtio_->add_balloon(*config.balloon));
  for (PortPeer* console : config.consoles) SNUG_TRY(virtio_->add_console(*console));
  if (!config.channels.empty()) SNUG_TRY(virtio_->add_channels(config.channels));
  return {};
}

Result<void> Machine::create_vcpus(const MachineConfig& config, StateReader* state) {
  const kvm::Kvm& kvm = vm_->kvm();
  const auto supported = SNUG_TRY(kvm::supported_cpuid(kvm));
  kvm::CpuTopology topology{.cpus = config.cpus, .tsc_deadline = kvm.has_tsc_deadline()};
  std::vector<std::unique_ptr<kvm::Vcpu>> vcpus;
  for (uint32_t id = 0; id < config.cpus; ++id) {
    auto vcpu = SNUG_TRY(kvm::Vcpu::create(*vm_, id));
    topology.tsc_khz = vcpu->tsc_khz();
    SNUG_TRY(vcpu->set_cpuid(kvm::guest_cpuid(supported, topology, id)));
    SNUG_TRY(vcpu->set_boot_msrs());
    if (id == 0 && state == nullptr) SNUG_TRY(vcpu->set_state(entry_));
    vcpus.push_back(std::move(vcpu));
  }
  if (state != nullptr) SNUG_TRY(kvm::restore_vcpus(*vm_, vcpus, *state));
  drain_timer_ = SNUG_TRY(DrainTimer::create(loop_, [this] { return vcpus_->handle_coalesced_writes(); }));
  vcpus_ = std::make_unique<VcpuThreads>(
      std::move(vcpus),
      VcpuThreads::Environment{ports_, mmio_, memory_, [this] { bars_->apply(); },
                               [this](VcpuReport report) {
                                 vcpus_->request_stop();
                                 loop_.post([this, alive = std::weak_ptr<int>(alive_), report] {
                                   if (alive.expired()) return;
                                   // KVM says no more than that it has found no memory.
                                   const std::string lost =
                                       report.end == VcpuEnd::kFailure ? virtio_->lost_file() : "";
                                   lost.empty() ? events_.vcpu_end(report) : events_.failed(lost);
                                 });
                               },
                               [begins = config.thread_begins] {
                                 if (begins) begins(ThreadKind::kVcpu);
                               }});
  return {};
}

// Sixteen bytes of the console in one exit. Only of a driver that knows of FIFOs, and with a timer, for
// nobody can know what a guest does that prints without looking.
void Machine::keep_printing_back() {
  if (!vm_->kvm().coalesces_writes()) return;
  std::call_once(printing_kept_back_, [this] {
    if (auto kept = vm_->coalesce_writes(AddressSpace::kPort, map::kPortSerial, 1); !kept)
      log_debug("serial port: {}", kept.error().text());
  });
  drain_timer_->expect_writes();
}

void Machine::connect_console() {
  auto serial = legacy_->serial.lock();
  serial->on_may_send([this] { keep_printing_back(); });
  serial->on_input_space([this] { console_.input_space(); });
  serial->on_opened([this] {
    console_.guest_opened();
    loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired()) events_.user_space();
    });
  });
  console_.connect(
      [this](std::span<const std::byte> bytes) { return legacy_->serial.lock()->receive(bytes); });
}

Result<void> Machine::start() {
  SNUG_ASSERT(states_.move_to(RunState::kRunning));
  SNUG_TRY(virtio_->start());
  return vcpus_->start();
}

void Machine::pause() {
  if (states_.move_to(RunState::kPaused)) vcpus_->pause();
}

void Machine::resume() {
  if (states_.move_to(RunState::kRunning)) vcpus_->resume();
}

void Machine::stop(RunState final_state) {
  if (!states_.move_to(RunState::kStopping)) return;
  if (vcpus_) vcpus_->stop();
  // Posts that are still on their way concern nobody any more.
  alive_.reset();
  SNUG_ASSERT(states_.move_to(final_state));
}

void Machine::press_power_button() { legacy_->power.lock()->press_power_button(); }

void Machine::guest_event(GuestEvent event, uint32_t value) {
  const bool ends = event == GuestEvent::kPowerOff || event == GuestEvent::kReset ||
                    event == GuestEvent::kDebugExit || (event == GuestEvent::kPanic && stop_on_panic_);
  // What follows the last instruction of a machine must not run: the vCPU that wrote it stops before the
  // next.
  if (ends) vcpus_->request_stop();
  loop_.post([this, alive = std::weak_ptr<int>(alive_), event, value] {
    if (!alive.expired()) events_.guest_event(event, value);
  });
}

}  // namespace snug
