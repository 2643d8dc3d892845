// The agent in the guest, as far as a run has to do with it: whether it has called since the guest booted,
// and the requests that are the run's own. Commands: guest_commands.h.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "vmm/agent/agent_request.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/vsock_hub.h"

namespace snug {

class GuestAgent {
 public:
  // A guest that has not called by then hangs, or has nothing in it that could.
  static constexpr std::chrono::minutes kPatience{2};

  // Listens on `hub`, which is the caller's. `called`: it is ready for requests; once a boot or more often.
  GuestAgent(EventLoop& loop, VsockHub& hub, std::function<void()> called);

  // A boot begins; it has not called yet.
  void guest_boots();
  // "ready", "awaited" for `patience` of a boot, then "silent".
  const char* state(std::chrono::milliseconds patience) const;

  // A stream to it, for requests.
  void connect(VsockHub::Connected connected);
  // Asks it to power the guest off. `failed`: why nothing will come of it.
  void power_off(std::function<void(const std::string& why)> failed);
  // After a pause: the guest's time of day is not to depend on how its clock source takes so long a leap. A
  // guest without an agent keeps the time it has.
  void set_clock();

 private:
  void on_call();

  EventLoop& loop_;
  VsockHub& hub_;
  std::function<void()> called_;
  bool ready_ = false;
  std::chrono::steady_clock::time_point boot_began_;
  std::unique_ptr<AgentRequest> power_off_;
  std::unique_ptr<AgentRequest> set_time_;
};

}  // namespace snug
