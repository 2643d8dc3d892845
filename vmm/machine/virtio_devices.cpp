#include "vmm/machine/virtio_devices.h"

#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

#include "devices/virtio/rng/rng.h"
#include "vmm/base/file_status.h"
#include "vmm/base/log.h"
#include "vmm/base/random.h"
#include "vmm/core/address_map.h"

namespace snug {
namespace {

// Empties an eventfd.
void take_events(int event_fd) {
  uint64_t count = 0;
  (void)!::read(event_fd, &count, sizeof count);
}

void host_random(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = get_random(out);
    // Fails only when interrupted: the pool is ready long before anybody runs guests.
    if (count > 0) out = out.subspan(static_cast<size_t>(count));
  }
}

}  // namespace

VirtioDevices::VirtioDevices(const Environment& environment)
    : environment_(environment),
      irq_routes_(environment.vm),
      irq_(environment.vm.irq_line(map::kGsiPciFirst)) {}

VirtioDevices::~VirtioDevices() {
  for (PortPeer* port : ports_) port->on_events({});
  for (Nic& nic : nics_) call(*nic.slot, [&nic] { nic.watches.clear(); });
  // Devices end on their own threads: a thread that ends takes what it has given io_uring to do with it.
  for (Slot& slot : slots_)
    call(slot, [&slot] {
      if (slot.thread) slot.thread->loop().poll_with({});
      slot.watches.clear();
      slot.transport.reset();
      slot.line.reset();
      slot.device.reset();
    });
  for (const Pmem& pmem : pmem_)
    if (pmem.refused) environment_.mmio.remove(pmem.gpa);
}

Result<void> VirtioDevices::start() {
  for (Slot& slot : slots_)
    if (slot.thread) SNUG_TRY(slot.thread->start());
  return {};
}

void VirtioDevices::call(Slot& slot, const std::function<void()>& task) {
  if (slot.thread) return slot.thread->call(task);
  task();
}

Result<VirtioDevices::Slot*> VirtioDevices::add(std::unique_ptr<VirtioDevice> device, bool own_thread) {
  const auto number = static_cast<uint8_t>(slots_.size() + 1);
  Slot slot;
  if (own_thread)
    slot.thread = SNUG_TRY(LoopThread::create(std::string(device->name()), environment_.thread_begins));
  slot.device = std::move(device);
  slot.line = irq_.input();
  slot.transport = SNUG_TRY(
      VirtioPci::create(*slot.device, *slot.line, map::kGsiPciFirst,
                        {environment_.memory, environment_.vm, irq_routes_, environment_.packed_rings}));
  Synced<VirtioPci>& transport = *slot.transport;
  transport.unguarded().config().place_bar(VirtioPci::kBar, map::kPciMmio32 + number * VirtioPci::kBarSize);
  for (uint16_t queue = 0; queue < transport.unguarded().queue_count(); ++queue) {
    const int doorbell = transport.unguarded().doorbell_fd(queue);
    slot.watches.push_back(
        SNUG_TRY(loop_of(slot).watch(doorbell, EPOLLIN, [&transport, doorbell, queue](uint32_t) {
          take_events(doorbell);
          transport.lock()->notified(queue);
        })));
  }
  const std::string name(slot.device->name());
  slots_.push_back(std::move(slot));
  SNUG_TRY(environment_.pci.lock()->add(number, transport));
  SNUG_TRY(environment_.bars.add(number, name, transport));
  return &slots_.back();
}

Result<EventLoop::Watch> VirtioDevices::watch(Slot& slot, int fd, uint32_t epoll_events,
                                              std::function<void()> callback) {
  Synced<VirtioPci>& transport = *slot.transport;
  return loop_of(slot).watch(fd, epoll_events, [&transport, callback = std::move(callback)](uint32_t) {
    auto guard = transport.lock();
    callback();
  });
}

Result<void> VirtioDevices::add_rng() {
  SNUG_TRY(add(std::make_unique<VirtioRng>(host_random)));
  return {};
}

// --- disks --------------------------------------------------------------------------------------------

