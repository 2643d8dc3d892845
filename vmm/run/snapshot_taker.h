// Snapshots of a machine that runs or is paused. While it runs its disks are copied, where blocks cannot be
// shared, and its memory is written, and once more what has changed meanwhile; then it stands still, requests
// that are under way end, its state and what has changed are written, and it goes on as it was.
//
// Thread: the loop's. Writing is the builder's; while the machine stands still the loop waits for it: nothing
// may reach guest memory.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/control/control_api.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/loop_thread.h"
#include "vmm/core/memory_image.h"
#include "vmm/machine/machine.h"

namespace snug {

class SnapshotTaker {
 public:
  using Done = std::function<void(Result<SnapshotTaken>)>;

  // All of it is the caller's.
  static Result<std::unique_ptr<SnapshotTaker>> create(EventLoop& loop, LoopThread& builder,
                                                       const UniqueFd& pagemap);
  ~SnapshotTaker() { machine_goes(); }

  // One at a time. `machine`: running or paused, until `done` or machine_goes().
  void take(Machine& machine, SnapshotFiles files, Done done);
  // The machine ends or boots anew: a snapshot that is under way fails.
  void machine_goes();

 private:
  struct Job {
    Machine& machine;
    SnapshotFiles files;
    Done done;
    MemoryImageWriter memory;
    std::vector<DiskImageWriter> disks = {};
    bool was_running = false;
    std::unique_ptr<DirtyLog> dirty_log = {};  // of what was written while it ran; none: nothing was
    std::vector<uint64_t> dirty = {};          // pages that are to be written again
    Result<void> written = {};                 // what was written while it ran
    std::chrono::steady_clock::time_point stands_since;
  };

  SnapshotTaker(EventLoop& loop, LoopThread& builder, const UniqueFd& pagemap)
      : loop_(loop), builder_(builder), pagemap_(pagemap) {}
  void write_while_it_runs();
  Result<void> write_ahead();
  Result<uint64_t> take_dirty();
  Result<void> write_rest();
  void stand_still();
  void attempt();
  Result<std::optional<SnapshotTaken>> write();
  void forget_dirty_log(Job& job);
  void finish(Result<SnapshotTaken> taken);

  EventLoop& loop_;
  LoopThread& builder_;
  const UniqueFd& pagemap_;
  EventLoop::Timer again_;
  std::atomic<bool> cancelled_ = false;  // nobody wants what the builder copies
  bool log_ends_ = false;                // of a machine that may still be there
  std::unique_ptr<Job> job_;
  // Posts that arrive after their job is over find it expired.
  std::shared_ptr<int> alive_;
};

}  // namespace snug
