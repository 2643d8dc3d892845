// Frames both ways: a guest at the rings, and a process at the other end of the stream (where passt would be)
// that may send anything.
#include <sys/socket.h>

#include "devices/virtio/net/net.h"
#include "tests/fuzz/devices/virtio_guest.h"

namespace snug::fuzz {
namespace {

// In one input: each new stream takes a third of a millisecond, and more steps than this find nothing new.
constexpr int kPeersMax = 4;
constexpr int kStepsMax = 500;

class Peer {
 public:
  Peer() {
    std::array<int, 2> ends{};
    FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
    own_ = UniqueFd(ends[0]);
    other_ = UniqueFd(ends[1]);
  }
  UniqueFd other() { return std::move(other_); }
  // Well-formed frames, or bytes as they come.
  void send(Input& input, bool whole) {
    const auto length = static_cast<uint32_t>(input.take(2) % 2000);
    std::vector<std::byte> bytes;
    if (whole) {
      for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(std::byte(length >> shift));
      bytes.resize(4 + length);
    } else {
      const auto given = input.take_bytes(length % 64);
      bytes.assign(given.begin(), given.end());
    }
    (void)!::send(own_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // What comes out of the stream is whole frames, whatever the guest does.
  void receive() {
    std::array<std::byte, 4096> some{};
    for (;;) {
      const ssize_t count = ::recv(own_.get(), some.data(), some.size(), MSG_DONTWAIT);
      if (count <= 0) break;
      received_.insert(received_.end(), some.begin(), some.begin() + count);
    }
    size_t at = 0;
    while (received_.size() - at >= 4) {
      size_t length = 0;
      for (size_t i = 0; i < 4; ++i) length = length << 8 | std::to_integer<size_t>(received_[at + i]);
      FUZZ_CHECK(length >= kFrameMin && length <= kFrameMax);
      if (received_.size() - at < 4 + length) break;
      at += 4 + length;
    }
    received_.erase(received_.begin(), received_.begin() + static_cast<ptrdiff_t>(at));
  }
  void close() { own_ = UniqueFd(); }

 private:
  UniqueFd own_, other_;
  std::vector<std::byte> received_;
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  fuzz::Input input(data, size);
  const uint8_t shape = input.take8();
  auto peer = std::make_unique<fuzz::Peer>();
  NetConfig config;
  config.name = "fuzzed interface";
  config.mtu = 1500;
  config.pairs = static_cast<uint16_t>(1 + (shape & 1));
  config.control = (shape & 2) == 0;
  VirtioNet device(std::move(config), make_stream_backend(peer->other()));
  fuzz::VirtioGuest* guest_of = nullptr;
  fuzz::VirtioGuest guest(device, [&] {
    auto lock = guest_of->transport().lock();
    for (uint16_t pair = 0; pair < device.pairs(); ++pair) device.backend_ready(pair);
  });
  guest_of = &guest;
  guest.bring_up(input.take(8), static_cast<uint16_t>(1u << input.take8() % 5));
  int peers = 1;
  for (int steps = 0; steps < fuzz::kStepsMax && !input.empty(); ++steps) {
    const uint8_t op = input.take8();
    switch (op & 15) {
      case 0:
      case 1:
        peer->send(input, (op & 1) != 0);
        break;
      case 2:
        peer->receive();
        break;
      case 3: {
        auto lock = guest.transport().lock();
        device.set_link((op & 16) != 0);
        break;
      }
      case 4: {
        // As when passt has died and come back.
        if (++peers > fuzz::kPeersMax) break;
        if ((op & 16) != 0) peer->close();
        peer = std::make_unique<fuzz::Peer>();
        auto lock = guest.transport().lock();
        device.connect(make_stream_backend(peer->other()));
        break;
      }
      default:
        guest.step(input);
        break;
    }
  }
  guest.settle();
  peer->receive();
  // A frame goes out.
  guest.reset();
  {
    auto lock = guest.transport().lock();
    device.set_link(true);
  }
  FUZZ_CHECK(guest.serves(1, {{0x30000, 12 + 60, false}}));
  return 0;
}
