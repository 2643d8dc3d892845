// Who is at the host's end of a console or channel.
//
// Thread: send() on any, so that the guest's last words come out; the others on the event loop's. No call
// waits.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace snug {

struct WindowSize {
  uint16_t columns = 0;
  uint16_t rows = 0;
  bool operator==(const WindowSize&) const = default;
};

class PortPeer {
 public:
  struct Events {
    std::function<void()> ready;  // there may be bytes or room, or somebody has come or gone
    std::function<void(const WindowSize&)> resized;
  };

  virtual ~PortPeer() = default;
  // Whom to tell from now on, on the event loop; {}: nobody.
  virtual void on_events(Events events) = 0;
  // Whether somebody is there.
  virtual bool connected() const = 0;
  // Returns how many bytes it took. 0: none for now; its owner says when it takes more, or has gone.
  virtual size_t send(std::span<const iovec> parts) = 0;
  // Returns how many bytes came. 0: none for now, or, when connected() is false afterwards, no more.
  virtual size_t receive(std::span<const iovec> parts) = 0;
};

}  // namespace snug
