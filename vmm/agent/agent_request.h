// A request that the agent answers with "done", or several: set the clock, power off, mount, ping. Over a
// connection of its own.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/protocol/messages.h"

namespace snug {

class AgentRequest {
 public:
  // Errors: the agent's refusal; a connection that ends, or says what it should not. Once; the request may be
  // destroyed then.
  using Done = std::function<void(Result<void>)>;

  struct Wanted {
    uint16_t version = protocol::kOldestVersion;  // of the protocol, the first that has this request
    size_t answers = 1;                           // as many as there are requests in `frame`
    bool end_is_answer = false;                   // the guest may be gone before its answer is through
  };

  // `frame`: as put_set_time(), put_power() and the like make it, or several, one behind the other.
  // `connection`: a stream to the agent.
  static Result<std::unique_ptr<AgentRequest>> start(EventLoop& loop, UniqueFd connection,
                                                     const std::string& frame,
                                                     std::chrono::milliseconds patience, Done done,
                                                     Wanted wanted);
  static Result<std::unique_ptr<AgentRequest>> start(EventLoop& loop, UniqueFd connection,
                                                     const std::string& frame,
                                                     std::chrono::milliseconds patience, Done done) {
    return start(loop, std::move(connection), frame, patience, std::move(done), Wanted{});
  }

  // Whether the last one was refused, after all before it had been carried out.
  bool refused_last() const { return refused_ && wanted_.answers == 1; }

 private:
  AgentRequest(EventLoop& loop, Done done) : loop_(loop), done_(std::move(done)) {}
  void on_connection(uint32_t epoll_events);
  std::optional<Result<void>> receive();
  void finish(Result<void> result);

  EventLoop& loop_;
  Done done_;
  UniqueFd connection_;
  std::string out_;
  Wanted wanted_;
  bool greeted_ = false;
  bool refused_ = false;
  protocol::FrameReader reader_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  EventLoop::Timer timer_;
  EventLoop::Watch watch_;
};

}  // namespace snug
