// Requests that wait for a lock. No thread waits with them: a lock that cannot be had at once is noted here
// and tried again when the guest has given one back, and by poll().
//
// Thread: any number at a time, but end_all() and forget_all() alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>

#include "vmm/shares/file_locks.h"
#include "vmm/shares/request.h"

namespace snug {

struct WantedLock {
  std::shared_ptr<Handle> handle;
  uint64_t owner = 0;
  fuse_file_lock lock{};
  bool whole_file = false;  // flock(2)
};

class LockWaits {
 public:
  // Less than a queue has room for (share::kQueueSize), or what gives a lock back would not come through.
  static constexpr size_t kMaxWaiting = 192;

  LockWaits(FileLocks& locks, std::function<void(uint64_t ticket, uint32_t written)> answered)
      : locks_(locks), answered_(std::move(answered)) {}

  // Tries it now, and else later: then `reply` is detached. ENOLCK: too many wait. EDEADLK: one that has it
  // waits, by way of others or not, for what this owner has.
  Outcome<> take(WantedLock wanted, uint64_t unique, Reply& reply);
  // Tries all that wait. False: none is left.
  bool poll();
  bool any() const { return count_.load() > 0; }
  // Ends the one of this request by EINTR, if it waits.
  void interrupt(uint64_t unique);
  // Ends all of them by EINTR; the same without a word.
  void end_all();
  void forget_all();

 private:
  struct Waiting {
    WantedLock wanted;
    LateReply reply;
  };
  Outcome<> attempt(const WantedLock& wanted);
  bool would_never_end(const WantedLock& wanted) const;
  void answer(Waiting& waiting, const Outcome<>& outcome);

  FileLocks& locks_;
  const std::function<void(uint64_t ticket, uint32_t written)> answered_;
  std::atomic<size_t> count_ = 0;
  std::mutex mutex_;
  std::list<Waiting> waiting_;
};

}  // namespace snug
