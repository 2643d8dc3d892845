#include "devices/virtio/block/block.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"

namespace snug {
namespace {

constexpr uint64_t kSector = 512;
constexpr size_t kRequestsMax = 256;             // under way at once; more wait in the rings
constexpr uint16_t kSegmentsMax = 254;           // of a request; fewer where the ring has no room for them
constexpr uint32_t kMaxRangeSectors = 1u << 22;  // of one discard: 2 GiB

// 5.2.3: feature bits.
constexpr uint64_t kSegMax = uint64_t{1} << 2;
constexpr uint64_t kReadOnly = uint64_t{1} << 5;
constexpr uint64_t kBlockSize = uint64_t{1} << 6;
constexpr uint64_t kFlushes = uint64_t{1} << 9;
constexpr uint64_t kTopology = uint64_t{1} << 10;
constexpr uint64_t kMultiQueue = uint64_t{1} << 12;
constexpr uint64_t kDiscards = uint64_t{1} << 13;
constexpr uint64_t kWritesZeroes = uint64_t{1} << 14;

// 5.2.6: requests.
constexpr uint32_t kIn = 0;
constexpr uint32_t kOut = 1;
constexpr uint32_t kFlush = 4;
constexpr uint32_t kGetId = 8;
constexpr uint32_t kDiscard = 11;
constexpr uint32_t kWriteZeroes = 13;
constexpr uint32_t kUnmap = 1;  // flag of a write-zeroes segment
constexpr uint8_t kOk = 0;
constexpr uint8_t kIoError = 1;
constexpr uint8_t kUnsupported = 2;
constexpr uint8_t kUnderWay = 0xff;  // ours: no answer yet

constexpr size_t kIdBytes = 20;

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(Header) == 16);

struct RangeSegment {
  uint64_t sector;
  uint32_t count;
  uint32_t flags;
};
static_assert(sizeof(RangeSegment) == 16);

template <class T>
bool copy_out(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset, T& value) {
  return copy_from_chain(memory, buffers, offset, std::as_writable_bytes(std::span(&value, 1))) ==
         sizeof value;
}

}  // namespace

VirtioBlock::VirtioBlock(BlockConfig config, std::unique_ptr<BlockBackend> backend)
    : config_(std::move(config)),
      queue_sizes_(config_.queues, config_.queue_size),
      queues_(config_.queues),
      backend_(std::move(backend)) {
  SNUG_ASSERT(config_.queues >= 1 && config_.queues <= kMaxQueues);
}

uint64_t VirtioBlock::features() const {
  uint64_t bits = kSegMax | kBlockSize | kTopology;
  if (!config_.ephemeral || config_.takes_flushes) bits |= kFlushes;
  if (config_.read_only) bits |= kReadOnly;
  if (config_.queues > 1) bits |= kMultiQueue;
  if (config_.discard && !config_.read_only) bits |= kDiscards | kWritesZeroes;
  return bits;
}

