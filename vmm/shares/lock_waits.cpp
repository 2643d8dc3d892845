#include "vmm/shares/lock_waits.h"

#include <set>
#include <vector>

namespace snug {

Outcome<> LockWaits::attempt(const WantedLock& wanted) {
  if (wanted.whole_file) return locks_.set_whole(*wanted.handle, wanted.lock.type);
  return locks_.set(*wanted.handle, wanted.owner, wanted.lock);
}

// Owners wait for owners; flock(2) has none. Nobody can be a part of such a circle who does not wait, so it
// is enough to look when one begins to.
bool LockWaits::would_never_end(const WantedLock& wanted) const {
  std::set<uint64_t> seen;
  std::vector<uint64_t> next = locks_.owners_in_the_way(*wanted.handle, wanted.owner, wanted.lock);
  while (!next.empty()) {
    const uint64_t owner = next.back();
    next.pop_back();
    if (owner == wanted.owner) return true;
    if (!seen.insert(owner).second) continue;
    for (const Waiting& waiting : waiting_) {
      const WantedLock& other = waiting.wanted;
      if (other.whole_file || other.owner != owner) continue;
      const auto further = locks_.owners_in_the_way(*other.handle, owner, other.lock);
      next.insert(next.end(), further.begin(), further.end());
    }
  }
  return false;
}

// Once without the lock: the file may have to be opened for it, which on some hosts takes its time. Then
// under the lock: one that is given back in between would not be seen.
Outcome<> LockWaits::take(WantedLock wanted, uint64_t unique, Reply& reply) {
  auto outcome = attempt(wanted);
  if (outcome || outcome.error() != EAGAIN) return outcome;
  const std::lock_guard lock(mutex_);
  outcome = attempt(wanted);
  if (outcome || outcome.error() != EAGAIN) return outcome;
  if (!wanted.whole_file && would_never_end(wanted)) return refuse(EDEADLK);
  if (waiting_.size() == kMaxWaiting || !answered_) return refuse(ENOLCK);
  waiting_.push_back({std::move(wanted), reply.detach(unique)});
  count_ = waiting_.size();
  return {};
}

void LockWaits::answer(Waiting& waiting, const Outcome<>& outcome) {
  answered_(waiting.reply.ticket, waiting.reply.finish(outcome));
}

bool LockWaits::poll() {
  if (count_ == 0) return false;
  std::list<Waiting> done;
  std::list<Outcome<>> outcomes;
  bool left = false;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = waiting_.begin(); at != waiting_.end();) {
      const auto one = at++;
      auto outcome = attempt(one->wanted);
      if (!outcome && outcome.error() == EAGAIN) {
        if (!one->reply.is_given_up()) continue;
        outcome = refuse(EINTR);
      }
      outcomes.push_back(outcome);
      done.splice(done.end(), waiting_, one);
    }
    count_ = waiting_.size();
    left = !waiting_.empty();
  }
  for (Waiting& waiting : done) {
    answer(waiting, outcomes.front());
    outcomes.pop_front();
  }
  return left;
}

void LockWaits::interrupt(uint64_t unique) {
  std::list<Waiting> done;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
      if (at->reply.unique != unique) continue;
      done.splice(done.end(), waiting_, at);
      break;
    }
    count_ = waiting_.size();
  }
  for (Waiting& waiting : done) answer(waiting, refuse(EINTR));
}

void LockWaits::end_all() {
  for (Waiting& waiting : waiting_) answer(waiting, refuse(EINTR));
  forget_all();
}

void LockWaits::forget_all() {
  waiting_.clear();
  count_ = 0;
}

}  // namespace snug
