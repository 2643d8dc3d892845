#include "vmm/run/snapshot_taker.h"

#include <sys/uio.h>

#include <cerrno>
#include <utility>

namespace snug {
namespace {

using Clock = std::chrono::steady_clock;

// Between two looks at requests that are under way, and how long they are waited for.
constexpr std::chrono::milliseconds kPause{1};
constexpr std::chrono::seconds kPatience{30};

Result<void> write_state(int file, std::span<const std::byte> state) {
  for (size_t at = 0; at < state.size();) {
    const iovec part{const_cast<std::byte*>(state.data() + at), state.size() - at};
    const ssize_t count = ::pwritev2(file, &part, 1, static_cast<off_t>(at), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write the state of the machine");
    at += static_cast<size_t>(count);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<SnapshotTaker>> SnapshotTaker::create(EventLoop& loop, LoopThread& builder,
                                                             const OwnPages& pages) {
  std::unique_ptr<SnapshotTaker> taker(new SnapshotTaker(loop, builder, pages));
  taker->again_ = SNUG_TRY(loop.timer([self = taker.get()] { self->attempt(); }));
  return taker;
}

void SnapshotTaker::take(Machine& machine, SnapshotFiles files, Done done) {
  if (job_) return done(fail("another snapshot of this machine is under way"));
  const RunState state = machine.state();
  if (state != RunState::kRunning && state != RunState::kPaused)
    return done(fail("the machine is {}", run_state_name(state)));
  // Before it stands still for nothing.
  if (const std::string why = machine.virtio().unsaveable(); !why.empty())
    return done(fail("{}: a machine with it cannot be saved", why));
  const int memory = files.memory.get();
  job_.reset(new Job{machine, std::move(files), std::move(done),
                     MemoryImageWriter(machine.memory(), pages_, memory)});
  job_->was_running = state == RunState::kRunning;
  alive_ = std::make_shared<int>(0);
  if (!job_->was_running || machine.pins_memory()) return stand_still();
  write_while_it_runs();
}

// The job stays where it is until the builder is done with it: machine_goes() waits.
void SnapshotTaker::write_while_it_runs() {
  builder_.loop().post([this, job = job_.get(), alive = std::weak_ptr<int>(alive_)] {
    if (job->memory.begin_noting()) {
      job->noted = true;
      job->memory_written = job->memory.write_all();
    }
    loop_.post([this, alive] {
      if (!alive.expired()) stand_still();
    });
  });
}

void SnapshotTaker::stand_still() {
  if (!job_->memory_written) return finish(tl::unexpected(std::move(job_->memory_written.error())));
  job_->stands_since = Clock::now();
  job_->machine.pause();
  attempt();
}

void SnapshotTaker::attempt() {
  if (!job_) return;
  if (job_->machine.state() != RunState::kPaused)
    return finish(fail("the machine was made to run on before it was saved"));
  auto written = write();
  if (!written) return finish(tl::unexpected(std::move(written.error())));
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
    const auto write_memory = [this] {
      return job_->noted ? job_->memory.write_changed() : job_->memory.write_all();
    };
    const auto save = [&]() -> Result<std::optional<SnapshotTaken>> {
      const auto state = SNUG_TRY(job_->machine.save(write_memory));
      if (!state) return std::optional<SnapshotTaken>();
      SNUG_TRY(write_state(job_->files.state.get(), *state));
      return std::optional(SnapshotTaken{.state_bytes = state->size(), .paused_seconds = 0});
    };
    outcome = save();
  });
  return outcome;
}

void SnapshotTaker::finish(Result<SnapshotTaken> taken) {
  const auto job = std::exchange(job_, nullptr);
  alive_.reset();
  const bool stood = job->stands_since != Clock::time_point();
  if (stood) job->machine.wake();
  if (stood && job->was_running) job->machine.resume();
  if (taken && job->was_running)
    taken->paused_seconds = std::chrono::duration<double>(Clock::now() - job->stands_since).count();
  job->done(std::move(taken));
}

void SnapshotTaker::machine_goes() {
  if (!job_) return;
  alive_.reset();
  // Behind what the builder may still write of its memory.
  builder_.call([] {});
  const auto job = std::exchange(job_, nullptr);
  job->done(fail("the machine has ended meanwhile"));
}

}  // namespace snug
