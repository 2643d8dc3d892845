// The process that serves a machine's shares: the warden's other child, behind a wall of its own, which has
// the shared folders and nothing else (vmm/jail/share_steps.h). The machine's devices talk to it by sockets,
// the guest by its rings.
//
// Thread: open() and start() on the only one of the process that forks.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/jail/share_steps.h"
#include "vmm/spec/spec.h"

namespace snug {

// A share as it was opened in front of the wall.
struct ShareEnd {
  // Of the guest's root, where that is a folder of the host: what its first program finds it by.
  static constexpr const char* kRootTag = "snug-root";

  ShareSpec spec;
  jail::SharedFolder folder;
  UniqueFd device;  // the machine's end of the socket
  UniqueFd server;  // the server's; start() takes it

  // Those of the spec, and the guest's root behind them. Errors: what the spec names is not there any more,
  // or is neither folder nor file.
  static Result<std::vector<ShareEnd>> open(const Spec& spec);
};

class ShareServer {
 public:
  // Forks. Returns, in the parent, when the server is locked in. `leave_terminal`: what the server does
  // first, in the background; may be empty. `record`: for tests, where its system calls are noted (vmm/jail);
  // or -1. Errors: what set-up met there.
  static Result<std::unique_ptr<ShareServer>> start(const Spec& spec, std::vector<ShareEnd>& shares,
                                                    const std::function<void()>& leave_terminal, int record);
  // Ends the process.
  ~ShareServer();
  ShareServer(const ShareServer&) = delete;
  ShareServer& operator=(const ShareServer&) = delete;

  // Readable when it has ended.
  int process() const { return process_.get(); }
  pid_t pid() const { return pid_; }
  // What there is to say about its end; "": it has ended because its machine is gone.
  std::string end();
  // Parts of its jail that this host refuses.
  const std::vector<std::string>& jail_missing() const { return jail_missing_; }

 private:
  ShareServer() = default;

  pid_t pid_ = -1;
  UniqueFd process_;   // its pidfd
  UniqueFd lifeline_;  // open for as long as it is to run
  std::vector<std::string> jail_missing_;
};

}  // namespace snug
