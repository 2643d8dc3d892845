#include "vmm/shares/file_locks.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cstdint>

namespace snug {
namespace {

Outcome<struct flock> host_lock(const fuse_file_lock& lock) {
  if (lock.start > lock.end || lock.start > INT64_MAX) return refuse(EINVAL);
  if (lock.type != F_RDLCK && lock.type != F_WRLCK && lock.type != F_UNLCK) return refuse(EINVAL);
  struct flock range {};
  range.l_type = static_cast<short>(lock.type);
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(lock.start);
  // Whatever the file grows to.
  if (lock.end < INT64_MAX) range.l_len = static_cast<off_t>(lock.end - lock.start + 1);
  return range;
}

}  // namespace

std::shared_ptr<FileLocks::Owned> FileLocks::find(const Key& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = owned_.find(key);
  return found == owned_.end() ? nullptr : found->second;
}

Outcome<std::shared_ptr<FileLocks::Owned>> FileLocks::find_or_open(const Handle& handle, const Key& key) {
  if (auto found = find(key)) return found;
  auto owned = std::make_shared<Owned>(ranges_);
  owned->descriptor = budget_.take();
  if (!owned->descriptor) return refuse(ENOLCK);
  // One that may both read and write can take either kind of lock.
  Outcome<UniqueFd> fd = refuse(EROFS);
  if (!readonly_) fd = host_.reopen(handle.inode.fd(), O_RDWR);
  if (!fd) fd = host_.reopen(handle.inode.fd(), O_RDONLY);
  if (!fd && !readonly_) fd = host_.reopen(handle.inode.fd(), O_WRONLY);
  if (!fd) return refuse(ENOLCK);
  owned->fd = std::move(*fd);
  // It goes with that even if it never gets a lock.
  owned->through = &handle;
  const std::lock_guard lock(mutex_);
  return owned_.emplace(key, std::move(owned)).first->second;
}

// One at a time of an owner: the host and what is known of it are to agree.
Outcome<> FileLocks::change(Owned& owned, const fuse_file_lock& lock) {
  struct flock range = SNUG_TRY(host_lock(lock));
  const std::lock_guard alone(owned.mutex);
  if (::fcntl(owned.fd.get(), F_OFD_SETLK, &range) != 0) return refuse(errno == EACCES ? EAGAIN : errno);
  const size_t before = owned.ranges.size();
  owned.ranges.set(lock);
  // What is less than before wraps around, twice.
  if ((owned.of_all += owned.ranges.size() - before) <= kRangesMax) return {};
  owned.of_all -= owned.ranges.size();
  owned.ranges.forget();
  return {};
}

Outcome<> FileLocks::set(const Handle& handle, uint64_t owner, const fuse_file_lock& lock) {
  in_use_.store(true, std::memory_order_relaxed);
  const struct flock range = SNUG_TRY(host_lock(lock));
  const Key key(handle.inode.id(), owner);
  if (lock.type == F_UNLCK) {
    const auto owned = find(key);
    if (!owned) return {};
    SNUG_TRY(change(*owned, lock));
    if (lock.start == 0 && range.l_len == 0) drop(key.first, key.second);
    return {};
  }
  const auto owned = SNUG_TRY(find_or_open(handle, key));
  SNUG_TRY(change(*owned, lock));
  owned->pid = lock.pid;
  owned->through = &handle;
  return {};
}

Outcome<> FileLocks::set_whole(const Handle& handle, uint32_t type) {
  const int operation = type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
  if (operation == LOCK_UN && type != F_UNLCK) return refuse(EINVAL);
  SNUG_TRY(outcome_of(::flock(handle.fd.get(), operation | LOCK_NB)));
  handle.locked = operation != LOCK_UN;
  return {};
}

std::vector<uint64_t> FileLocks::owners_in_the_way(const Handle& handle, uint64_t owner,
                                                   const fuse_file_lock& lock) const {
  const uint64_t inode = handle.inode.id();
  std::vector<std::pair<uint64_t, std::shared_ptr<Owned>>> others;
  {
    const std::lock_guard guard(mutex_);
    for (auto at = owned_.lower_bound({inode, 0}); at != owned_.end() && at->first.first == inode; ++at)
      if (at->first.second != owner) others.emplace_back(at->first.second, at->second);
  }
  std::vector<uint64_t> found;
  for (const auto& [other, owned] : others) {
    const std::lock_guard alone(owned->mutex);
    if (owned->ranges.is_in_the_way_of(lock)) found.push_back(other);
  }
  return found;
}

bool FileLocks::any() const {
  const std::lock_guard lock(mutex_);
  return !owned_.empty();
}

// Who has it on the host is nothing to the guest; of its own owners it is known when there is only one.
uint32_t FileLocks::other_owner(const Key& key) const {
  const std::lock_guard lock(mutex_);
  uint32_t pid = 0;
  int others = 0;
  for (auto at = owned_.lower_bound({key.first, 0}); at != owned_.end() && at->first.first == key.first;
       ++at) {
    if (at->first.second == key.second) continue;
    pid = at->second->pid;
    if (++others > 1) return 0;
  }
  return pid;
}

Outcome<fuse_file_lock> FileLocks::test(const Handle& handle, uint64_t owner,
                                        const fuse_file_lock& lock) const {
  struct flock range = SNUG_TRY(host_lock(lock));
  if (lock.type == F_UNLCK) return refuse(EINVAL);
  const Key key(handle.inode.id(), owner);
  const auto owned = find(key);
  SNUG_TRY(outcome_of(::fcntl(owned ? owned->fd.get() : handle.fd.get(), F_OFD_GETLK, &range)));
  fuse_file_lock found{};
  found.type = static_cast<uint32_t>(range.l_type);
  if (range.l_type == F_UNLCK) return found;
  found.start = static_cast<uint64_t>(range.l_start);
  found.end = range.l_len == 0 ? INT64_MAX : found.start + static_cast<uint64_t>(range.l_len) - 1;
  if (range.l_pid < 0) found.pid = other_owner(key);
  return found;
}

void FileLocks::drop(uint64_t inode, uint64_t owner) {
  std::shared_ptr<Owned> closing;
  const std::lock_guard lock(mutex_);
  const auto found = owned_.find({inode, owner});
  if (found == owned_.end()) return;
  closing = std::move(found->second);
  owned_.erase(found);
}

void FileLocks::drop_through(const Handle& handle) {
  std::map<Key, std::shared_ptr<Owned>> closing;
  const uint64_t inode = handle.inode.id();
  const std::lock_guard lock(mutex_);
  for (auto at = owned_.lower_bound({inode, 0}); at != owned_.end() && at->first.first == inode;) {
    const auto one = at++;
    if (one->second->through == &handle) closing.insert(owned_.extract(one));
  }
}

void FileLocks::drop_unused(const InodeRef& inode) {
  std::map<Key, std::shared_ptr<Owned>> closing;
  const std::lock_guard lock(mutex_);
  // Looked at under the lock: who opens it now finds nothing that is about to go.
  if (inode->open_files != 0) return;
  for (auto at = owned_.lower_bound({inode.id(), 0}); at != owned_.end() && at->first.first == inode.id();)
    closing.insert(owned_.extract(at++));
}

void FileLocks::clear() {
  std::map<Key, std::shared_ptr<Owned>> closing;
  const std::lock_guard lock(mutex_);
  closing.swap(owned_);
  in_use_.store(false, std::memory_order_relaxed);
}

}  // namespace snug
