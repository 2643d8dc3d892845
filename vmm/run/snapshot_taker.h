// Snapshots of a machine that runs or is paused: it stands still, requests that are under way end, then its
// state and memory are written, and it goes on as it was.
//
// Thread: the loop's. Its writing is the builder's, and the loop waits: nothing may reach guest memory
// meanwhile.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "vmm/base/unique_fd.h"
#include "vmm/control/control_api.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/loop_thread.h"
#include "vmm/machine/machine.h"

namespace snug {

class SnapshotTaker {
 public:
  using Done = std::function<void(Result<SnapshotTaken>)>;

  // `pagemap`: see write_memory_image(). All of it is the caller's.
  static Result<std::unique_ptr<SnapshotTaker>> create(EventLoop& loop, LoopThread& builder, int pagemap);

  // One at a time. `machine`: running or paused, until `done` or machine_goes().
  void take(Machine& machine, SnapshotFiles files, Done done);
  // The machine ends or boots anew: a snapshot that is under way fails.
  void machine_goes();

 private:
  struct Job {
    Machine& machine;
    SnapshotFiles files;
    Done done;
    bool was_running;
    std::chrono::steady_clock::time_point began;
  };

  SnapshotTaker(LoopThread& builder, int pagemap) : builder_(builder), pagemap_(pagemap) {}
  void attempt();
  Result<std::optional<SnapshotTaken>> write();
  void finish(Result<SnapshotTaken> taken);

  LoopThread& builder_;
  const int pagemap_;
  EventLoop::Timer again_;
  std::optional<Job> job_;
};

}  // namespace snug