Result<void> VirtioDevices::add_disk(DiskConfig config) {
  BlockConfig& block = config.block;
  block.name = fmt::format("disk vd{}", static_cast<char>('a' + disk_count_++));
  const int fd = config.files.front().fd;
  const bool fixed_size = config.written != nullptr;
  const bool written = !block.read_only;
  DiskSource source{.file = config.files.back().fd, .written = config.written};
  auto backend = SNUG_TRY(make_disk_backend(config, environment_.thread_begins));
  auto device = std::make_unique<VirtioBlock>(std::move(block), std::move(backend));
  VirtioBlock& disk = *device;
  Slot& slot = *SNUG_TRY(add(std::move(device), config.thread));
  slot.watches.push_back(SNUG_TRY(watch(slot, disk.event_fd(), EPOLLIN, [&disk] {
    take_events(disk.event_fd());
    disk.completed();
  })));
  if (slot.thread) poll_disk(slot, disk);
  source.device = &disk;
  source.mutex = &slot.transport->mutex();
  if (written) written_disks_.push_back(source);
  if (fixed_size) return {};
  disks_.push_back({&disk, slot.transport.get(), fd});
  return watch_sizes();
}

// A thread of its own has nothing better to do.
void VirtioDevices::poll_disk(Slot& slot, VirtioBlock& disk) {
  Synced<VirtioPci>& transport = *slot.transport;
  const auto with_lock = [&transport, &disk](bool (VirtioBlock::*work)()) {
    return [&transport, &disk, work] {
      auto guard = transport.lock();
      return guard->live() && (disk.*work)();
    };
  };
  slot.thread->loop().poll_with({with_lock(&VirtioBlock::look), with_lock(&VirtioBlock::rest)});
}

// Nothing tells of a file's new size but the writes that do not change it, so it is looked at from time to
// time. (Of a file in the guest's memory a fault tells, but not in every KVM.)
Result<void> VirtioDevices::watch_sizes() {
  static constexpr std::chrono::seconds kPeriod{1};
  if (disks_.size() + pmem_.size() > 1) return {};
  sizes_ = SNUG_TRY(environment_.loop.timer([this] {
    for (const Disk& disk : disks_) {
      const auto size = disk_size(disk.fd);
      auto guard = disk.transport->lock();
      if (size) disk.device->set_size(*size);
    }
    if (std::string lost = lost_file(); !lost.empty()) return environment_.lost_file(std::move(lost));
    sizes_.arm(kPeriod);
  }));
  sizes_.arm(kPeriod);
  return {};
}

// --- files in the guest's memory ------------------------------------------------------------------------

Result<void> VirtioDevices::add_pmem(const PmemFile& file, const GuestMemory::FileRegion& region) {
  PmemConfig config{.name = fmt::format("disk pmem{}", pmem_.size()),
                    .storage = file.storage,
                    .start = region.gpa,
                    .size = region.size,
                    .read_only = file.read_only};
  Pmem pmem{file, region.gpa, nullptr};
  std::unique_ptr<BlockBackend> backend;
  if (file.read_only) {
    pmem.refused = std::make_unique<Synced<RefusedWrites>>(config.name, config.storage);
    SNUG_TRY(environment_.mmio.add({region.gpa, region.size}, config.name, *pmem.refused));
  } else {
    DiskConfig disk{.files = {{.fd = file.fd}}, .engine = file.engine};
    disk.block.name = config.name;
    backend = SNUG_TRY(make_disk_backend(disk, environment_.thread_begins));
  }
  const RefusedWrites* refused = pmem.refused ? &pmem.refused->unguarded() : nullptr;
  pmem_.push_back(std::move(pmem));
  SNUG_TRY(watch_sizes());
  auto made = std::make_unique<VirtioPmem>(std::move(config), std::move(backend), refused);
  VirtioPmem& device = *made;
  Slot& slot = *SNUG_TRY(add(std::move(made)));
  if (device.event_fd() < 0) return {};
  slot.watches.push_back(SNUG_TRY(watch(slot, device.event_fd(), EPOLLIN, [&device] {
    take_events(device.event_fd());
    device.completed();
  })));
  return {};
}

std::string VirtioDevices::lost_file() const {
  for (const Pmem& pmem : pmem_) {
    struct stat status {};
    if (!file_status(pmem.file.fd, status)) continue;
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (bytes < pmem.file.bytes)
      return fmt::format(
          "disk {}: it has become shorter while the guest had it as memory: {} bytes, and had {}",
          pmem.file.storage, bytes, pmem.file.bytes);
  }
  return {};
}

// --- network interfaces -------------------------------------------------------------------------------

Result<void> VirtioDevices::add_nic(NicConfig config) {
  auto device = std::make_unique<VirtioNet>(std::move(config.device), std::move(config.backend));
  Nic nic;
  nic.device = device.get();
  nic.slot = SNUG_TRY(add(std::move(device), config.thread));
  nics_.push_back(std::move(nic));
  return watch_nic(nics_.back());
}

