// Snapshots of a machine that runs or is paused. While it runs its disks are copied, where blocks cannot be
// shared, and its memory is written, and once more what has changed meanwhile; then it stands still, requests
// that are under way end, its state and what has changed are written, and it goes on as it was.
//
// Of one that is sent to another place memory is written again and again, and it stands still when whoever
// sends it says so (send_talk.h): nobody else knows how quickly it gets there. It stays paused until it is
// known what becomes of it, and goes on as it was when nobody is there any more.
//
// One that another process of this host takes over (live_update.h) is written as far as it can be while it
// runs, unless that has its RAM already; it goes on here if nobody has taken it over.
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
#include "vmm/run/send_talk.h"

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
  // As take(), and all else is said over `ends`. `commands`: JSON of what it is started for, as it stands
  // when it stands still. Errors: it cannot begin.
  Result<void> send(Machine& machine, SnapshotFiles files, SendingEnds ends,
                    std::function<std::string()> commands, Done done);
  // For another process, which has the same RAM and disks open, or is to.
  struct Handing {
    UniqueFd ends;                // a file for what the host's ends hold (VirtioDevices::save_ends())
    std::function<void()> ahead;  // it is written as far as it can be: go_on_handing() or give_up() follows
    // It stands still; the rest of what there is to tell.
    std::function<void(StateWriter& ends)> tell;
    // All is written. Returns only when it is to go on here: why.
    std::function<Error()> hand_over;
  };
  // `files`: without memory where that process has its RAM. Errors: it cannot begin. `done` is told of
  // failure alone.
  Result<void> hand_over(Machine& machine, SnapshotFiles files, Handing handing, Done done);
  void go_on_handing();
  void give_up_handing(const std::string& why);
  // Somebody has made it run on: if it stood still to be sent, it is not sent.
  void machine_runs_on();
  // The machine ends or boots anew: a snapshot that is under way fails.
  void machine_goes();

 private:
  struct Sending {
    UniqueFd pages;
    std::unique_ptr<SendTalk> talk;
    std::function<std::string()> commands;
    bool busy = false;   // the builder writes a round
    bool gone = false;   // nobody is there any more
    bool saved = false;  // it stands still, and all of it is written
  };
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
    std::optional<Sending> sending = {};
    std::optional<Handing> handing = {};
    StateWriter held = {};  // by the host's ends, to be handed
  };

  SnapshotTaker(EventLoop& loop, LoopThread& builder, const UniqueFd& pagemap)
      : loop_(loop), builder_(builder), pagemap_(pagemap) {}
  Result<void> check(Machine& machine) const;
  void begin(Machine& machine, SnapshotFiles files, Done done);
  Result<void> write_memory();
  void hand_over_now();
  void write_while_it_runs();
  void is_written_ahead();
  Result<void> write_ahead();
  Result<bool> log_dirty_pages();
  Result<uint64_t> take_dirty();
  Result<void> write_dirty();
  Result<void> write_rest();
  void stand_still();
  void attempt();
  Result<std::optional<SnapshotTaken>> write();
  void forget_dirty_log(Job& job);
  void finish(Result<SnapshotTaken> taken);
  static void end(Job& job, Result<SnapshotTaken> taken);

  // Of one that is sent (snapshot_sending.cpp)
  void on_word(SendWord word);
  void on_gone();
  void begin_round();
  Result<std::string> write_round();
  void tell_saved(const SnapshotTaken& taken);
  void stay();
  void say(const std::string& json);

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
