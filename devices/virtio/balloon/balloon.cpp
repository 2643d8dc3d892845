#include "devices/virtio/balloon/balloon.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "vmm/base/endian.h"

namespace snug {
namespace {

// 5.5.3: feature bits.
constexpr uint64_t kStatsQueue = uint64_t{1} << 1;
constexpr uint64_t kDeflateOnOom = uint64_t{1} << 2;
constexpr uint64_t kPagePoison = uint64_t{1} << 4;
constexpr uint64_t kPageReporting = uint64_t{1} << 5;

// 5.5.4: configuration.
constexpr uint64_t kActual = 4;
constexpr uint64_t kPoison = 12;
constexpr size_t kConfigSize = 16;

// 5.5.6.3: an entry of the statistics, { le16 tag; le64 value; }.
constexpr size_t kStat = 10;
constexpr size_t kStatsMax = 64;  // entries looked at

constexpr size_t kListPart = 1024;  // pages of an inflate list looked at together
constexpr size_t kTurn = 4096;      // pages or ranges before others want their turn

}  // namespace

VirtioBalloon::VirtioBalloon(BalloonConfig config) : config_(std::move(config)) {
  set_target(config_.target);
}

// Not FREE_PAGE_HINT, which is for migration; nor MUST_TELL_HOST: pages come back by being touched.
uint64_t VirtioBalloon::features() const {
  return kStatsQueue | kDeflateOnOom | kPagePoison | kPageReporting;
}

void VirtioBalloon::read_config(uint64_t offset, std::span<std::byte> data) const {
  std::array<std::byte, kConfigSize> image{};
  const std::span<std::byte> all(image);
  store_le(all.subspan(0, 4), target_pages_);
  store_le(all.subspan(kActual, 4), actual_pages_);
  store_le(all.subspan(kPoison, 4), poison_);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioBalloon::write_config(uint64_t offset, std::span<const std::byte> data) {
  if (data.size() != 4) return;
  const auto value = static_cast<uint32_t>(load_le(data));
  if (offset == kPoison) poison_ = value;
  if (offset != kActual || value == actual_pages_) return;
  actual_pages_ = value;
  if (config_.on_size) config_.on_size(size());
}

void VirtioBalloon::set_target(uint64_t bytes) {
  const auto pages =
      static_cast<uint32_t>(std::min<uint64_t>(bytes / kPage, std::numeric_limits<uint32_t>::max()));
  if (pages == target_pages_) return;
  target_pages_ = pages;
  if (host_ != nullptr) host_->config_changed();
}

void VirtioBalloon::start(VirtioHost& host, uint64_t features) {
  host_ = &host;
  features_ = features;
}

// The pages of a balloon whose driver is gone are the guest's again.
bool VirtioBalloon::stop() {
  host_ = nullptr;
  for (Held& held : held_) held.valid = false;
  stats_buffer_.valid = stats_awaited_ = false;
  stats_ = {};
  actual_pages_ = poison_ = 0;
  return true;
}

bool VirtioBalloon::stop_queue(uint16_t queue) {
  held_[queue].valid = false;
  if (work_of(queue) == Work::kStats) stats_buffer_.valid = stats_awaited_ = false;
  return true;
}

// 5.5.2 gives each queue a fixed number; Linux numbers those that it uses without gaps. There is no queue for
// hints here, so that 3 and 4 can both be the one for reports, and so can 2 for a driver without statistics.
VirtioBalloon::Work VirtioBalloon::work_of(uint16_t queue) const {
  if (queue == 0) return Work::kInflate;
  if (queue == 1) return Work::kDeflate;
  return queue == 2 && (features_ & kStatsQueue) != 0 ? Work::kStats : Work::kReport;
}

void VirtioBalloon::queue_ready(uint16_t index) {
  const Work work = work_of(index);
  if (work == Work::kStats) return take_stats();
  if (work == Work::kReport && (features_ & kPageReporting) == 0) return;
  VirtQueue& queue = host_->queue(index);
  Held& held = held_[index];
  size_t budget = kTurn;
  do {
    queue.disable_notifications();
    for (;;) {
      if (!held.valid) {
        const auto popped = queue.pop(held.chain);
        if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
        if (popped == VirtQueue::Pop::kEmpty) break;
        held.valid = true;
        held.done = 0;
      }
      // Each chain costs something, however little it says.
      if (budget > 0) --budget;
      if (do_chain(work, held, budget)) {
        (void)queue.push(held.chain.head, 0);
        held.valid = false;
      }
      if (budget > 0) continue;
      host_->used(index);
      return host_->again(index);
    }
  } while (queue.enable_notifications());
  host_->used(index);
}

// Whether the chain is done; otherwise the budget is used up.
bool VirtioBalloon::do_chain(Work work, Held& held, size_t& budget) {
  switch (work) {
    case Work::kInflate:
      return inflate(held, budget);
    case Work::kReport:
      return report(held, budget);
    case Work::kDeflate:  // a page comes back by being touched
    case Work::kStats:
      return true;
  }
  return true;
}

// 5.5.6.1: page numbers, le32. What the guest gives in one request often lies side by side, in either
// direction.
bool VirtioBalloon::inflate(Held& held, size_t& budget) {
  const uint64_t total = held.chain.readable_bytes() / 4 * 4;
  while (held.done < total) {
    if (budget == 0) return false;
    pages_.resize(std::min({(total - held.done) / 4, uint64_t{kListPart}, uint64_t{budget}}));
    const auto bytes = std::as_writable_bytes(std::span(pages_));
    if (copy_from_chain(host_->memory(), held.chain.readable, held.done, bytes) != bytes.size()) return true;
    held.done += bytes.size();
    budget -= pages_.size();
    std::ranges::sort(pages_);
    for (size_t i = 0; i < pages_.size();) {
      size_t end = i + 1;
      while (end < pages_.size() && pages_[end] - pages_[end - 1] <= 1) ++end;
      const uint64_t count = uint64_t{pages_[end - 1]} - pages_[i] + 1;
      give_back(uint64_t{pages_[i]} * kPage, count * kPage);
      i = end;
    }
  }
  return true;
}

// 5.5.6.7: the buffers themselves are the free pages. When the guest relies on a pattern other than zero in
// them, they stay as they are: a page that comes back is zero.
bool VirtioBalloon::report(Held& held, size_t& budget) {
  if ((features_ & kPagePoison) != 0 && poison_ != 0) return true;
  const std::vector<VirtBuffer>& buffers = held.chain.writable;
  for (; held.done < buffers.size(); ++held.done) {
    if (budget == 0) return false;
    --budget;
    const VirtBuffer& buffer = buffers[held.done];
    const uint64_t start = (buffer.gpa + kPage - 1) / kPage * kPage;
    const uint64_t end = (buffer.gpa + buffer.length) / kPage * kPage;
    if (start < end) give_back(start, end - start);
  }
  return true;
}

// A run of pages that is not RAM as a whole is looked at page by page: only its own guest's mistake makes
// one.
void VirtioBalloon::give_back(uint64_t gpa, uint64_t length) {
  const GuestMemory& memory = host_->memory();
  if (memory.discard(gpa, length)) {
    given_back_ += length;
    return;
  }
  if (length == kPage) return;
  for (; length > 0; length -= kPage, gpa += kPage)
    if (memory.discard(gpa, kPage)) given_back_ += kPage;
}

// --- snapshots ------------------------------------------------------------------------------------------

// What was done of a chain is done once more: pages that are gone may go again.
bool VirtioBalloon::settle() {
  for (uint16_t i = 0; i < held_.size(); ++i) {
    if (std::exchange(held_[i].valid, false)) host_->queue(i).put_back(std::move(held_[i].chain));
  }
  if (std::exchange(stats_buffer_.valid, false)) host_->queue(2).put_back(std::move(stats_buffer_.chain));
  return true;
}

void VirtioBalloon::save(SectionWriter& out) const {
  out.number(target_pages_);
  out.number(actual_pages_);
  out.number(poison_);
}

void VirtioBalloon::restore(SectionReader& in) {
  target_pages_ = in.number<uint32_t>();
  actual_pages_ = in.number<uint32_t>();
  poison_ = in.number<uint32_t>();
}

// --- statistics -------------------------------------------------------------------------------------

// 5.5.6.3: the guest's buffer stays here until new statistics are wanted.
void VirtioBalloon::take_stats() {
  constexpr uint16_t kQueue = 2;
  VirtQueue& queue = host_->queue(kQueue);
  bool any = false;
  for (unsigned chains = queue.size(); chains > 0; --chains) {
    Held& held = held_[kQueue];
    const auto popped = queue.pop(held.chain);
    if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
    if (popped == VirtQueue::Pop::kEmpty) break;
    // One at a time is all that makes sense.
    if (stats_buffer_.valid) (void)queue.push(stats_buffer_.chain.head, 0);
    std::swap(stats_buffer_.chain, held.chain);
    stats_buffer_.valid = any = true;
  }
  if (queue.enable_notifications()) host_->again(kQueue);
  if (!any) return;
  stats_awaited_ = false;
  host_->used(kQueue);
  std::array<std::byte, kStat * kStatsMax> bytes;
  const size_t length = copy_from_chain(host_->memory(), stats_buffer_.chain.readable, 0, bytes);
  const std::array<std::optional<uint64_t>*, 10> places{
      &stats_.swap_in,           &stats_.swap_out,    &stats_.major_faults,
      &stats_.minor_faults,      &stats_.free,        &stats_.total,
      &stats_.available,         &stats_.disk_caches, &stats_.huge_page_allocations,
      &stats_.huge_page_failures};
  for (size_t at = 0; at + kStat <= length; at += kStat) {
    const auto entry = std::span<const std::byte>(bytes).subspan(at, kStat);
    const uint64_t tag = load_le(entry.first(2));
    if (tag < places.size()) *places[tag] = load_le(entry.subspan(2));
  }
  if (config_.on_stats) config_.on_stats(stats_);
}

bool VirtioBalloon::refresh_stats() {
  if (host_ == nullptr || !stats_buffer_.valid) return false;
  stats_buffer_.valid = false;
  stats_awaited_ = true;
  (void)host_->queue(2).push(stats_buffer_.chain.head, 0);
  host_->used(2);
  return true;
}

}  // namespace snug
