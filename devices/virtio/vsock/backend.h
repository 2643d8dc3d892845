// The host's end of a socket device.
//
// Thread: open() on the event loop; an outcome on any thread. Both with the device's lock held: they wait for
// nothing and do not call the device.
#pragma once

#include <cstdint>
#include <functional>
#include <tl/expected.hpp>

#include "vmm/base/unique_fd.h"

namespace snug {

// Of an attempt to reach a port of the guest.
struct VsockOutcome {
  int error = 0;           // 0: it is connected. An errno otherwise, see VirtioVsock::connect()
  uint32_t host_port = 0;  // this end's, when connected
  int fd = -1;             // the stream's, when connected. Nothing of the guest's has been sent to it yet
};
using VsockDone = std::function<void(const VsockOutcome&)>;

class VsockBackend {
 public:
  virtual ~VsockBackend() = default;
  // The guest wants to reach a port of the host: a connected stream socket, or an errno. EAGAIN: whoever
  // listens is busy, ask again soon; anything else refuses the guest.
  virtual tl::expected<UniqueFd, int> open(uint32_t port) = 0;
};

}  // namespace snug
