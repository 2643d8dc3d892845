// The part of a machine's life that is about being taken over by another process: of a newer version of the
// program, say (live_update.h).
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/run/life_cycle.h"
#include "vmm/run/saved_commands.h"
#include "vmm/spec/limits.h"

namespace snug {

using warden::UpdateFile;

// What the next process would not have.
Result<void> LifeCycle::can_be_updated() const {
  if (!machine_) return fail("{} is between two boots", spec_.name);
  if (ending_signal_ != 0 || ending_) return fail("{} is about to end", spec_.name);
  if (!spec_.shares.empty() || !spec_.root.empty())
    return fail("{} has shares, whose server cannot be handed over yet", spec_.name);
  if (!spec_.consoles.empty() || !spec_.channels.empty())
    return fail("{} has consoles or channels of its own, which cannot be handed over yet", spec_.name);
  if (spec_.console.kind == ConsoleKind::kPty)
    return fail("the console of {} is a pty, which cannot be handed over", spec_.name);
  if (::isatty(STDIN_FILENO) != 0 || ::isatty(STDOUT_FILENO) != 0)
    return fail_with_hint(spec_.name + " runs in the foreground of a terminal, which it would lose",
                          "machines in the background (snug run -d) and services can be updated");
  if (commands_ && ends_.command_streams.output)
    return fail("{} runs a command in the foreground, whose streams cannot be handed over", spec_.name);
  if (memory_max(spec_) && machine_->memory().file() < 0)
    return fail("limits.memory of {} leaves no room for the copy of its memory that the first update needs",
                spec_.name);
  return {};
}

void LifeCycle::update(Updated failed) {
  if (auto can = can_be_updated(); !can) return failed(std::move(can.error()));
  const bool ram_is_given = machine_->memory().file() >= 0;
  if (auto begun = environment_.warden.begin_update(ram_is_given); !begun)
    return failed(std::move(begun.error()));
  // Before it stands still.
  if (commands_) commands_->keep();
  updated_ = std::move(failed);
  if (auto begun = begin_handing(ram_is_given); !begun) end_update(std::move(begun.error()));
}

Result<void> LifeCycle::begin_handing(bool ram_is_given) {
  WardenLink& warden = environment_.warden;
  SnapshotFiles files;
  SnapshotTaker::Handing handing;
  files.state = SNUG_TRY(warden.update_file(UpdateFile::kState));
  if (!ram_is_given) files.memory = SNUG_TRY(warden.update_file(UpdateFile::kMemory));
  handing.ends = SNUG_TRY(warden.update_file(UpdateFile::kEnds));
  handing.ahead = [this] { environment_.warden.launch_update(); };
  handing.tell = [this](StateWriter& ends) { tell_of_life(ends); };
  handing.hand_over = [this] { return environment_.warden.hand_over(); };
  return snapshots_->hand_over(*machine_, std::move(files), std::move(handing),
                               [this](const Result<SnapshotTaken>& taken) {
                                 end_update(taken ? Error{"?", {}} : taken.error());
                               });
}

void LifeCycle::tell_of_life(StateWriter& ends) const {
  FormerLife life = environment_.former;
  life.boots = report_.boots;
  life.began = began_;
  life.stands_since = FormerLife::now();
  life.created_at = environment_.created_at;
  if (commands_)
    life.commands = saved_commands(*environment_.commands, commands_->progress());
  else if (environment_.health != nullptr)
    life.commands = saved_health(*environment_.health);
  life.save(ends);
}

// The boot that is under way goes on, and so does the time that it has.
void LifeCycle::takes_over() {
  began_ = environment_.former.began;
  report_.boots = saved_boot_ = environment_.former.boots - 1;
}

TimeLimit LifeCycle::time_left() const {
  using std::chrono::milliseconds;
  if (environment_.former.boots == 0 || !spec_.timeout) return spec_.timeout;
  const milliseconds over(static_cast<int64_t>((FormerLife::now() - began_) / 1'000'000));
  return std::max(*spec_.timeout - over, milliseconds(1));
}

void LifeCycle::on_update_ready() { snapshots_->go_on_handing(); }
void LifeCycle::on_update_failed(const std::string& why) { snapshots_->give_up_handing(why); }

// It goes on here.
void LifeCycle::end_update(Error why) {
  environment_.warden.end_update();
  const Updated failed = std::exchange(updated_, nullptr);
  if (failed) failed(std::move(why));
}

}  // namespace snug
