#include "devices/virtio/pci.h"

#include <unistd.h>

#include <algorithm>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// The BAR: each part on pages of its own.
constexpr uint32_t kCommonAt = 0x0000;
constexpr uint32_t kIsrAt = 0x1000;
constexpr uint32_t kConfigAt = 0x2000;
constexpr uint32_t kNotifyAt = 0x3000;
constexpr uint32_t kTableAt = 0x4000;
constexpr uint32_t kPendingAt = 0x6000;
constexpr uint32_t kPart = 0x1000;
constexpr uint32_t kNotifyMultiplier = 4;

// 4.1.4: capability types.
constexpr uint8_t kCapCommon = 1;
constexpr uint8_t kCapNotify = 2;
constexpr uint8_t kCapIsr = 3;
constexpr uint8_t kCapDevice = 4;
constexpr uint8_t kCapConfigAccess = 5;

// 4.1.4: offsets in a capability.
constexpr uint16_t kCapBar = 4;
constexpr uint16_t kCapOffset = 8;
constexpr uint16_t kCapLength = 12;
constexpr uint16_t kCapData = 16;

// 4.1.4.3: common configuration.
enum Common : uint64_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kQueueCount = 0x12,
  kStatus = 0x14,
  kGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOffset = 0x1e,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueNotifyData = 0x38,
  kCommonSize = 0x3c,
};

// 2.1: device status.
constexpr uint8_t kAcknowledge = 1;
constexpr uint8_t kDriver = 2;
constexpr uint8_t kDriverOk = 4;
constexpr uint8_t kFeaturesOk = 8;
constexpr uint8_t kNeedsReset = 64;
constexpr uint8_t kFailed = 128;

// 3.1.1: the order of initialisation. A bit may be set only when those it needs are set already or with it.
struct StatusRule {
  uint8_t bit;
  uint8_t needs;
};
constexpr std::array kStatusRules{
    StatusRule{kAcknowledge, 0},      StatusRule{kDriver, kAcknowledge},
    StatusRule{kFeaturesOk, kDriver}, StatusRule{kDriverOk, kFeaturesOk},
    StatusRule{kFailed, 0},
};

// 4.1.4.5
constexpr uint8_t kIsrQueue = 1;
constexpr uint8_t kIsrConfig = 2;

constexpr uint16_t kNoVector = 0xffff;
constexpr uint64_t kTransportFeatures = kVirtioVersion1 | kVirtioIndirect | kVirtioEventIdx;

// 4.1.2: ids of modern devices.
PciIdentity identity(const VirtioDevice& device) {
  const auto id = static_cast<uint16_t>(0x1040 + static_cast<uint16_t>(device.type()));
  return {.vendor = 0x1af4,
          .device = id,
          .class_code = device.pci_class(),
          .revision = 1,
          .subsystem_vendor = 0x1af4,
          .subsystem = id};
}

bool within(uint64_t offset, uint64_t part, uint64_t size) { return offset >= part && offset - part < size; }

void ring(int event_fd) {
  const uint64_t one = 1;
  (void)!::write(event_fd, &one, sizeof one);
}

}  // namespace

Result<std::unique_ptr<Synced<VirtioPci>>> VirtioPci::create(VirtioDevice& device, IrqLine& line, uint8_t gsi,
                                                             const Environment& environment) {
  auto transport = std::make_unique<Synced<VirtioPci>>(device, line, gsi, environment);
  SNUG_TRY(transport->unguarded().prepare(environment));
  return transport;
}

VirtioPci::VirtioPci(VirtioDevice& device, IrqLine& line, uint8_t gsi, const Environment& environment)
    : PciDevice(identity(device)),
      device_(device),
      line_(line),
      memory_(environment.memory),
      doorbells_(environment.doorbells) {
  config_.add_bar(kBar, PciBarKind::kMemory32, kBarSize);
  config_.set_interrupt_pin(1, gsi);
  add_capabilities();
}

VirtioPci::~VirtioPci() { unmap_doorbells(); }