void VirtioBlock::read_config(uint64_t offset, std::span<std::byte> data) const {
  // 5.2.4
  std::array<std::byte, 60> image{};
  const auto put = [&image](size_t where, size_t width, uint64_t value) {
    store_le(std::span<std::byte>(image).subspan(where, width), value);
  };
  put(0, 8, config_.size / kSector);
  // Header and status take two entries.
  put(12, 4, std::min<uint16_t>(kSegmentsMax, config_.queue_size - 2));
  put(20, 4, config_.block_size);
  const uint32_t blocks = std::max(config_.physical_block_size / config_.block_size, 1u);
  put(24, 1, static_cast<uint64_t>(std::countr_zero(blocks)));
  put(26, 2, blocks);  // the smallest transfer that is as good as it gets
  put(34, 2, config_.queues);
  if (config_.discard) {
    const uint32_t alignment = std::max<uint32_t>(config_.block_size, 4096) / kSector;
    put(36, 4, kMaxRangeSectors);
    put(40, 4, 1);
    put(44, 4, alignment);
    put(48, 4, kMaxRangeSectors);
    put(52, 4, 1);
    put(56, 1, 1);
  }
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioBlock::start(VirtioHost& host, uint64_t features) {
  host_ = &host;
  // 5.2.5: a driver without FLUSH takes what is done for stable.
  write_through_ = !config_.ephemeral && (features & kFlushes) == 0;
  started_ = true;
  failed_ = false;
}

void VirtioBlock::set_size(uint64_t bytes) {
  if (bytes == config_.size) return;
  log_info("{}: {} has {} bytes now, and had {}", config_.name, config_.storage, bytes, config_.size);
  config_.size = bytes;
  if (started_) host_->config_changed();
}

bool VirtioBlock::stop() {
  started_ = false;
  for (Queue& queue : queues_) queue.waiting = queue.stopping = queue.silent = false;
  stopping_ = under_way_ > 0;
  return !stopping_;
}

bool VirtioBlock::stop_queue(uint16_t index) {
  Queue& queue = queues_[index];
  queue.waiting = queue.silent = false;
  queue.stopping = queue.under_way > 0;
  return !queue.stopping;
}

void VirtioBlock::queue_ready(uint16_t index) { serve(index, true); }

bool VirtioBlock::look() {
  bool found = backend_->kick();
  if (found) completed();
  for (uint16_t i = 0; i < config_.queues; ++i) {
    if (!started_ || failed_) break;
    if (queues_[i].waiting || !host_->queue(i).available()) continue;
    serve(i, false);
    found = true;
  }
  return found;
}

bool VirtioBlock::rest() {
  bool found = false;
  for (uint16_t i = 0; i < config_.queues; ++i) {
    if (!started_ || failed_) break;
    if (!std::exchange(queues_[i].silent, false) || queues_[i].waiting) continue;
    if (!host_->queue(i).enable_notifications()) continue;
    serve(i, true);
    found = true;
  }
  return found;
}

// `ask`: for a notification of what comes next.
void VirtioBlock::serve(uint16_t index, bool ask) {
  if (failed_) return;
  VirtQueue& queue = host_->queue(index);
  queues_[index].waiting = false;
  // One round of the ring at a time: other devices share the loop.
  unsigned budget = queue.size();
  do {
    queue.disable_notifications();
    const bool answered = take_all(index, budget);
    if (backend_->kick()) completed();
    if (answered) host_->used(index);
    // 2.1.2: it stands still until it is reset.
    if (failed_) return;
    if (budget == 0) return host_->again(index);
    queues_[index].silent = !ask;
  } while (ask && !queues_[index].waiting && queue.enable_notifications());
}

// True when some are answered already.
bool VirtioBlock::take_all(uint16_t index, unsigned& budget) {
  VirtQueue& queue = host_->queue(index);
  bool answered = false;
  for (; budget > 0; --budget) {
    if (free_.empty() && slots_.size() >= kRequestsMax) {
      queues_[index].waiting = true;
      break;
    }
    const auto popped = queue.pop(chain_);
    if (popped == VirtQueue::Pop::kBroken) fail(queue.why());
    if (popped != VirtQueue::Pop::kChain) break;
    const Taken taken = take(index);
    if (taken == Taken::kBroken) break;
    answered = answered || taken == Taken::kAnswered;
  }
  return answered;
}

// 5.2.6: a header of 16 bytes, data, a status byte, however the driver cuts them into buffers.
VirtioBlock::Taken VirtioBlock::take(uint16_t index) {
  Header header{};
  if (!copy_out(host_->memory(), chain_.readable, 0, header) || chain_.writable.empty()) {
    fail("a disk request without a whole header and a status byte");
    return Taken::kBroken;
  }
  const VirtBuffer& last = chain_.writable.back();
  status_gpa_ = last.gpa + last.length - 1;
  if (header.type == kGetId) return answer_id(index);

  if (free_.empty()) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->request.tag = slots_.size() - 1;
    free_.push_back(slots_.size() - 1);
  }
  Slot& slot = *slots_[free_.back()];
  slot.request.iovecs.clear();
  slot.data_bytes = 0;
  slot.request.durable = write_through_;
  const uint8_t status = prepare(slot, header.type, header.sector);
  if (status != kUnderWay) return answer(index, status, 1);
  slot.room.clear();
  if (slot.data_bytes > 0) std::swap(slot.room, chain_.writable);
  slot.queue = index;
  slot.head = chain_.head;
  slot.status_gpa = status_gpa_;
  const bool changes =
      slot.request.operation != BlockOperation::kRead && slot.request.operation != BlockOperation::kFlush;
  slot.changed_at = slot.request.offset;
  slot.changed_bytes = changes ? slot.request.length : 0;
  if (!backend_->submit(slot.request)) return answer(index, kIoError, 1);
  free_.pop_back();
  ++under_way_;
  ++queues_[index].under_way;
  const BlockOperation operation = slot.request.operation;
  config_.written |= operation != BlockOperation::kRead && operation != BlockOperation::kFlush;
  return Taken::kUnderWay;
}

uint8_t VirtioBlock::prepare(Slot& slot, uint32_t type, uint64_t sector) {
  switch (type) {
    case kIn:
      return prepare_transfer(slot, sector, true) ? kUnderWay : kIoError;
    case kOut:
      return !config_.read_only && prepare_transfer(slot, sector, false) ? kUnderWay : kIoError;
    case kFlush:
      slot.request.operation = BlockOperation::kFlush;
      return config_.read_only || config_.ephemeral ? kOk : kUnderWay;
    case kDiscard:
    case kWriteZeroes:
      if (!config_.discard || config_.read_only) return kUnsupported;
      return prepare_range(slot, type) ? kUnderWay : kIoError;
    default:
      return kUnsupported;
  }
}

