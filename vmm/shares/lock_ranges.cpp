#include "vmm/shares/lock_ranges.h"

#include <fcntl.h>

#include <algorithm>
#include <iterator>

namespace snug {

void LockRanges::cut_out(uint64_t start, uint64_t end) {
  auto at = ranges_.upper_bound(start);
  if (at != ranges_.begin() && std::prev(at)->second.end >= start) --at;
  while (at != ranges_.end() && at->first <= end) {
    const uint64_t first = at->first;
    const Range old = at->second;
    at = ranges_.erase(at);
    if (first < start) ranges_.emplace(first, Range{start - 1, old.type});
    if (old.end > end) ranges_.emplace(end + 1, old);
  }
}

// With what lies right before and behind it.
void LockRanges::join(std::map<uint64_t, Range>::iterator at) {
  const auto next = std::next(at);
  if (next != ranges_.end() && next->first - 1 == at->second.end && next->second.type == at->second.type) {
    at->second.end = next->second.end;
    ranges_.erase(next);
  }
  if (at == ranges_.begin()) return;
  const auto before = std::prev(at);
  if (before->second.end + 1 != at->first || before->second.type != at->second.type) return;
  before->second.end = at->second.end;
  ranges_.erase(at);
}

void LockRanges::set(const fuse_file_lock& lock) {
  if (!known_) return;
  // What reaches beyond every file's end has none.
  const uint64_t end = std::min<uint64_t>(lock.end, INT64_MAX);
  cut_out(lock.start, end);
  if (lock.type != F_UNLCK) join(ranges_.emplace(lock.start, Range{end, lock.type}).first);
  if (ranges_.size() > kMax) forget();
}

void LockRanges::forget() {
  known_ = false;
  ranges_.clear();
}

bool LockRanges::is_in_the_way_of(const fuse_file_lock& lock) const {
  auto at = ranges_.upper_bound(lock.start);
  if (at != ranges_.begin()) --at;
  for (; at != ranges_.end() && at->first <= lock.end; ++at)
    if (at->second.end >= lock.start && (lock.type == F_WRLCK || at->second.type == F_WRLCK)) return true;
  return false;
}

}  // namespace snug
