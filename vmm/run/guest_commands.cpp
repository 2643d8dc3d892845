#include "vmm/run/guest_commands.h"

#include <utility>

#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr std::chrono::milliseconds kKeepAfter{100};
constexpr std::chrono::milliseconds kTakeUpPause{20};
constexpr std::chrono::seconds kTakeUpPatience{10};

}  // namespace

void KeptOutput::add(std::string_view bytes, size_t most) {
  text += bytes;
  // Now and then, not for every byte.
  if (text.size() <= 2 * most) return;
  left_out += text.size() - most;
  text.erase(0, text.size() - most);
}

GuestCommands::GuestCommands(EventLoop& loop, const CommandPlan& plan, const CommandStreams& streams,
                             Connect connect, Ended ended, Printed printed)
    : loop_(loop),
      plan_(plan),
      streams_(streams),
      connect_(std::move(connect)),
      ended_(std::move(ended)),
      printed_(std::move(printed)) {}

void GuestCommands::agent_ready() {
  if (ready_ || over_) return;
  ready_ = true;
  if (plan_.goes_on) {
    began_ = std::chrono::steady_clock::now();
    return take_up();
  }
  if (!std::exchange(ahead_, false)) next();
}

// It waits as soon as it has seen that its connection of before is gone.
void GuestCommands::take_up() {
  connect_(protocol::kKeptPort, [this, alive = std::weak_ptr<int>(alive_)](UniqueFd stream, int error) {
    if (alive.expired() || over_) return;
    if (error == 0 || std::chrono::steady_clock::now() - began_ > kTakeUpPatience)
      return start(std::move(stream), error);
    auto again = loop_.timer([this] { take_up(); });
    if (!again) return start(std::move(stream), error);
    take_up_ = std::move(*again);
    take_up_.arm(kTakeUpPause);
  });
}

GuestCommands::Progress GuestCommands::progress() const {
  Progress now{results_.size(), (session_ && session_->started()) || (plan_.goes_on && results_.empty()),
               plan_.status_before};
  for (const CommandResult& result : results_)
    if (now.status == 0) now.status = result.status;
  return now;
}

void GuestCommands::keep() {
  keep_.disarm();
  if (session_) session_->keep();
}

// A short one is not worth the words.
void GuestCommands::begun() {
  if (auto timer = loop_.timer([this] { keep(); })) {
    keep_ = std::move(*timer);
    keep_.arm(kKeepAfter);
  }
  if (started_) started_();
}

bool GuestCommands::start_with(UniqueFd stream, ExecBefore before) {
  if (ready_ || over_ || plan_.goes_on) return false;
  began_ = std::chrono::steady_clock::now();
  before.done = [this, done = std::move(before.done)](const Result<void>& result) {
    // The session is what calls us.
    if (!result) forget();
    done(result);
  };
  // Why not is said when it is asked for alone.
  ahead_ = start_session(std::move(stream), std::move(before)).has_value();
  return ahead_;
}

void GuestCommands::forget() {
  if (!std::exchange(ahead_, false)) return;
  session_->suspend_terminal();
  loop_.post([session = std::shared_ptr<CommandSession>(std::move(session_))] {});
}

void GuestCommands::next() {
  began_ = std::chrono::steady_clock::now();
  connect_(protocol::kAgentPort, [this, alive = std::weak_ptr<int>(alive_)](UniqueFd stream, int error) {
    if (!alive.expired() && !over_) start(std::move(stream), error);
  });
}

void GuestCommands::start(UniqueFd stream, int error) {
  ExecEnd failure;
  if (error != 0) {
    failure.error.text =
        plan_.goes_on && results_.empty()
            ? fmt::format("the command that ran in the guest is not there any more: {}", errno_text(error))
            : fmt::format("reach the guest's agent: {}", errno_text(error));
    return on_end(std::move(failure));
  }
  if (auto started = start_session(std::move(stream), {}); !started) {
    failure.error.text = started.error().text();
    on_end(std::move(failure));
  }
}

Result<void> GuestCommands::start_session(UniqueFd stream, ExecBefore before) {
  protocol::ExecRequest request;
  request.arguments = plan_.commands[results_.size()].words;
  request.variables = plan_.variables;
  request.folder = plan_.folder;
  request.user = plan_.user;
  CommandSession::Options options;
  options.streams = &streams_;
  options.interactive = plan_.interactive;
  options.tty = plan_.tty;
  options.prints_here = !printed_;
  options.takes_up = plan_.goes_on && results_.empty();
  options.started = [this] { begun(); };
  if (printed_ || plan_.keep_output)
    options.printed = [this](uint8_t channel, std::string_view bytes) { take_output(channel, bytes); };
  session_ = SNUG_TRY(CommandSession::start(
      loop_, std::move(stream), std::move(request), std::move(options),
      [this](ExecEnd end) { on_end(std::move(end)); }, std::move(before)));
  return {};
}

void GuestCommands::take_output(uint8_t channel, std::string_view bytes) {
  if (printed_) printed_(bytes);
  if (!plan_.keep_output) return;
  KeptOutput& kept = channel == protocol::kErrors ? errors_ : output_;
  kept.add(bytes, kept_ < kKeptOfAll ? kKept : kKeptAtLeast);
}

void GuestCommands::on_end(ExecEnd end) {
  CommandResult result;
  result.title = plan_.commands[results_.size()].title;
  result.status = end.shell_status();
  result.message = end.stream_error;
  if (end.kind != ExecEnd::Kind::kEnded) result.message = gone_.empty() ? end.error.text : gone_;
  result.duration = std::chrono::steady_clock::now() - began_;
  kept_ += output_.text.size() + errors_.text.size();
  result.output = std::exchange(output_, {});
  result.errors = std::exchange(errors_, {});
  results_.push_back(std::move(result));
  keep_.disarm();
  // The session is what calls us.
  loop_.post([alive = std::weak_ptr<int>(alive_),
              session = std::shared_ptr<CommandSession>(std::move(session_))] {});
  const bool lost = end.kind == ExecEnd::Kind::kLost;
  if (lost || results_.size() == plan_.commands.size()) return finish();
  if (!results_.back().message.empty()) log_error("{}", results_.back().message);
  next();
}

// The first that failed gives the status.
void GuestCommands::finish() {
  if (over_) return;
  over_ = true;
  int status = plan_.status_before;
  for (const CommandResult& result : results_)
    if (status == 0) status = result.status;
  // Those that were never started have no status, and none is not success.
  if (status == 0 && results_.size() < plan_.commands.size())
    status = static_cast<int>(protocol::ErrorCode::kFailed);
  loop_.post([this, alive = std::weak_ptr<int>(alive_), status] {
    if (!alive.expired()) ended_(status, results_.empty() ? gone_ : results_.back().message);
  });
}

void GuestCommands::guest_gone(const std::string& why) {
  if (over_ || !gone_.empty()) return;
  gone_ = why;
  // One that runs notices by itself that its connection ends, and has first what that still holds.
  if (!session_) finish();
}

bool GuestCommands::signal(int number) {
  if (!session_ || !session_->started()) return false;
  session_->signal(number);
  return true;
}

void GuestCommands::window_changed() {
  if (session_) session_->window_changed();
}

void GuestCommands::suspend_terminal() {
  if (session_) session_->suspend_terminal();
}

void GuestCommands::resume_terminal() {
  if (session_) session_->resume_terminal();
}

}  // namespace snug
