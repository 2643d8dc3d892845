// Whether what a machine is for is well: a command in the guest that is run again and again, by its agent.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "vmm/agent/exec_session.h"
#include "vmm/core/event_loop.h"
#include "vmm/protocol/messages.h"

namespace snug {

// As an image has it (docker's HEALTHCHECK).
struct HealthPlan {
  protocol::ExecRequest command;
  std::chrono::milliseconds interval = std::chrono::seconds(30);  // from one's end to the next
  std::chrono::milliseconds timeout = std::chrono::seconds(30);   // of one
  // So long after the start failures do not count, until the first success.
  std::chrono::milliseconds start_period{0};
  uint32_t retries = 3;  // so many failures in a row make it unhealthy
};

struct HealthState {
  enum class Word { kStarting, kHealthy, kUnhealthy };
  Word word = Word::kStarting;
  uint32_t failures = 0;           // in a row, that count
  std::optional<int> last_status;  // as a shell shows it; nothing: none has ended, or it had no status
  std::string last_output;         // of both streams, its end; or why it had no status
};
const char* health_word(HealthState::Word word);

class HealthCheck {
 public:
  static constexpr size_t kKept = 4096;  // bytes of the output

  // A stream to the agent's port of the guest, or an errno. Later, on the loop.
  using Connected = std::function<void(UniqueFd stream, int error)>;
  using Connect = std::function<void(Connected connected)>;
  // `runs`: whether the guest runs now: one that is paused is not asked. Errors: the loop's.
  static Result<std::unique_ptr<HealthCheck>> create(EventLoop& loop, HealthPlan plan, Connect connect,
                                                     std::function<bool()> runs);

  // The guest is ready for commands; again after each boot.
  void begin();
  // The guest is gone.
  void end();
  const HealthState& state() const { return state_; }

 private:
  HealthCheck(EventLoop& loop, HealthPlan plan, Connect connect, std::function<bool()> runs)
      : loop_(loop), plan_(std::move(plan)), connect_(std::move(connect)), runs_(std::move(runs)) {}
  void check();
  void start(UniqueFd stream, int error);
  void take_output(std::string_view bytes);
  void on_end(const ExecEnd& end);
  void on_deadline();
  void finish(std::optional<int> status, const std::string& why);
  void conclude(std::optional<int> status, const std::string& why);
  void forget_session();

  EventLoop& loop_;
  const HealthPlan plan_;
  const Connect connect_;
  const std::function<bool()> runs_;
  HealthState state_;
  std::chrono::steady_clock::time_point began_;
  std::string output_;  // of the one that runs
  bool late_ = false;   // it has been given up
  std::unique_ptr<ExecSession> session_;
  std::shared_ptr<int> round_;  // gone: what comes back is of another one
  EventLoop::Timer next_;
  EventLoop::Timer deadline_;
};

}  // namespace snug
