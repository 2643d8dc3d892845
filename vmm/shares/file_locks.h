// Locks of the guest, as locks of the host: they hold against other processes there too. A POSIX lock belongs
// to an owner that the guest names; each owner has a descriptor of its own for each file, on which the host
// keeps what is locked (fcntl(2), open file description locks). flock(2) belongs to what is open, in the
// guest as on the host.
//
// Thread: any number at a time. Never waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "vmm/shares/descriptor_budget.h"
#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/handle_table.h"
#include "vmm/shares/host_files.h"
#include "vmm/shares/lock_ranges.h"

namespace snug {

class FileLocks {
 public:
  // Parts of files of which it is known whose they are, of all owners together.
  static constexpr size_t kRangesMax = 16384;

  FileLocks(const HostFiles& host, DescriptorBudget& budget, bool readonly)
      : host_(host), budget_(budget), readonly_(readonly) {}

  // EAGAIN: another has it. ENOLCK: there are too many.
  Outcome<> set(const Handle& handle, uint64_t owner, const fuse_file_lock& lock);
  Outcome<> set_whole(const Handle& handle, uint32_t type);
  // The first lock that is in the way, or one of type F_UNLCK.
  Outcome<fuse_file_lock> test(const Handle& handle, uint64_t owner, const fuse_file_lock& lock) const;
  // Of the guest's own, those whose locks keep `owner` from this one.
  std::vector<uint64_t> owners_in_the_way(const Handle& handle, uint64_t owner,
                                          const fuse_file_lock& lock) const;
  // What an owner has of an inode.
  void drop(uint64_t inode, uint64_t owner);
  // What was locked through one that is closed. Of a process nothing is left by then: its own close said so
  // before. Of open file description locks the guest never says a word.
  void drop_through(const Handle& handle);
  // What anybody has of one that nobody has open any more.
  void drop_unused(const InodeRef& inode);
  void clear();
  // Whether anybody may have a POSIX lock now.
  bool any() const;
  // Whether there has been a POSIX lock since clear().
  bool in_use() const { return in_use_.load(std::memory_order_relaxed); }

 private:
  struct Owned {
    explicit Owned(std::atomic<size_t>& ranges_of_all) : of_all(ranges_of_all) {}
    ~Owned() { of_all -= ranges.size(); }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;

    std::atomic<size_t>& of_all;
    DescriptorBudget::Share descriptor;
    UniqueFd fd;
    std::mutex mutex;
    LockRanges ranges;  // as the host has them; under the mutex, as what changes them
    uint32_t pid = 0;   // in the guest
    // The last that it locked with, or tried to at first; never looked into.
    std::atomic<const Handle*> through = nullptr;
  };
  using Key = std::pair<uint64_t, uint64_t>;  // inode, owner

  std::shared_ptr<Owned> find(const Key& key) const;
  static Outcome<> change(Owned& owned, const fuse_file_lock& lock);
  Outcome<std::shared_ptr<Owned>> find_or_open(const Handle& handle, const Key& key);
  uint32_t other_owner(const Key& key) const;

  const HostFiles& host_;
  DescriptorBudget& budget_;
  const bool readonly_;
  std::atomic<bool> in_use_ = false;
  std::atomic<size_t> ranges_ = 0;
  mutable std::mutex mutex_;
  std::map<Key, std::shared_ptr<Owned>> owned_;
};

}  // namespace snug
