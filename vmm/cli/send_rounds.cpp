#include "vmm/cli/send_rounds.h"

#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"

namespace snug::cli {
namespace {

// A guest that changes memory more quickly than it goes would be sent for ever.
constexpr int kRoundsMax = 12;
// No round is worth its while for less.
constexpr uint64_t kFewPages = 128;
constexpr double kPage = 4096;

}  // namespace

void SendRounds::count(Clock::time_point since, uint64_t bytes_before) {
  const double seconds = std::chrono::duration<double>(Clock::now() - since).count();
  const auto bytes = static_cast<double>(stream_.bytes() - bytes_before);
  put(stderr, "snug: {}: round {}: {} in {:.2f} s\n", name_, rounds_, size_text(bytes), seconds);
  bytes_ += stream_.bytes() - bytes_before;
  seconds_ += seconds;
}

double SendRounds::seconds_for(uint64_t pages) const {
  return bytes_ == 0 ? 0 : static_cast<double>(pages) * kPage * seconds_ / static_cast<double>(bytes_);
}

// As long as each leaves less than half of what the one before it left, another one takes little and makes
// the time short in which the machine stands still.
Result<void> SendRounds::run() {
  for (uint64_t before = UINT64_MAX;;) {
    const auto since = Clock::now();
    const uint64_t bytes = stream_.bytes();
    const auto round = SNUG_TRY(machine_.round());
    // All of it goes while it stands still.
    if (!round.tells) return rounds_are_over(round.pages);
    ++rounds_;
    if (!memory_has_gone_) {
      SNUG_TRY(stream_.file("memory", machine_.memory()));
      memory_has_gone_ = true;
      count(since, bytes);
      continue;
    }
    SNUG_TRY(machine_.add_pages(left_));
    const bool fits = seconds_for(round.pages) <= std::chrono::duration<double>(downtime_.limit).count();
    const bool shrinks = round.pages > kFewPages && round.pages < before / 2;
    if (fits && !shrinks) return {};
    if (rounds_ >= kRoundsMax) return fits ? Result<void>{} : rounds_are_over(round.pages);
    SNUG_TRY(stream_.pages(machine_.memory(), left_));
    left_.clear();
    before = round.pages;
    count(since, bytes);
  }
}

Result<void> SendRounds::rounds_are_over(uint64_t pages) const {
  const std::string why =
      rounds_ == 0 ? "this host's KVM does not tell what a guest writes to"
                   : fmt::format(
                         "it changes memory more quickly than that goes: after {} rounds {} are left, which "
                         "take {:.1f} s",
                         rounds_, size_text(static_cast<double>(pages) * kPage), seconds_for(pages));
  if (downtime_.must)
    return fail_with_hint(why,
                          fmt::format("give it longer than {} ms to stand still, or leave --downtime out",
                                      downtime_.limit.count()));
  put(stderr, "snug: {}: {}; it stands still for as long as they take\n", name_, why);
  return {};
}

Result<std::string> SendRounds::finish() {
  const auto last = SNUG_TRY(machine_.stand_still());
  if (memory_has_gone_) {
    SNUG_TRY(machine_.add_pages(left_));
    SNUG_TRY(stream_.pages(machine_.memory(), left_));
  } else {
    SNUG_TRY(stream_.file("memory", machine_.memory()));
  }
  SNUG_TRY(stream_.file("state", machine_.state()));
  return last.commands;
}

}  // namespace snug::cli
