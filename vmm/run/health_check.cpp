#include "vmm/run/health_check.h"

#include <fmt/format.h>

#include <csignal>

#include "vmm/base/log.h"

namespace snug {

const char* health_word(HealthState::Word word) {
  switch (word) {
    case HealthState::Word::kHealthy:
      return "healthy";
    case HealthState::Word::kUnhealthy:
      return "unhealthy";
    case HealthState::Word::kStarting:
      break;
  }
  return "starting";
}

Result<std::unique_ptr<HealthCheck>> HealthCheck::create(EventLoop& loop, HealthPlan plan, Connect connect,
                                                         std::function<bool()> runs) {
  std::unique_ptr<HealthCheck> check(
      new HealthCheck(loop, std::move(plan), std::move(connect), std::move(runs)));
  check->next_ = SNUG_TRY(loop.timer([check = check.get()] { check->check(); }));
  check->deadline_ = SNUG_TRY(loop.timer([check = check.get()] { check->on_deadline(); }));
  return check;
}

void HealthCheck::begin() {
  end();
  state_ = {};
  began_ = std::chrono::steady_clock::now();
  next_.arm(plan_.interval);
}

void HealthCheck::end() {
  next_.disarm();
  deadline_.disarm();
  round_.reset();
  forget_session();
}

void HealthCheck::check() {
  if (!runs_()) return next_.arm(plan_.interval);
  forget_session();
  output_.clear();
  late_ = false;
  round_ = std::make_shared<int>(0);
  deadline_.arm(plan_.timeout);
  connect_([this, round = std::weak_ptr<int>(round_)](UniqueFd stream, int error) {
    if (!round.expired()) start(std::move(stream), error);
  });
}

void HealthCheck::start(UniqueFd stream, int error) {
  if (error != 0) return finish(std::nullopt, "reach the guest's agent: " + errno_text(error));
  ExecSession::Events events;
  events.ended = [this](const ExecEnd& end) { on_end(end); };
  events.output = [this](uint8_t, std::string_view bytes) { take_output(bytes); };
  auto session = ExecSession::start(loop_, std::move(stream), plan_.command, {}, std::move(events));
  if (!session) return finish(std::nullopt, session.error().text());
  session_ = std::move(*session);
}

void HealthCheck::take_output(std::string_view bytes) {
  output_ += bytes.substr(bytes.size() - std::min(bytes.size(), kKept));
  if (output_.size() > kKept) output_.erase(0, output_.size() - kKept);
}

// Killed; if its end does not come before the next one, it is forgotten.
void HealthCheck::on_deadline() {
  late_ = true;
  round_.reset();
  if (session_) session_->signal(SIGKILL);
  conclude(std::nullopt, fmt::format("it has not ended within {} ms", plan_.timeout.count()));
}

void HealthCheck::on_end(const ExecEnd& end) {
  if (late_) return forget_session();
  if (end.kind == ExecEnd::Kind::kEnded) return finish(end.status.shell_status(), output_);
  finish(std::nullopt, end.error.text);
}

void HealthCheck::finish(std::optional<int> status, const std::string& why) {
  deadline_.disarm();
  round_.reset();
  forget_session();
  conclude(status, why);
}

void HealthCheck::conclude(std::optional<int> status, const std::string& why) {
  const auto before = state_.word;
  state_.last_status = status;
  state_.last_output = why;
  const bool counts = state_.word != HealthState::Word::kStarting ||
                      std::chrono::steady_clock::now() - began_ >= plan_.start_period;
  if (status == 0) {
    state_.word = HealthState::Word::kHealthy;
    state_.failures = 0;
  } else if (counts && ++state_.failures >= plan_.retries) {
    state_.word = HealthState::Word::kUnhealthy;
  }
  if (state_.word != before) log_info("the guest is {}: {}", health_word(state_.word), why);
  next_.arm(plan_.interval);
}

// The session is what calls us.
void HealthCheck::forget_session() {
  if (session_) loop_.post([session = std::shared_ptr<ExecSession>(std::move(session_))] {});
}

}  // namespace snug
