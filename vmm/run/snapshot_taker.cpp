#include "vmm/run/snapshot_taker.h"

#include <utility>

#include "vmm/base/log.h"
#include "vmm/base/sparse_file.h"

namespace snug {
namespace {

using Clock = std::chrono::steady_clock;

// Between two looks at requests that are under way, and how long they are waited for.
constexpr std::chrono::milliseconds kPause{1};
constexpr std::chrono::seconds kPatience{30};

// How often changed memory is written while the machine runs, and how little of it may wait until it does
// not.
constexpr int kRoundsMax = 4;
constexpr uint64_t kFewPages = 128;

// What a guest has written would be gone where another begins, and what it knows of files is not so of those
// of another share.
Result<void> check_untouched(const VirtioDevices& devices) {
  for (const DiskSource& disk : devices.written_disks())
    if (disk.device->written()) return fail("{}: the guest has written to it", disk.device->name());
  for (const VirtioFs* share : devices.shares())
    if (share->mounted()) return fail("{}: the guest has mounted it", share->name());
  return {};
}

}  // namespace

Result<std::unique_ptr<SnapshotTaker>> SnapshotTaker::create(EventLoop& loop, LoopThread& builder,
                                                             const UniqueFd& pagemap) {
  std::unique_ptr<SnapshotTaker> taker(new SnapshotTaker(loop, builder, pagemap));
  taker->again_ = SNUG_TRY(loop.timer([self = taker.get()] { self->attempt(); }));
  return taker;
}

Result<void> SnapshotTaker::check(Machine& machine) const {
  if (job_) return fail("another snapshot of this machine is under way, or it is being sent");
  const RunState state = machine.state();
  if (state != RunState::kRunning && state != RunState::kPaused)
    return fail("the machine is {}", run_state_name(state));
  // Before it stands still for nothing.
  if (const std::string why = machine.virtio().unsaveable(); !why.empty())
    return fail("{}: a machine with it cannot be saved", why);
  return {};
}

void SnapshotTaker::take(Machine& machine, SnapshotFiles files, Done done) {
  if (const auto can = check(machine); !can) return done(tl::unexpected(can.error()));
  const std::vector<DiskSource>& disks = machine.virtio().written_disks();
  if (!files.untouched && files.disks.size() != disks.size())
    return done(fail("the guest may write to {} disks, and there are files for copies of {}", disks.size(),
                     files.disks.size()));
  begin(machine, std::move(files), std::move(done));
  for (size_t i = 0; i < job_->files.disks.size(); ++i)
    job_->disks.emplace_back(disks[i], std::move(job_->files.disks[i]), cancelled_);
  // A guest of which a template is made waits for us. Noting what it writes meanwhile, for which each of its
  // pages faults once more, takes longer than writing them.
  if (machine.state() != RunState::kRunning || job_->files.untouched) return stand_still();
  write_while_it_runs();
}

void SnapshotTaker::begin(Machine& machine, SnapshotFiles files, Done done) {
  const int memory = files.memory.get();
  job_.reset(new Job{machine, std::move(files), std::move(done),
                     MemoryImageWriter(machine.memory(), pagemap_, memory)});
  cancelled_ = false;
  alive_ = std::make_shared<int>(0);
}

Result<void> SnapshotTaker::hand_over(Machine& machine, SnapshotFiles files, Handing handing, Done done) {
  SNUG_TRY(check(machine));
  if (machine.state() != RunState::kRunning)
    return fail("the machine is {}", run_state_name(machine.state()));
  begin(machine, std::move(files), std::move(done));
  job_->memory.has_its_size();
  job_->handing.emplace(std::move(handing));
  if (!job_->files.memory) {
    job_->handing->ahead();
    return {};
  }
  write_while_it_runs();
  return {};
}

void SnapshotTaker::go_on_handing() {
  if (job_ && job_->handing) stand_still();
}

void SnapshotTaker::give_up_handing(const std::string& why) {
  if (job_ && job_->handing) finish(fail("{}", why));
}

// The loop waits for whoever takes it over: nothing else is to happen here.
void SnapshotTaker::hand_over_now() {
  Handing& handing = *job_->handing;
  handing.tell(job_->held);
  if (auto written = write_at(handing.ends.get(), job_->held.finish(), 0); !written)
    return finish(tl::unexpected(std::move(written.error())));
  finish(tl::unexpected(handing.hand_over()));
}

// The job stays where it is until the builder is done with it: machine_goes() waits.
void SnapshotTaker::write_while_it_runs() {
  builder_.loop().post([this, job = job_.get(), alive = std::weak_ptr<int>(alive_)] {
    job->written = write_ahead();
    loop_.post([this, alive] {
      if (!alive.expired()) is_written_ahead();
    });
  });
}

void SnapshotTaker::is_written_ahead() {
  if (!job_->handing) return stand_still();
  if (!job_->written) return finish(tl::unexpected(std::move(job_->written.error())));
  job_->handing->ahead();
}

// Disks first: they take longer, and memory changes faster.
Result<void> SnapshotTaker::write_ahead() {
  for (DiskImageWriter& disk : job_->disks) SNUG_TRY(disk.write_ahead());
  if (!SNUG_TRY(log_dirty_pages())) return {};
  // What is left is written while it stands still: little, unless the guest is quicker than the file.
  for (int round = 0; round < kRoundsMax; ++round) {
    if (SNUG_TRY(take_dirty()) <= kFewPages) break;
    SNUG_TRY(job_->memory.write_pages(job_->dirty));
    job_->dirty.clear();
  }
  return {};
}

// And writes all memory. False: this host does not tell what changes.
Result<bool> SnapshotTaker::log_dirty_pages() {
  auto log = job_->machine.dirty_log();
  if (auto begun = log->begin(); !begun) {
    log_debug("all memory is written while the machine stands still: {}", begun.error().text());
    return false;
  }
  job_->dirty_log = std::move(log);
  SNUG_TRY(job_->memory.write_all());
  return true;
}

// How many pages are to be written again.
Result<uint64_t> SnapshotTaker::take_dirty() {
  job_->dirty.resize(dirty_words(job_->machine.memory().size()));
  SNUG_TRY(job_->dirty_log->take(job_->dirty));
  return dirty_pages(job_->dirty);
}

Result<void> SnapshotTaker::write_dirty() {
  return with_context(write_at(job_->sending->pages.get(), std::as_bytes(std::span(job_->dirty)), 0),
                      "the list of what has changed");
}

Result<void> SnapshotTaker::write_rest() {
  if (job_->files.untouched) SNUG_TRY(check_untouched(job_->machine.virtio()));
  for (DiskImageWriter& disk : job_->disks) SNUG_TRY(disk.write_rest());
  if (job_->handing) job_->machine.virtio().save_ends(job_->held);
  return job_->files.memory ? write_memory() : Result<void>{};
}

Result<void> SnapshotTaker::write_memory() {
  if (!job_->dirty_log) return job_->memory.write_all();
  // What a round has told of is known to whoever reads it.
  if (job_->sending) job_->dirty.clear();
  SNUG_TRY(take_dirty());
  SNUG_TRY(job_->memory.write_pages(job_->dirty));
  return job_->sending ? write_dirty() : Result<void>{};
}

void SnapshotTaker::stand_still() {
  if (!job_->written) return finish(tl::unexpected(std::move(job_->written.error())));
  job_->stands_since = Clock::now();
  job_->was_running = job_->machine.state() == RunState::kRunning;
  job_->machine.pause();
  attempt();
}

void SnapshotTaker::attempt() {
  if (!job_) return;
  if (job_->machine.state() != RunState::kPaused)
    return finish(fail("the machine was made to run on before it was saved"));
  auto written = write();
  if (!written) return finish(tl::unexpected(std::move(written.error())));
  if (*written && job_->sending) return tell_saved(**written);
  if (*written && job_->handing) return hand_over_now();
  if (*written) return finish(**written);
  if (Clock::now() - job_->stands_since > kPatience)
    return finish(fail("requests of the guest's devices have been under way for {} s", kPatience.count()));
  // What was put back is taken again only when all of them are done.
  again_.arm(kPause);
}

// Nothing: requests are under way.
Result<std::optional<SnapshotTaken>> SnapshotTaker::write() {
  Result<std::optional<SnapshotTaken>> outcome;
  builder_.call([&] {
    const auto save = [&]() -> Result<std::optional<SnapshotTaken>> {
      const auto state = SNUG_TRY(job_->machine.save([this] { return write_rest(); }));
      if (!state) return std::optional<SnapshotTaken>();
      SNUG_TRY(with_context(write_at(job_->files.state.get(), *state, 0), "the state of the machine"));
      SnapshotTaken taken{.state_bytes = state->size()};
      for (const DiskImageWriter& disk : job_->disks) taken.disk_bytes += disk.bytes_written();
      return std::optional(taken);
    };
    outcome = save();
  });
  return outcome;
}

void SnapshotTaker::finish(Result<SnapshotTaken> taken) {
  const auto job = std::exchange(job_, nullptr);
  alive_.reset();
  again_.disarm();
  const bool stood = job->stands_since != Clock::time_point();
  if (stood) job->machine.wake();
  if (stood && job->was_running) job->machine.resume();
  if (taken && job->was_running)
    taken->paused_seconds = std::chrono::duration<double>(Clock::now() - job->stands_since).count();
  forget_dirty_log(*job);
  end(*job, std::move(taken));
}

// The builder's to end, for which KVM takes a while: the guest and the loop go on meanwhile.
void SnapshotTaker::forget_dirty_log(Job& job) {
  if (!job.dirty_log) return;
  log_ends_ = true;
  builder_.loop().post([log = std::shared_ptr<DirtyLog>(std::move(job.dirty_log))] { log->end(); });
}

void SnapshotTaker::machine_goes() {
  if (std::exchange(log_ends_, false)) builder_.call([] {});
  if (!job_) return;
  alive_.reset();
  again_.disarm();
  cancelled_ = true;
  // Behind what the builder may still write of its memory, for which it looks at the job.
  builder_.call([this] { job_->dirty_log.reset(); });
  const auto job = std::exchange(job_, nullptr);
  end(*job, fail("the machine has ended meanwhile"));
}

}  // namespace snug
