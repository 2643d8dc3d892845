// Who is at the host's end of the serial port: takes what the guest sends, and offers what it is to receive.
//
// Thread: transmit(), guest_opened() and input_space() on vCPU threads, with the UART's lock held: they must
// not block and must not call the UART back. connect() on the event loop's.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "devices/legacy/serial.h"

namespace snug {

class SerialPeer : public SerialOutput {
 public:
  // Hands input to the guest and returns how many bytes it took.
  using Receiver = std::function<size_t(std::span<const std::byte>)>;

  // Connects the input to a new machine whose port is not open yet; nullptr disconnects.
  virtual void connect(Receiver receiver) = 0;
  // The guest's driver has opened the port.
  virtual void guest_opened() = 0;
  // There is room again after the receiver had refused something.
  virtual void input_space() = 0;
};

}  // namespace snug