Result<void> VirtioDevices::watch_nic(Nic& nic) {
  nic.watches.clear();
  for (uint16_t pair = 0; pair < nic.device->pairs(); ++pair) {
    nic.watches.push_back(SNUG_TRY(watch(*nic.slot, nic.device->event_fd(pair), EPOLLIN | EPOLLOUT | EPOLLET,
                                         [device = nic.device, pair] { device->backend_ready(pair); })));
  }
  return {};
}

void VirtioDevices::disconnect_nic(size_t index) {
  Nic& nic = nics_[index];
  call(*nic.slot, [&nic] {
    nic.watches.clear();
    auto guard = nic.slot->transport->lock();
    nic.device->set_link(false);
  });
}

Result<void> VirtioDevices::reconnect_nic(size_t index) { return connect_nic(index, nullptr); }

Result<void> VirtioDevices::connect_nic(size_t index, std::unique_ptr<NetBackend> backend) {
  Nic& nic = nics_[index];
  Result<void> watched;
  call(*nic.slot, [&] {
    nic.watches.clear();
    {
      auto guard = nic.slot->transport->lock();
      if (backend) nic.device->connect(std::move(backend));
      nic.device->set_link(true);
    }
    watched = watch_nic(nic);
  });
  return watched;
}

// --- shares -------------------------------------------------------------------------------------------

Result<void> VirtioDevices::add_share(FsConfig config) {
  auto device = SNUG_TRY(VirtioFs::create(std::move(config), environment_.memory));
  VirtioFs& share = *device;
  Slot& slot = *SNUG_TRY(add(std::move(device)));
  shares_.push_back(&share);
  slot.watches.push_back(SNUG_TRY(
      watch(slot, share.server_fd(), EPOLLIN | EPOLLOUT | EPOLLET, [&share] { share.server_ready(); })));
  slot.watches.push_back(SNUG_TRY(watch(slot, share.interrupt_fd(), EPOLLIN, [&share] {
    take_events(share.interrupt_fd());
    share.interrupts_wanted();
  })));
  return {};
}

// --- sockets ------------------------------------------------------------------------------------------

Result<void> VirtioDevices::add_vsock(const VsockDeviceConfig& config) {
  auto device = SNUG_TRY(VirtioVsock::create(config.device, *config.backend));
  vsock_ = device.get();
  Slot& slot = *SNUG_TRY(add(std::move(device)));
  vsock_transport_ = slot.transport.get();
  slot.watches.push_back(
      SNUG_TRY(watch(slot, vsock_->event_fd(), EPOLLIN, [vsock = vsock_] { vsock->sockets_ready(); })));
  return {};
}

void VirtioDevices::connect_vsock(uint32_t guest_port, UniqueFd stream, VsockDone done) {
  auto guard = vsock_transport_->lock();
  vsock_->connect(guest_port, std::move(stream), std::move(done));
}

// --- the balloon --------------------------------------------------------------------------------------

Result<void> VirtioDevices::add_balloon(uint64_t target) {
  BalloonConfig config;
  config.target = target;
  config.on_size = [](uint64_t bytes) { log_debug("balloon: {} KiB", bytes / 1024); };
  config.on_stats = [](const BalloonStats& stats) {
    log_debug("balloon: the guest has {} KiB free of {}", stats.free.value_or(0) / 1024,
              stats.total.value_or(0) / 1024);
  };
  auto device = std::make_unique<VirtioBalloon>(std::move(config));
  balloon_.device = device.get();
  balloon_.transport = SNUG_TRY(add(std::move(device)))->transport.get();
  return {};
}

bool VirtioDevices::set_balloon(uint64_t bytes) {
  if (balloon_.device == nullptr) return false;
  auto guard = balloon_.transport->lock();
  balloon_.device->set_target(bytes);
  return true;
}

bool VirtioDevices::refresh_balloon() {
  if (balloon_.device == nullptr) return false;
  auto guard = balloon_.transport->lock();
  return balloon_.device->refresh_stats();
}

std::optional<BalloonStatus> VirtioDevices::balloon() {
  if (balloon_.device == nullptr) return std::nullopt;
  auto guard = balloon_.transport->lock();
  const VirtioBalloon& balloon = *balloon_.device;
  return BalloonStatus{balloon.target(), balloon.size(), balloon.given_back(), balloon.stats(),
                       balloon.stats_awaited()};
}

}  // namespace snug
