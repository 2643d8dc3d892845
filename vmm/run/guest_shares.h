// Mounts shares of the host in the guest, by its agent.
//
// Thread: the loop's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/agent/agent_request.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/vsock_hub.h"
#include "vmm/protocol/messages.h"
#include "vmm/spec/spec.h"

namespace snug {

// What is to be mounted: a folder before what lies in it, else in the spec's order. Looks at the sources, to
// know which are files. In front of the wall.
std::vector<protocol::MountRequest> plan_mounts(const std::vector<ShareSpec>& shares);

class GuestShares {
 public:
  // A stream to the agent's port of the guest, or an errno. Later, on the loop.
  using Connect = std::function<void(VsockHub::Connected connected)>;
  struct Events {
    std::function<void(const std::string& why)> failed;  // one of them; the others are tried all the same
    std::function<void()> done;                          // all have been tried
  };

  GuestShares(EventLoop& loop, std::vector<protocol::MountRequest> mounts, Connect connect, Events events)
      : loop_(loop), mounts_(std::move(mounts)), connect_(std::move(connect)), events_(std::move(events)) {}

  // The agent takes requests: all of them, one after the other, from the first. Without any, or just after
  // are_mounted(), done at once.
  void mount();
  // Or others ask it for all of them at once: puts the requests behind `frames`; how many.
  size_t put_all(std::string& frames) const;
  // That was done.
  void are_mounted();
  // The guest is gone, or boots.
  void forget();

  bool any() const { return !mounts_.empty(); }
  // Of this boot: nothing before it was tried; empty when it is mounted; else why it is not.
  std::optional<std::string> outcome(const std::string& tag) const;

 private:
  void next();
  void start(UniqueFd stream, int error);
  void on_end(const Result<void>& result);

  EventLoop& loop_;
  const std::vector<protocol::MountRequest> mounts_;
  const Connect connect_;
  const Events events_;
  size_t at_ = 0;
  bool are_mounted_ = false;
  std::vector<std::string> outcomes_;  // of those before at_
  std::unique_ptr<AgentRequest> request_;
  std::shared_ptr<int> round_;  // gone: what comes back is of another one
};

}  // namespace snug
