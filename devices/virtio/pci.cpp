#include "devices/virtio/pci.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// The BAR: first what is read as memory.
constexpr uint32_t kCommonAt = 0x0000;
constexpr uint32_t kConfigAt = 0x0800;
constexpr uint32_t kConfigEnd = 0x1000;
constexpr uint32_t kTableAt = 0x1000;
constexpr uint32_t kTableEnd = 0x3000;
constexpr uint32_t kPendingAt = 0x3000;
constexpr uint32_t kPendingEnd = 0x4000;
constexpr uint32_t kIsrAt = 0x4000;
constexpr uint32_t kNotifyAt = 0x5000;
constexpr uint32_t kNotifyEnd = 0x6000;
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

// 2.1: device status.
constexpr uint8_t kAcknowledge = 1;
constexpr uint8_t kDriver = 2;
constexpr uint8_t kDriverOk = 4;
constexpr uint8_t kFeaturesOk = 8;
constexpr uint8_t kNeedsReset = 64;
constexpr uint8_t kFailed = 128;

// 2.1 and 3.1.1: the legal transitions. A bit may be set, in this order, when all that it needs is set
// already or by the same write, and nothing that forbids it. Only a reset clears bits. A driver that has
// given up, or a device that needs a reset, gets no further without one.
struct StatusRule {
  uint8_t bit;
  uint8_t needs;
  uint8_t forbidden_by;
};
constexpr std::array kStatusRules{
    StatusRule{kAcknowledge, 0, kFailed},
    StatusRule{kDriver, kAcknowledge, kFailed},
    StatusRule{kFeaturesOk, kAcknowledge | kDriver, kFailed | kNeedsReset},
    StatusRule{kDriverOk, kAcknowledge | kDriver | kFeaturesOk, kFailed | kNeedsReset},
    StatusRule{kFailed, 0, 0},
};

// 4.1.4.5
constexpr uint8_t kIsrQueue = 1;
constexpr uint8_t kIsrConfig = 2;

constexpr uint64_t kTransportFeatures =
    kVirtioVersion1 | kVirtioIndirect | kVirtioEventIdx | kVirtioRingPacked | kVirtioRingReset;

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

bool within(uint64_t offset, uint64_t start, uint64_t end) { return offset >= start && offset < end; }

