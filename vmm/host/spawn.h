// Starts another program, with streams of ours and, if need be, a resolv.conf of its own.
//
// Thread: any. What runs between fork and exec makes system calls only, for other threads may hold locks.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"

namespace snug {

struct SpawnRequest {
  std::string program;                 // its path
  std::vector<std::string> arguments;  // the first is its name
  int output = -1;                     // becomes its stdout and stderr; its stdin is empty
  int third = -1;  // becomes its descriptor 3; -1: it has none. All others are close-on-exec
  // What it finds at /etc/resolv.conf: a file that nobody else sees, in a mount namespace of its own. As a
  // user that takes a user namespace too, which keeps the user's and the group's number.
  std::optional<std::string> resolv_conf;
  // For one that writes here and there in large buffers: no 2 MiB for each place, whatever the host's default
  // is.
  bool small_pages = false;
};

// What has kept it from running.
struct SpawnError {
  bool by_namespace = false;  // resolv_conf could not be had; without one it may run
  Error error;
};

// In a process group of its own: Ctrl-C on the terminal is for snug, which gives the guest time to end. All
// signals are as they were before snug took them.
tl::expected<pid_t, SpawnError> spawn(const SpawnRequest& request);

}  // namespace snug
