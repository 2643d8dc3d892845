#include "devices/virtio/pmem/pmem.h"

#include <algorithm>
#include <utility>

#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"

namespace snug {
namespace {

// 5.19.6, 5.19.7: the one request, and its answers.
constexpr uint32_t kFlush = 0;
constexpr int32_t kDone = 0;
constexpr int32_t kFailed = -1;

}  // namespace

// Nobody gets here but by a register of its own: memory that can be read is read without an exit.
void RefusedWrites::read(uint64_t, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0xff});
}

void RefusedWrites::write(uint64_t offset, std::span<const std::byte>) {
  if (count_++ > 0) return;
  log_warn("{}: the guest writes to {}, which it can only read, at offset {:#x}: what it writes is lost",
           name_, storage_, offset);
}

VirtioPmem::VirtioPmem(PmemConfig config, std::unique_ptr<BlockBackend> backend, const RefusedWrites* refused)
    : config_(std::move(config)), refused_(refused), backend_(std::move(backend)) {
  SNUG_ASSERT(config_.read_only ? refused_ != nullptr : backend_ != nullptr);
  flush_.operation = BlockOperation::kFlush;
}

void VirtioPmem::read_config(uint64_t offset, std::span<std::byte> data) const {
  // 5.19.4
  std::array<std::byte, 16> image{};
  store_le(std::span<std::byte>(image).first(8), config_.start);
  store_le(std::span<std::byte>(image).subspan(8), config_.size);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioPmem::start(VirtioHost& host, uint64_t) {
  host_ = &host;
  started_ = true;
  failed_ = false;
}

bool VirtioPmem::stop() {
  started_ = queue_stopping_ = false;
  waiting_.clear();
  stopping_ = under_way_;
  return !stopping_;
}

bool VirtioPmem::stop_queue(uint16_t) {
  waiting_.clear();
  queue_stopping_ = under_way_;
  return !queue_stopping_;
}

void VirtioPmem::queue_ready(uint16_t index) {
  if (failed_) return;
  VirtQueue& queue = host_->queue(index);
  bool answered = false;
  // One round of the ring at a time: other devices share the loop.
  unsigned budget = queue.size();
  do {
    queue.disable_notifications();
    for (; budget > 0; --budget) {
      const auto popped = queue.pop(chain_);
      if (popped == VirtQueue::Pop::kBroken) fail(queue.why());
      if (popped != VirtQueue::Pop::kChain) break;
      const Taken taken = take();
      if (taken == Taken::kBroken) break;
      answered = answered || taken == Taken::kAnswered;
    }
    if (failed_) break;
    begin_flush();
    if (budget == 0) {
      if (answered) host_->used(index);
      return host_->again(index);
    }
  } while (queue.enable_notifications());
  if (answered) host_->used(index);
}

// 5.19.6: le32 type, and le32 for the answer, however the driver cuts them into buffers.
VirtioPmem::Taken VirtioPmem::take() {
  std::array<std::byte, sizeof(uint32_t)> type{};
  if (copy_from_chain(host_->memory(), chain_.readable, 0, type) != type.size() ||
      chain_.writable_bytes() < kAnswerBytes) {
    fail("a flush request without a whole request and room for its answer");
    return Taken::kBroken;
  }
  Request request{chain_.head, {}};
  size_t found = 0;
  for (const VirtBuffer& buffer : chain_.writable)
    for (uint64_t at = 0; at < buffer.length && found < kAnswerBytes; ++at)
      request.answer[found++] = buffer.gpa + at;
  if (load_le(std::span<const std::byte>(type)) != kFlush) {
    answer(request, kFailed);
    return Taken::kAnswered;
  }
  if (config_.read_only) {
    // What the guest has written since is not on any medium, nor anywhere else.
    const uint64_t refused = refused_->count();
    answer(request, std::exchange(refused_before_, refused) == refused ? kDone : kFailed);
    return Taken::kAnswered;
  }
  waiting_.push_back(request);
  return Taken::kWaiting;
}

void VirtioPmem::answer(const Request& request, int32_t value) {
  std::array<std::byte, kAnswerBytes> bytes{};
  store_le(std::span<std::byte>(bytes), static_cast<uint32_t>(value));
  for (size_t i = 0; i < bytes.size(); ++i) (void)host_->memory().store(request.answer[i], bytes[i]);
  (void)host_->queue(0).push(request.head, kAnswerBytes);
}

// One for all that wait: what they are to make stable was written before they came.
void VirtioPmem::begin_flush() {
  while (!under_way_ && !waiting_.empty()) {
    std::swap(flushing_, waiting_);
    under_way_ = true;
    const bool taken = backend_->submit(flush_);
    SNUG_ASSERT(taken);  // it has no other
    if (!backend_->kick()) return;
    completed();
  }
}

void VirtioPmem::completed() {
  backend_->reap([this](uint64_t, int error) {
    under_way_ = false;
    if (error != 0 && !std::exchange(complained_, true))
      log_warn("{}: flush of {}: {}; the guest sees I/O errors", config_.name, config_.storage,
               errno_text(error));
    const bool kept = stopping_ || queue_stopping_;
    for (const Request& request : flushing_)
      if (!kept) answer(request, error == 0 ? kDone : kFailed);
    flushing_.clear();
    if (std::exchange(stopping_, false)) return host_->stopped();
    if (std::exchange(queue_stopping_, false)) return host_->queue_stopped(0);
    if (!kept) host_->used(0);
  });
  if (started_ && !failed_) begin_flush();
}

std::string VirtioPmem::unsaveable() const { return config_.read_only ? "" : "the guest may write to it"; }

void VirtioPmem::save(SectionWriter& out) const {
  out.number(config_.start);
  out.number(config_.size);
  out.flag(failed_);
}

void VirtioPmem::restore(SectionReader& in) {
  const auto start = in.number<uint64_t>();
  const auto size = in.number<uint64_t>();
  failed_ = in.flag();
  if (in.good() && (start != config_.start || size != config_.size))
    in.refuse(fmt::format("{} is at {:#x} with {:#x} bytes, and was at {:#x} with {:#x}", config_.storage,
                          config_.start, config_.size, start, size));
}

void VirtioPmem::fail(const std::string& why) {
  failed_ = true;
  host_->needs_reset(why);
}

}  // namespace snug