// Pages up to the end of the MSI-X table: an entry for each queue and one for the configuration.
size_t pages_of(const VirtioDevice& device) {
  const size_t table = (device.queue_sizes().size() + 1) * Msix::kEntrySize;
  return (kTableAt + table + RegisterPages::kPageSize - 1) / RegisterPages::kPageSize;
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
      doorbells_(environment.doorbells, kNotifyAt, kNotifyMultiplier),
      pages_(pages_of(device)),
      queues_(environment.memory),
      offered_((kTransportFeatures & ~(environment.packed_rings ? 0 : kVirtioRingPacked) &
                ~device.refused_features()) |
               device.features()) {
  config_.add_bar(kBar, PciBarKind::kMemory32, kBarSize);
  config_.set_interrupt_pin(1, gsi);
  add_capabilities();
}

Result<void> VirtioPci::prepare(const Environment& environment) {
  const auto sizes = device_.queue_sizes();
  SNUG_ASSERT(!sizes.empty() && sizes.size() * kNotifyMultiplier <= kNotifyEnd - kNotifyAt);
  for (const uint16_t size : sizes) {
    queues_.add(size);
    SNUG_TRY(doorbells_.add());
  }
  std::vector<std::unique_ptr<MsiVector>> vectors;
  for (size_t i = 0; i < sizes.size() + 1; ++i) vectors.push_back(SNUG_TRY(environment.vectors.vector()));
  SNUG_ASSERT(vectors.size() * Msix::kEntrySize <= kTableEnd - kTableAt);
  msix_ = std::make_unique<Msix>(config_, kBar, kTableAt, kPendingAt, std::move(vectors), pages_);
  reset_registers();
  show_common();
  show_device_config();
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
  capability(kCapCommon, kCommonAt, common::kSize, 0, 0);
  capability(kCapNotify, kNotifyAt, queues * kNotifyMultiplier, 4, kNotifyMultiplier);
  capability(kCapIsr, kIsrAt, 1, 0, 0);
  capability(kCapDevice, kConfigAt, kConfigEnd - kConfigAt, 0, 0);
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

// A window that is open makes reading its data a read of the BAR.
bool VirtioPci::config_is_memory() const {
  uint64_t offset = 0;
  size_t length = 0;
  return !config_access(offset, length);
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

Result<void> VirtioPci::map_doorbells(uint64_t bar_address) {
  doorbells_.move(bar_address);
  return (status_ & kDriverOk) != 0 ? doorbells_.bind() : Result<void>{};
}

// --- the BAR ----------------------------------------------------------------------------------------

void VirtioPci::read(uint64_t offset, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
  if (within(offset, kCommonAt, kConfigEnd)) {
    const auto shown = pages_.bytes().subspan(offset, std::min<uint64_t>(data.size(), kConfigEnd - offset));
    std::copy(shown.begin(), shown.end(), data.begin());
  } else if (offset == kIsrAt) {
    // 4.1.4.5: reading acknowledges.
    data[0] = std::byte{isr_};
    isr_ = 0;
    update_line();
  } else if (within(offset, kTableAt, kTableAt + msix_->table_size())) {
    msix_->read_table(offset - kTableAt, data);
  } else if (within(offset, kPendingAt, kPendingEnd)) {
    msix_->read_pending(offset - kPendingAt, data);
  }
}

void VirtioPci::write(uint64_t offset, std::span<const std::byte> data) {
  if (within(offset, kCommonAt, kConfigAt)) {
    write_common(offset - kCommonAt, data);
    show_common();
  } else if (within(offset, kConfigAt, kConfigEnd)) {
    device_.write_config(offset - kConfigAt, data);
    show_device_config();
  } else if (within(offset, kNotifyAt, kNotifyEnd)) {
    // Where the doorbell is not bound: the loop hears of it the same way.
    const uint64_t queue = (offset - kNotifyAt) / kNotifyMultiplier;
    if (queue < queues_.count()) doorbells_.ring(static_cast<uint16_t>(queue));
  } else if (within(offset, kTableAt, kTableAt + msix_->table_size())) {
    msix_->write_table(offset - kTableAt, data);
  }
}

// The registers as the guest reads them, after whatever may have changed one.
void VirtioPci::show_common() {
  std::array<std::byte, common::kSize> image{};
  const auto put = [&image](uint64_t where, size_t width, uint64_t value) {
    store_le(std::span<std::byte>(image).subspan(where, width), value);
  };
  const auto word = [](uint64_t bits, uint32_t select) { return select < 2 ? bits >> (32 * select) : 0; };
  put(common::kDeviceFeatureSelect, 4, device_feature_select_);
  put(common::kDeviceFeature, 4, word(offered_, device_feature_select_));
  put(common::kDriverFeatureSelect, 4, driver_feature_select_);
  put(common::kDriverFeature, 4, word(driver_features_, driver_feature_select_));
  put(common::kConfigVector, 2, config_vector_);
  put(common::kStatus, 1, status_);
  put(common::kGeneration, 1, generation_);
  queues_.show(image);
  pages_.put(kCommonAt, image);
}

// True when it has become different.
bool VirtioPci::show_device_config() {
  std::array<std::byte, kConfigEnd - kConfigAt> image{};
  device_.read_config(0, image);
  return pages_.put(kConfigAt, image);
}

// 4.1.3.1: registers are written whole.
void VirtioPci::write_common(uint64_t offset, std::span<const std::byte> data) {
  const size_t width = data.size();
  if (width != 1 && width != 2 && width != 4 && width != 8) return;
  const uint64_t value = load_le(data);
  const auto is = [&](uint64_t where, size_t size) { return offset == where && width == size; };
  if (is(common::kDeviceFeatureSelect, 4)) {
    device_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(common::kDriverFeatureSelect, 4)) {
    driver_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(common::kDriverFeature, 4)) {
    // 3.1.1: settled with FEATURES_OK.
    if ((status_ & kFeaturesOk) != 0 || driver_feature_select_ > 1) return;
    const unsigned shift = 32 * driver_feature_select_;
    driver_features_ = (driver_features_ & ~(uint64_t{0xffffffff} << shift)) | value << shift;
  } else if (is(common::kConfigVector, 2)) {
    config_vector_ = checked_vector(value);
  } else if (is(common::kStatus, 1)) {
    write_status(static_cast<uint8_t>(value));
  } else if (is(common::kQueueSelect, 2)) {
    queues_.select(static_cast<uint16_t>(value));
  } else {
    write_queue_register(offset, width, value);
  }
}

void VirtioPci::write_queue_register(uint64_t offset, size_t width, uint64_t value) {
  // The reset that is under way takes all else back.
  if (resetting_ && offset != common::kQueueVector) return;
  const uint16_t queue = queues_.selected();
  switch (queues_.write(offset, width, value)) {
    case VirtioQueueRegisters::Wish::kVector:
      queues_.set_vector(queue, checked_vector(value));
      if (started_ && !resetting_) device_.interrupt_moved(queue);
      break;
    case VirtioQueueRegisters::Wish::kEnable:
      enable_queue(queue);
      break;
    case VirtioQueueRegisters::Wish::kReset:
      reset_queue(queue);
      break;
    case VirtioQueueRegisters::Wish::kNothing:
      break;
  }
}

uint16_t VirtioPci::checked_vector(uint64_t value) const {
  return value < msix_->vector_count() ? static_cast<uint16_t>(value) : common::kNoVector;
}

// --- status -----------------------------------------------------------------------------------------

bool VirtioPci::accepts(uint8_t bit) const {
  // 3.1.1 step 5: a set of features that cannot be is refused by leaving the bit clear.
  return bit != kFeaturesOk ||
         ((driver_features_ & ~offered_) == 0 && (driver_features_ & kVirtioVersion1) != 0);
}

void VirtioPci::write_status(uint8_t value) {
  // What the device has may have changed with nobody to be told; from now on there may be.
  if (!started_) show_device_config();
  if (value == 0) {
    reset();
    return;
  }
  // A reset that is not done yet takes nothing else; no bit is ever cleared but by a reset (2.1.1).
  if (resetting_ || (status_ & ~value & ~kNeedsReset) != 0) return;
  for (const auto& [bit, needs, forbidden_by] : kStatusRules) {
    if ((value & bit) == 0 || (status_ & bit) != 0) continue;
    if ((status_ & needs) != needs || (status_ & forbidden_by) != 0 || !accepts(bit)) return;
    status_ |= bit;
    if (bit == kDriverOk) start_device();
  }
}

void VirtioPci::start_device() {
  started_ = true;
  queues_.settle();
  // Without them each ring is an exit, and rings all the same.
  if (auto bound = doorbells_.bind(); !bound)
    log_debug("virtio {}: {}", device_.name(), bound.error().text());
  device_.start(*this, driver_features_);
  // What has changed since the driver looked.
  if (show_device_config()) config_changed();
  // Chains may have been made available before, with nobody to hear the doorbell.
  for (uint16_t i = 0; i < queue_count(); ++i)
    if (queues_.enabled(i)) doorbells_.ring(i);
}

VirtQueueFeatures VirtioPci::ring_features() const {
  const auto has = [this](uint64_t bit) { return (driver_features_ & bit) != 0; };
  return {
      .indirect = has(kVirtioIndirect), .event_idx = has(kVirtioEventIdx), .packed = has(kVirtioRingPacked)};
}

void VirtioPci::enable_queue(uint16_t queue) {
  if ((status_ & kFeaturesOk) == 0) return;
  if (const std::string problem = queues_.enable(queue, ring_features()); !problem.empty()) {
    needs_reset(problem);
  } else if (live()) {
    doorbells_.ring(queue);
  }
}

// 2.6.1, 4.1.4.3: the register reads 1 until nothing of the queue is under way any more.
void VirtioPci::reset_queue(uint16_t queue) {
  if ((driver_features_ & kVirtioRingReset) == 0 || !started_ || queues_.resetting(queue)) return;
  queues_.begin_reset(queue);
  if (device_.stop_queue(queue)) queue_stopped(queue);
}

void VirtioPci::queue_stopped(uint16_t queue) {
  if (!queues_.resetting(queue) || resetting_) return;
  queues_.clear(queue);
  show_common();
}

void VirtioPci::reset() {
  if (resetting_) return;
  queues_.stop();
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
  show_common();
}

void VirtioPci::reset_registers() {
  started_ = false;
  status_ = 0;
  isr_ = 0;
  config_vector_ = common::kNoVector;
  device_feature_select_ = driver_feature_select_ = 0;
  driver_features_ = 0;
  queues_.clear();
  update_line();
}

// --- the device's side ------------------------------------------------------------------------------

bool VirtioPci::live() const {
  return (status_ & kDriverOk) != 0 && (status_ & (kNeedsReset | kFailed)) == 0 && !resetting_;
}

void VirtioPci::notified(uint16_t queue) {
  if (live() && queues_.ring(queue).running()) device_.queue_ready(queue);
}

void VirtioPci::used(uint16_t queue) {
  if (queues_.ring(queue).needs_interrupt()) raise(queues_.vector(queue), kIsrQueue);
}

void VirtioPci::interrupt(uint16_t queue) { raise(queues_.vector(queue), kIsrQueue); }

void VirtioPci::config_updated() {
  if (!show_device_config()) return;
  ++generation_;
  show_common();
}

// 4.1.4.3.1: the generation is new before the driver hears of it. A driver that reads between the two gets an
// interrupt behind that, and reads anew.
void VirtioPci::config_changed() {
  show_device_config();
  ++generation_;
  show_common();
  if ((status_ & kDriverOk) != 0) raise(config_vector_, kIsrConfig);
}

void VirtioPci::needs_reset(const std::string& why) {
  if (!complained_)
    log_warn("virtio {}: the guest's driver broke the rules: {}; the device waits for a reset",
             device_.name(), why);
  complained_ = true;
  if ((status_ & kNeedsReset) != 0) return;
  status_ |= kNeedsReset;
  show_common();
  if ((status_ & kDriverOk) != 0) raise(config_vector_, kIsrConfig);
}

std::optional<VirtioRingPlace> VirtioPci::ring_place(uint16_t queue) const {
  if (!queues_.ring(queue).running()) return std::nullopt;
  return VirtioRingPlace{queues_.layout(queue), msix_->event_fd(queues_.vector(queue))};
}

void VirtioPci::ring_elsewhere(uint16_t queue, int event_fd) {
  // Without it each ring is an exit, and rings all the same.
  if (auto bound = doorbells_.lead_to(queue, event_fd); !bound)
    log_debug("virtio {}: {}", device_.name(), bound.error().text());
  doorbells_.ring(queue);
}

void VirtioPci::raise(uint16_t vector, uint8_t cause) {
  if (msix_->enabled()) {
    msix_->raise(vector);
    return;
  }
  isr_ |= cause;
  update_line();
}

// --- snapshots --------------------------------------------------------------------------------------

bool VirtioPci::settle() {
  if (resetting_ || queues_.any_resetting()) return false;
  return !started_ || device_.settle();
}

void VirtioPci::save(SectionWriter& out) const {
  out.number(static_cast<uint16_t>(device_.type()));
  out.number(status_);
  out.number(isr_);
  out.number(generation_);
  out.number(config_vector_);
  out.number(device_feature_select_);
  out.number(driver_feature_select_);
  out.number(driver_features_);
  out.flag(started_);
  const auto config = pages_.bytes().subspan(kConfigAt, kConfigEnd - kConfigAt);
  const auto last =
      std::find_if(config.rbegin(), config.rend(), [](std::byte b) { return b != std::byte{0}; });
  out.blob(config.first(static_cast<size_t>(config.rend() - last)));
  msix_->save(out);
  queues_.save(out);
  if (started_) device_.save(out);
}

void VirtioPci::restore(SectionReader& in) {
  if (in.number<uint16_t>() != static_cast<uint16_t>(device_.type()) && in.good())
    return in.refuse("another kind of device");
  status_ = in.number<uint8_t>();
  isr_ = in.number<uint8_t>();
  generation_ = in.number<uint8_t>();
  config_vector_ = checked_vector(in.number<uint16_t>());
  device_feature_select_ = in.number<uint32_t>();
  driver_feature_select_ = in.number<uint32_t>();
  driver_features_ = in.number<uint64_t>();
  const bool started = in.flag();
  const auto config = in.blob(kConfigEnd - kConfigAt);
  msix_->restore(in);
  if (const uint64_t missing = driver_features_ & ~offered_; missing != 0 && (status_ & kFeaturesOk) != 0)
    return in.refuse(
        fmt::format("the guest uses what the device does not offer now (features {:#x})", missing));
  queues_.restore(ring_features(), in);
  for (uint16_t i = 0; i < queue_count(); ++i) queues_.set_vector(i, checked_vector(queues_.vector(i)));
  if (started != ((status_ & kDriverOk) != 0)) in.refuse("a driver that is ready, or not");
  if (!in.good()) return;
  std::array<std::byte, kConfigEnd - kConfigAt> known{};
  std::copy(config.begin(), config.end(), known.begin());
  pages_.put(kConfigAt, known);
  if (started) {
    started_ = true;
    if (auto bound = doorbells_.bind(); !bound)
      log_debug("virtio {}: {}", device_.name(), bound.error().text());
    device_.go_on(*this, driver_features_, in);
  }
  show_common();
  // The guest hears of what is other than it was.
  if (show_device_config()) config_changed();
  update_line();
}

void VirtioPci::wake(bool interrupt) {
  if (started_) device_.wake();
  if (!live()) return;
  for (uint16_t i = 0; i < queue_count(); ++i) {
    if (!queues_.ring(i).running()) continue;
    doorbells_.ring(i);
    if (interrupt) raise(queues_.vector(i), kIsrQueue);
  }
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
