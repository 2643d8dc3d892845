// The agent in the guest, as far as a run has to do with it: whether it has called since the guest booted,
// the shares that it mounts then, and the other requests that are the run's own. Commands: guest_commands.h.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/agent/agent_request.h"
#include "vmm/agent/exec_session.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/vsock_hub.h"
#include "vmm/run/guest_shares.h"

namespace snug {

class GuestAgent {
 public:
  // A guest that has not called by then hangs, or has nothing in it that could.
  static constexpr std::chrono::minutes kPatience{2};

  struct Events {
    std::function<void()> called;                              // it is there; once a boot or more often
    std::function<void(const std::string& why)> share_failed;  // one of them is not mounted
    std::function<void()> ready;  // for commands: the shares are mounted as far as they can be
    // It has called, and nothing that is one run's own has happened in its guest so far; `go_on`, now or
    // later, asks it for that. `waits`: the guest's network is a part of it, for its first program waits. May
    // be empty.
    std::function<void(bool waits, std::function<void()> go_on)> untouched;
    // The guest is not what it should be: it has not gone on, or not begun. `own`: because of what it was to
    // begin with, which is this machine's alone. True: it boots anew. May be empty.
    std::function<bool(const std::string& why, bool own)> lost;
    // One that goes on has been asked for its other addresses, whatever came of it. May be empty.
    std::function<void()> readdressed;
  };
  // What it is asked for before anything else.
  struct Wishes {
    std::vector<protocol::MountRequest> mounts;
    protocol::Begin begin;                           // of a guest that waits
    std::vector<protocol::AddressChange> addresses;  // of one that goes on
    // Whoever waits to begin is not the agent that commands are for: that one calls later.
    bool hands_over = false;
  };
  // Asks for what a guest is started for, on the stream on which it is told to go on, behind `before`. False:
  // nothing is asked for, and the stream is gone.
  using GoingOn = std::function<bool(UniqueFd stream, ExecBefore before)>;
  // Listens on `hub`, which is the caller's.
  GuestAgent(EventLoop& loop, VsockHub& hub, Wishes wishes, Events events);

  const GuestShares& shares() const { return shares_; }
  bool has_called() const { return called_; }
  // Or the guest has been told to begin, and has.
  bool has_begun() const { return called_ || handed_over_; }

  // Before the first boot.
  void when_it_goes_on(GoingOn going_on) { going_on_ = std::move(going_on); }
  // A boot begins; it has not called yet.
  void guest_boots();
  // One begins that was saved when its agent had called, or before: it does not call once more.
  // `host_name`: that it gets; it has random numbers of its own and the time of day from then on. `waits`: as
  // the guest did that was saved.
  void guest_goes_on(const std::string& host_name, bool waits) {
    go_on(host_name, waits, !waits && addresses_.empty() && going_on_);
  }
  // "ready", "awaited" for `patience` of a boot, then "silent".
  const char* state(std::chrono::milliseconds patience) const;

  // A stream to it, for requests.
  void connect(VsockHub::Connected connected, uint32_t port = protocol::kAgentPort);
  // Asks it to power the guest off. `failed`: why nothing will come of it.
  void power_off(std::function<void(const std::string& why)> failed);
  // After a pause: the guest's time of day is not to depend on how its clock source takes so long a leap. A
  // guest without an agent keeps the time it has.
  void set_clock();

 private:
  void on_call();
  void on_waiting_call();
  void when_saved(bool waits, std::function<void()> go_on);
  void connect_now(uint32_t port, VsockHub::Connected connected);
  // Once more when it was tried in vain, for a minute.
  void reach(uint32_t port, VsockHub::Connected reached,
             std::optional<std::chrono::steady_clock::time_point> until = {});
  void begin();
  uint16_t begin_version() const;
  // `with_more`: with its shares and its command, for a guest that does not begin first.
  void go_on(const std::string& host_name, bool waits, bool with_more);
  void ask_to_go_on(UniqueFd stream, const std::string& host_name, bool waits, bool with_more);
  void ask_with_more(UniqueFd stream, std::string frames, const std::string& host_name);
  // `own`: it has gone on, and is refused what is this machine's alone.
  void on_gone_on(const Result<void>& done, bool own = false);
  void ask_for_addresses();
  void on_addresses(const Result<void>& done);
  void on_begun(const Result<void>& done);
  void on_handed_over();
  void on_ready();

  EventLoop& loop_;
  VsockHub& hub_;
  const Events events_;
  GoingOn going_on_;  // none: it is started for nothing
  const protocol::Begin begin_;
  const std::vector<protocol::AddressChange> addresses_;
  const bool hands_over_;
  GuestShares shares_;
  bool called_ = false;
  bool handed_over_ = false;  // it has begun, and is to call
  bool ready_ = false;
  bool goes_on_ = false;        // from a snapshot
  std::shared_ptr<int> round_;  // gone: what comes back is of another boot
  std::chrono::steady_clock::time_point boot_began_;
  std::unique_ptr<AgentRequest> power_off_;
  std::unique_ptr<AgentRequest> set_time_;
  std::unique_ptr<AgentRequest> go_on_;  // or to begin
};

}  // namespace snug
