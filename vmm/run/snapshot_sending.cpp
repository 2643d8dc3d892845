// A machine that is sent to another place.
#include <nlohmann/json.hpp>
#include <utility>

#include "vmm/run/snapshot_taker.h"

namespace snug {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Texts may not be UTF-8: JSON must be.
std::string text_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

Result<void> SnapshotTaker::send(Machine& machine, SnapshotFiles files, SendingEnds ends,
                                 std::function<std::string()> commands, Done done) {
  SNUG_TRY(check(machine));
  if (!machine.virtio().written_disks().empty())
    return fail("the guest may write to {} disks, which do not go with it",
                machine.virtio().written_disks().size());
  auto talk = SNUG_TRY(
      SendTalk::create(loop_, std::move(ends.talk),
                       {.word = [this](SendWord word) { on_word(word); }, .gone = [this] { on_gone(); }}));
  begin(machine, std::move(files), std::move(done));
  job_->sending.emplace(Sending{std::move(ends.pages), std::move(talk), std::move(commands)});
  return {};
}

void SnapshotTaker::say(const std::string& json) {
  // As good as gone: it would wait for this.
  if (!job_->sending->talk->say(json)) on_gone();
}

void SnapshotTaker::on_word(SendWord word) {
  Sending& sending = *job_->sending;
  const bool stands = job_->stands_since != Clock::time_point();
  // Not the time for that: whoever it is, he does not know what he does.
  if (sending.busy || (stands && !sending.saved) || (stands != (word == SendWord::kStay))) return on_gone();
  switch (word) {
    case SendWord::kRound:
      return begin_round();
    case SendWord::kStandStill:
      return stand_still();
    case SendWord::kStay:
      return stay();
  }
}

void SnapshotTaker::on_gone() {
  job_->sending->gone = true;
  // The builder looks at the job.
  if (!job_->sending->busy) finish(fail("whoever sent it is not there any more"));
}

void SnapshotTaker::machine_runs_on() {
  if (job_ && job_->sending && job_->sending->saved) finish(fail("the machine was made to run on"));
}

// --- rounds -------------------------------------------------------------------------------------------

void SnapshotTaker::begin_round() {
  job_->sending->busy = true;
  builder_.loop().post([this, alive = std::weak_ptr<int>(alive_)] {
    auto round = write_round();
    loop_.post([this, alive, round = std::move(round)] {
      if (alive.expired()) return;
      job_->sending->busy = false;
      if (!round) return finish(tl::unexpected(round.error()));
      if (job_->sending->gone) return on_gone();
      say(*round);
    });
  });
}

// What is said of it. The builder's.
Result<std::string> SnapshotTaker::write_round() {
  if (!job_->dirty_log) {
    const bool tells = SNUG_TRY(log_dirty_pages());
    return text_of({{"pages", tells ? job_->machine.memory().size() / 4096 : 0}, {"tells", tells}});
  }
  job_->dirty.clear();
  const uint64_t pages = SNUG_TRY(take_dirty());
  SNUG_TRY(job_->memory.write_pages(job_->dirty));
  // For whoever reads which they are.
  SNUG_TRY(write_dirty());
  return text_of({{"pages", pages}, {"tells", true}});
}

// --- the end ------------------------------------------------------------------------------------------

void SnapshotTaker::tell_saved(const SnapshotTaken& taken) {
  job_->sending->saved = true;
  json said{{"pages", dirty_pages(job_->dirty)},
            {"tells", job_->dirty_log != nullptr},
            {"state_bytes", taken.state_bytes}};
  if (const std::string commands = job_->sending->commands(); !commands.empty())
    said["commands"] = json::parse(commands, nullptr, false);
  say(text_of(said));
}

// Whoever sends it sees to it from now on.
void SnapshotTaker::stay() {
  job_->was_running = false;
  (void)job_->sending->talk->say(text_of({{"stays", true}}));
  finish(SnapshotTaken{});
}

void SnapshotTaker::end(Job& job, Result<SnapshotTaken> taken) {
  if (job.sending && !job.sending->gone && !taken)
    (void)job.sending->talk->say(text_of({{"error", taken.error().text()}}));
  job.done(std::move(taken));
}

}  // namespace snug