Result<void> VirtioPci::prepare(const Environment& environment) {
  const auto sizes = device_.queue_sizes();
  SNUG_ASSERT(!sizes.empty() && sizes.size() * kNotifyMultiplier <= kPart);
  for (const uint16_t size : sizes) {
    Queue& queue = queues_.emplace_back(memory_);
    queue.max_size = size;
    queue.doorbell = SNUG_TRY(make_eventfd());
  }
  std::vector<std::unique_ptr<MsiVector>> vectors;
  for (size_t i = 0; i < sizes.size() + 1; ++i) vectors.push_back(SNUG_TRY(environment.vectors.vector()));
  SNUG_ASSERT(vectors.size() * Msix::kEntrySize <= kPendingAt - kTableAt);
  msix_ = std::make_unique<Msix>(config_, kBar, kTableAt, kPendingAt, std::move(vectors));
  reset_registers();
  return {};
}

void VirtioPci::add_capabilities() {
  // 4.1.4: what follows the id and the next pointer.
  const auto capability = [this](uint8_t type, uint32_t offset, uint32_t length, size_t extra,
                                 uint32_t value) {
    std::array<std::byte, 18> body{};
    const std::span<std::byte> all(body);
    store_le(all.subspan(0, 1), 16 + extra);
    store_le(all.subspan(1, 1), type);
    store_le(all.subspan(2, 1), kBar);
    store_le(all.subspan(6, 4), offset);
    store_le(all.subspan(10, 4), length);
    store_le(all.subspan(14, 4), value);
    return config_.add_capability(pci::kCapabilityVendor, all.first(14 + extra));
  };
  const auto queues = static_cast<uint32_t>(device_.queue_sizes().size());
  capability(kCapCommon, kCommonAt, kCommonSize, 0, 0);
  capability(kCapNotify, kNotifyAt, queues * kNotifyMultiplier, 4, kNotifyMultiplier);
  capability(kCapIsr, kIsrAt, 1, 0, 0);
  capability(kCapDevice, kConfigAt, kPart, 0, 0);
  const uint16_t access = capability(kCapConfigAccess, 0, 0, 4, 0);
  config_.allow_write<uint8_t>(static_cast<uint16_t>(access + kCapBar), 0xff);
  config_.allow_write<uint32_t>(static_cast<uint16_t>(access + kCapOffset), 0xffffffff);
  config_.allow_write<uint32_t>(static_cast<uint16_t>(access + kCapLength), 0xffffffff);
  config_.allow_write<uint32_t>(static_cast<uint16_t>(access + kCapData), 0xffffffff);
  config_access_capability_ = access;
}

// --- configuration space ----------------------------------------------------------------------------

// 4.1.4.9: a window into the BAR. False unless it is open and the access is to its data.
bool VirtioPci::config_access(uint64_t& offset, size_t& length) const {
  const auto at = [this](uint16_t where) { return static_cast<uint16_t>(config_access_capability_ + where); };
  offset = config_.read32(at(kCapOffset));
  length = config_.read32(at(kCapLength));
  return config_.read8(at(kCapBar)) == kBar && (length == 1 || length == 2 || length == 4) &&
         offset % length == 0 && range_within(offset, length, kBarSize);
}

void VirtioPci::before_config_read(uint16_t offset, size_t length) {
  const auto data = static_cast<uint16_t>(config_access_capability_ + kCapData);
  if (offset >= data + 4 || offset + length <= data) return;
  uint64_t where = 0;
  size_t width = 0;
  if (!config_access(where, width)) return;
  std::array<std::byte, 4> bytes{};
  read(where, std::span(bytes).first(width));
  config_.write32(data, static_cast<uint32_t>(load_le(std::span<const std::byte>(bytes))));
}

void VirtioPci::after_config_write(uint16_t offset, size_t length) {
  msix_->after_config_write();
  update_line();
  const auto data = static_cast<uint16_t>(config_access_capability_ + kCapData);
  if (offset >= data + 4 || offset + length <= data) return;
  uint64_t where = 0;
  size_t width = 0;
  if (!config_access(where, width)) return;
  std::array<std::byte, 4> bytes{};
  store_le(std::span<std::byte>(bytes), config_.read32(data));
  write(where, std::span<const std::byte>(bytes).first(width));
}

