// A console and channels under drivers without manners, with peers that come, go, stall and speak. The first
// byte chooses the device.
#include <algorithm>
#include <cstring>

#include "devices/virtio/console/channels.h"
#include "devices/virtio/console/console.h"
#include "tests/fuzz/devices/virtio_input.h"

namespace snug::fuzz {
namespace {

class Peer final : public PortPeer {
 public:
  void on_events(Events) override {}
  bool connected() const override { return here; }
  size_t send(std::span<const iovec> parts) override {
    size_t count = 0;
    for (const iovec& part : parts) {
      const size_t length = std::min(part.iov_len, room);
      // Every byte is read, so that a sanitizer sees a wrong one.
      for (size_t i = 0; i < length; ++i) sum += static_cast<const unsigned char*>(part.iov_base)[i];
      room -= length;
      count += length;
    }
    return count;
  }
  size_t receive(std::span<const iovec> parts) override {
    size_t count = 0;
    for (const iovec& part : parts) {
      const size_t length = std::min(part.iov_len, coming);
      std::memset(part.iov_base, 'x', length);
      coming -= length;
      count += length;
    }
    if (count == 0 && leaves) here = false;
    return count;
  }
  void turn(Input& input) {
    const uint8_t what = input.take8();
    here = (what & 1) != 0;
    leaves = (what & 2) != 0;
    room = input.take(2);
    coming = input.take(2);
  }

  bool here = true;
  bool leaves = false;
  size_t room = 1000;
  size_t coming = 0;
  unsigned sum = 0;
};

void run_console(Input& input) {
  Peer peer;
  VirtioConsole console("console hvc0", peer);
  VirtioHarness driver(console);
  while (!input.empty()) {
    const uint8_t op = input.take8();
    if (op == 0xff) {
      peer.turn(input);
      console.peer_ready();
    } else if (op == 0xfe) {
      console.set_size({static_cast<uint16_t>(input.take(2)), static_cast<uint16_t>(input.take(2))});
    } else {
      driver.step(op, input);
    }
  }
  driver.finish();
}

void run_channels(Input& input) {
  std::array<Peer, 2> peers;
  VirtioChannels channels({{"one", &peers[0]}, {"two", &peers[1]}});
  VirtioHarness driver(channels);
  while (!input.empty()) {
    const uint8_t op = input.take8();
    if (op >= 0xfe) {
      const size_t index = op - 0xfe;
      peers[index].turn(input);
      channels.peer_ready(index);
    } else {
      driver.step(op, input);
    }
  }
  driver.finish();
}

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  if ((input.take8() & 1) == 0) {
    snug::fuzz::run_console(input);
  } else {
    snug::fuzz::run_channels(input);
  }
  return 0;
}