bool VirtioBlock::prepare_transfer(Slot& slot, uint64_t sector, bool read) {
  const std::vector<VirtBuffer>& buffers = read ? chain_.writable : chain_.readable;
  const uint64_t skip = read ? 0 : sizeof(Header);
  const uint64_t all = read ? chain_.writable_bytes() - 1 : chain_.readable_bytes();
  const uint64_t length = all - skip;
  const uint64_t sectors = config_.size / kSector;
  if (length == 0 || length % kSector != 0 || length > UINT32_MAX - 1) return false;
  if (!range_within(sector, length / kSector, sectors)) return false;
  slot.request.operation = read ? BlockOperation::kRead : BlockOperation::kWrite;
  slot.request.offset = sector * kSector;
  slot.request.length = length;
  slot.data_bytes = read ? static_cast<uint32_t>(length) : 0;
  return append_chain_iovecs(host_->memory(), buffers, skip, length, slot.request.iovecs);
}

// 5.2.6.2: one segment, as the configuration asks.
bool VirtioBlock::prepare_range(Slot& slot, uint32_t type) {
  RangeSegment segment{};
  if (chain_.readable_bytes() != sizeof(Header) + sizeof segment ||
      !copy_out(host_->memory(), chain_.readable, sizeof(Header), segment))
    return false;
  const bool unmap = (segment.flags & kUnmap) != 0;
  if ((segment.flags & ~kUnmap) != 0 || (type == kDiscard && unmap)) return false;
  if (segment.count == 0 || segment.count > kMaxRangeSectors ||
      !range_within(segment.sector, segment.count, config_.size / kSector))
    return false;
  slot.request.operation = type == kDiscard ? BlockOperation::kDiscard
                           : unmap          ? BlockOperation::kZeroAndFree
                                            : BlockOperation::kWriteZeroes;
  slot.request.offset = segment.sector * kSector;
  slot.request.length = uint64_t{segment.count} * kSector;
  return true;
}

VirtioBlock::Taken VirtioBlock::answer_id(uint16_t index) {
  std::array<std::byte, kIdBytes> id{};
  std::memcpy(id.data(), config_.serial.data(), std::min(config_.serial.size(), id.size()));
  const uint64_t room = chain_.writable_bytes() - 1;
  const auto part =
      std::span<const std::byte>(id).first(static_cast<size_t>(std::min<uint64_t>(room, id.size())));
  const size_t written = copy_to_chain(host_->memory(), chain_.writable, 0, part);
  return answer(index, kOk, static_cast<uint32_t>(written + 1));
}

VirtioBlock::Taken VirtioBlock::answer(uint16_t index, uint8_t status, uint32_t written) {
  (void)host_->memory().store(status_gpa_, status);
  (void)host_->queue(index).push(chain_.head, written);
  return Taken::kAnswered;
}

void VirtioBlock::note_changes(bool noting) {
  changes_ = noting ? std::make_optional<BlockChanges>() : std::nullopt;
}

void VirtioBlock::save(SectionWriter& out) const {
  out.number(config_.size);
  out.flag(failed_);
}

void VirtioBlock::restore(SectionReader& in) {
  const auto size = in.number<uint64_t>();
  failed_ = in.flag();
  if (in.good() && size != config_.size)
    in.refuse(fmt::format("{} has {} bytes, and had {}", config_.storage, config_.size, size));
}

void VirtioBlock::fail(const std::string& why) {
  failed_ = true;
  host_->needs_reset(why);
}

// The guest sees an I/O error and no more; the person who runs it sees why. Once: a full disk fails each
// write.
void VirtioBlock::complain(const BlockRequest& request, int error) {
  if (complained_ || error == EOPNOTSUPP) return;
  complained_ = true;
  const char* what = request.operation == BlockOperation::kRead    ? "read from"
                     : request.operation == BlockOperation::kFlush ? "flush of"
                                                                   : "write to";
  log_warn("{}: {} {}: {}; the guest sees I/O errors", config_.name, what, config_.storage,
           errno_text(error));
}

void VirtioBlock::completed() {
  std::array<bool, kMaxQueues> touched{};
  backend_->reap([&](uint64_t tag, int error) {
    Slot& slot = *slots_[tag];
    Queue& queue = queues_[slot.queue];
    free_.push_back(tag);
    --under_way_;
    --queue.under_way;
    touched[slot.queue] = true;
    if (error != 0) complain(slot.request, error);
    // One that has failed may have changed something.
    if (changes_) note_change(slot.changed_at, slot.changed_bytes);
    wrote_chain(host_->memory(), slot.room, 0, slot.data_bytes);
    if (stopping_ || queue.stopping) return;
    const uint8_t status = error == 0 ? kOk : error == EOPNOTSUPP ? kUnsupported : kIoError;
    (void)host_->memory().store(slot.status_gpa, status);
    (void)host_->queue(slot.queue).push(slot.head, (error == 0 ? slot.data_bytes : 0) + 1);
  });
  if (stopping_) {
    stopping_ = under_way_ > 0;
    if (!stopping_) host_->stopped();
    return;
  }
  for (uint16_t i = 0; i < config_.queues; ++i) {
    Queue& queue = queues_[i];
    if (queue.stopping && queue.under_way == 0) {
      queue.stopping = false;
      host_->queue_stopped(i);
    } else if (touched[i] && !queue.stopping) {
      host_->used(i);
    }
    if (queue.waiting) host_->again(i);
  }
}

}  // namespace snug