Doorbell VirtioPci::doorbell_at(uint64_t bar_address, uint16_t queue) const {
  return {AddressSpace::kMmio, bar_address + kNotifyAt + uint64_t{queue} * kNotifyMultiplier, 0,
          std::nullopt};
}

Result<void> VirtioPci::map_doorbells(uint64_t bar_address) {
  unmap_doorbells();
  bar_address_ = bar_address;
  return (status_ & kDriverOk) != 0 ? bind_doorbells() : Result<void>{};
}

void VirtioPci::unmap_doorbells() {
  unbind_doorbells();
  bar_address_ = 0;
}

Result<void> VirtioPci::bind_doorbells() {
  if (bound_ || bar_address_ == 0) return {};
  for (uint16_t i = 0; i < queue_count(); ++i) {
    if (auto bound = doorbells_.bind(doorbell_at(bar_address_, i), doorbell_fd(i)); !bound) {
      while (i-- > 0) doorbells_.unbind(doorbell_at(bar_address_, i), doorbell_fd(i));
      return bound;
    }
  }
  bound_ = true;
  return {};
}

void VirtioPci::unbind_doorbells() {
  if (!bound_) return;
  for (uint16_t i = 0; i < queue_count(); ++i)
    doorbells_.unbind(doorbell_at(bar_address_, i), doorbell_fd(i));
  bound_ = false;
}

// --- the BAR ----------------------------------------------------------------------------------------

void VirtioPci::read(uint64_t offset, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
  if (within(offset, kCommonAt, kPart)) {
    read_common(offset - kCommonAt, data);
  } else if (offset == kIsrAt) {
    // 4.1.4.5: reading acknowledges.
    data[0] = std::byte{isr_};
    isr_ = 0;
    update_line();
  } else if (within(offset, kConfigAt, kPart)) {
    device_.read_config(offset - kConfigAt, data);
  } else if (within(offset, kTableAt, msix_->table_size())) {
    msix_->read_table(offset - kTableAt, data);
  } else if (within(offset, kPendingAt, kBarSize - kPendingAt)) {
    msix_->read_pending(offset - kPendingAt, data);
  }
}

void VirtioPci::write(uint64_t offset, std::span<const std::byte> data) {
  if (within(offset, kCommonAt, kPart)) {
    write_common(offset - kCommonAt, data);
  } else if (within(offset, kConfigAt, kPart)) {
    device_.write_config(offset - kConfigAt, data);
  } else if (within(offset, kNotifyAt, kPart)) {
    // Where the doorbell is not bound: the loop hears of it the same way.
    const uint64_t queue = (offset - kNotifyAt) / kNotifyMultiplier;
    if (queue < queues_.size()) ring(doorbell_fd(static_cast<uint16_t>(queue)));
  } else if (within(offset, kTableAt, msix_->table_size())) {
    msix_->write_table(offset - kTableAt, data);
  }
}

