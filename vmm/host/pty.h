// A new pseudo terminal whose other end somebody may open.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

struct Pty {
  UniqueFd master;   // non-blocking
  UniqueFd slave;    // while it is open the master never sees a hang-up
  std::string path;  // of the slave
};

// Raw: no echo, no line editing. Errors: the host has none left.
Result<Pty> open_pty();

}  // namespace snug
