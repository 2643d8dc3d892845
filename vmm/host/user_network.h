// A network interface of mode user: keeps a passt process running behind it.
//
// Thread: the event loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/passt.h"
#include "vmm/spec/spec.h"

namespace snug {

class UserNetwork {
 public:
  struct Events {
    // passt has been started anew: frames go there from now on.
    std::function<void(UniqueFd socket)> connected;
    // passt has ended; it will be started anew soon.
    std::function<void()> lost;
  };

  // Returns when passt is at work: some milliseconds. Errors: those of Passt::start(), and what keeps passt
  // from its work.
  static Result<std::unique_ptr<UserNetwork>> start(EventLoop& loop, const NetSpec& net, Events events);
  // For the first process. Once.
  UniqueFd take_socket() { return passt_->take_socket(); }
  // What passt sends makes no sense, or it has closed its socket: it ends, and a new one follows.
  void give_up() {
    if (passt_) passt_->kill();
  }

 private:
  UserNetwork(EventLoop& loop, const NetSpec& net, Events events)
      : loop_(loop), net_(net), events_(std::move(events)) {}
  // While a guest runs nothing may wait.
  enum class Wait { kNo, kUntilReady };
  Result<void> launch(Wait wait);
  void relaunch();
  void on_end();

  EventLoop& loop_;
  NetSpec net_;
  Events events_;
  std::optional<Passt> passt_;
  std::chrono::steady_clock::time_point started_;
  std::chrono::milliseconds pause_{0};  // before the next start
  EventLoop::Watch process_watch_;      // watches before what they watch
  EventLoop::Watch output_watch_;
  EventLoop::Timer restart_timer_;
};

}  // namespace snug