void VirtioPci::read_common(uint64_t offset, std::span<std::byte> data) {
  std::array<std::byte, kCommonSize> image{};
  const auto put = [&image](uint64_t where, size_t width, uint64_t value) {
    store_le(std::span<std::byte>(image).subspan(where, width), value);
  };
  const uint64_t offered = kTransportFeatures | device_.features();
  const auto word = [](uint64_t bits, uint32_t select) { return select < 2 ? bits >> (32 * select) : 0; };
  put(kDeviceFeatureSelect, 4, device_feature_select_);
  put(kDeviceFeature, 4, word(offered, device_feature_select_));
  put(kDriverFeatureSelect, 4, driver_feature_select_);
  put(kDriverFeature, 4, word(driver_features_, driver_feature_select_));
  put(kConfigVector, 2, config_vector_);
  put(kQueueCount, 2, queues_.size());
  put(kStatus, 1, status_);
  put(kGeneration, 1, generation_);
  put(kQueueSelect, 2, queue_select_);
  // 4.1.4.3.1: a queue that does not exist has size 0.
  if (queue_select_ < queues_.size()) {
    const Queue& queue = queues_[queue_select_];
    put(kQueueSize, 2, queue.layout.size);
    put(kQueueVector, 2, queue.vector);
    put(kQueueEnable, 2, queue.enabled ? 1 : 0);
    put(kQueueNotifyOffset, 2, queue_select_);
    put(kQueueDescriptors, 8, queue.layout.descriptors);
    put(kQueueDriver, 8, queue.layout.available);
    put(kQueueDevice, 8, queue.layout.used);
    put(kQueueNotifyData, 2, queue_select_);
  }
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

// 4.1.3.1: registers are written whole; of the 64-bit ones also each half.
void VirtioPci::write_common(uint64_t offset, std::span<const std::byte> data) {
  const size_t width = data.size();
  if (width != 1 && width != 2 && width != 4 && width != 8) return;
  const uint64_t value = load_le(data);
  const auto is = [&](uint64_t where, size_t size) { return offset == where && width == size; };
  if (is(kDeviceFeatureSelect, 4)) {
    device_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(kDriverFeatureSelect, 4)) {
    driver_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(kDriverFeature, 4)) {
    // 3.1.1: settled with FEATURES_OK.
    if ((status_ & kFeaturesOk) != 0 || driver_feature_select_ > 1) return;
    const unsigned shift = 32 * driver_feature_select_;
    driver_features_ = (driver_features_ & ~(uint64_t{0xffffffff} << shift)) | value << shift;
  } else if (is(kConfigVector, 2)) {
    config_vector_ = checked_vector(value);
  } else if (is(kStatus, 1)) {
    write_status(static_cast<uint8_t>(value));
  } else if (is(kQueueSelect, 2)) {
    queue_select_ = static_cast<uint16_t>(value);
  } else if (queue_select_ < queues_.size()) {
    write_queue_register(offset, width, value);
  }
}

void VirtioPci::write_queue_register(uint64_t offset, size_t width, uint64_t value) {
  Queue& queue = queues_[queue_select_];
  const auto is = [&](uint64_t where, size_t size) { return offset == where && width == size; };
  if (is(kQueueVector, 2)) {
    queue.vector = checked_vector(value);
    return;
  }
  // 4.1.4.3.2: the rest is settled while the queue is enabled.
  if (queue.enabled || resetting_) return;
  if (is(kQueueSize, 2)) {
    // 0 or more than the device can: the queue cannot be used, which enabling it will say.
    queue.layout.size = value <= queue.max_size ? static_cast<uint16_t>(value) : 0;
  } else if (is(kQueueEnable, 2)) {
    if (value == 1) write_queue_enable(queue);
  } else {
    struct Address {
      uint64_t where;
      uint64_t* field;
    };
    for (const auto& [where, field] :
         {Address{kQueueDescriptors, &queue.layout.descriptors},
          Address{kQueueDriver, &queue.layout.available}, Address{kQueueDevice, &queue.layout.used}}) {
      if (is(where, 8)) *field = value;
      if (is(where, 4)) *field = (*field & ~uint64_t{0xffffffff}) | value;
      if (is(where + 4, 4)) *field = (*field & 0xffffffff) | value << 32;
    }
  }
}

uint16_t VirtioPci::checked_vector(uint64_t value) const {
  return value < msix_->vector_count() ? static_cast<uint16_t>(value) : kNoVector;
}

// --- status -----------------------------------------------------------------------------------------

void VirtioPci::write_status(uint8_t value) {
  if (value == 0) {
    reset();
    return;
  }
  // A reset that is not done yet takes nothing else; no bit is ever cleared but by a reset (2.1.1).
  if (resetting_ || (status_ & ~value & ~kNeedsReset) != 0) return;
  for (const auto& [bit, needs] : kStatusRules) {
    if ((value & bit) == 0 || (status_ & bit) != 0) continue;
    if ((status_ & needs) != needs) return;
    // 3.1.1 step 5: a set of features that cannot be is refused by leaving the bit clear.
    if (bit == kFeaturesOk) {
      const uint64_t offered = kTransportFeatures | device_.features();
      if ((driver_features_ & ~offered) != 0 || (driver_features_ & kVirtioVersion1) == 0) return;
    }
    status_ |= bit;
    if (bit == kDriverOk && (status_ & kNeedsReset) == 0) {
      started_ = true;
      // Without them each ring is an exit, and rings all the same.
      if (auto bound = bind_doorbells(); !bound)
        log_debug("virtio {}: {}", device_.name(), bound.error().text());
      device_.start(*this, driver_features_);
      // Chains may have been made available before, with nobody to hear the doorbell.
      for (uint16_t i = 0; i < queue_count(); ++i)
        if (queues_[i].enabled) ring(doorbell_fd(i));
    }
  }
}

void VirtioPci::write_queue_enable(Queue& queue) {
  if ((status_ & kFeaturesOk) == 0) return;
  const VirtQueueFeatures features{(driver_features_ & kVirtioIndirect) != 0,
                                   (driver_features_ & kVirtioEventIdx) != 0};
  const std::string problem = queue.ring.start(queue.layout, features);
  queue.enabled = true;
  if (!problem.empty()) needs_reset(problem);
}

void VirtioPci::reset_queue(uint16_t index) {
  Queue& queue = queues_[index];
  queue.ring.stop();
  queue.enabled = false;
  queue.layout = {.size = queue.max_size, .descriptors = 0, .available = 0, .used = 0};
}

void VirtioPci::reset() {
  if (resetting_) return;
  for (Queue& queue : queues_) queue.ring.stop();
  if (started_ && !device_.stop()) {
    // 2.4.1: the driver waits until it reads 0.
    resetting_ = true;
    return;
  }
  reset_registers();
}

void VirtioPci::stopped() {
  if (!resetting_) return;
  resetting_ = false;
  reset_registers();
}

void VirtioPci::reset_registers() {
  started_ = false;
  status_ = 0;
  isr_ = 0;
  config_vector_ = kNoVector;
  queue_select_ = 0;
  device_feature_select_ = driver_feature_select_ = 0;
  driver_features_ = 0;
  for (uint16_t i = 0; i < queue_count(); ++i) {
    reset_queue(i);
    queues_[i].vector = kNoVector;
  }
  update_line();
}

// --- the device's side ------------------------------------------------------------------------------

bool VirtioPci::live() const {
  return (status_ & kDriverOk) != 0 && (status_ & (kNeedsReset | kFailed)) == 0 && !resetting_;
}

void VirtioPci::notified(uint16_t queue) {
  if (live() && queues_[queue].ring.running()) device_.queue_ready(queue);
}

void VirtioPci::used(uint16_t queue) {
  if (queues_[queue].ring.needs_interrupt()) interrupt(queues_[queue].vector, kIsrQueue);
}

void VirtioPci::config_changed() {
  ++generation_;
  if ((status_ & kDriverOk) != 0) interrupt(config_vector_, kIsrConfig);
}

void VirtioPci::needs_reset(const std::string& why) {
  if (!complained_)
    log_warn("virtio {}: the guest's driver broke the rules: {}; the device waits for a reset",
             device_.name(), why);
  complained_ = true;
  if ((status_ & kNeedsReset) != 0) return;
  status_ |= kNeedsReset;
  if ((status_ & kDriverOk) != 0) interrupt(config_vector_, kIsrConfig);
}

void VirtioPci::again(uint16_t queue) { ring(doorbell_fd(queue)); }

void VirtioPci::interrupt(uint16_t vector, uint8_t cause) {
  if (msix_->enabled()) {
    msix_->raise(vector);
    return;
  }
  isr_ |= cause;
  update_line();
}

// INTx follows the ISR (4.1.4.5) unless the guest uses MSI-X or has disabled it.
void VirtioPci::update_line() {
  const bool pending = isr_ != 0 && (msix_ == nullptr || !msix_->enabled());
  const auto status = static_cast<uint16_t>(config_.read16(pci::kStatus) & ~pci::kStatusInterrupt);
  config_.write16(pci::kStatus, static_cast<uint16_t>(status | (pending ? pci::kStatusInterrupt : 0)));
  const bool level = pending && !config_.intx_disabled();
  if (level == line_level_) return;
  line_level_ = level;
  line_.set(level);
}

}  // namespace snug
