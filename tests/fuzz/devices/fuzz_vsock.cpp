// The socket device under any packets of a guest and any behaviour of the host's programs. The first byte:
// 1 time limits are over at once. An operation is one byte, its low three bits the kind:
//   0  a packet: fields by which the upper bits choose, of ports that recur
//   1  a packet that may be right: of a connection that there is, with data
//   2  the guest gives buffers of some size
//   3  the host opens a connection to the guest
//   4  a program of the host writes, reads, closes its half or all
//   5  doorbells and the host's events
//   6  the backend's next answer
//   7  reset of the device, of a queue, an interruption; a raw chain
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <vector>

#include "devices/virtio/vsock/vsock.h"
#include "tests/fuzz/devices/input.h"
#include "vmm/base/log.h"

namespace snug::fuzz {
namespace {

constexpr uint64_t kRam = uint64_t{1} << 20;
constexpr uint16_t kRingSize = 16;
constexpr uint64_t kPackets = 0x40000, kBuffers = 0x80000, kSlot = 0x4000;

// A split ring as a driver writes it.
class Ring {
 public:
  Ring(const GuestMemory& memory, uint64_t base) : memory_(memory), base_(base) {}
  VirtQueueLayout layout() const {
    VirtQueueLayout layout;
    layout.size = kRingSize;
    layout.descriptors = base_;
    layout.available = base_ + 0x400;
    layout.used = base_ + 0x800;
    return layout;
  }
  void clear() {
    (void)memory_.zero(base_, 0xc00);
    available_ = 0;
  }
  uint16_t used() const { return memory_.load<uint16_t>(base_ + 0x802).value_or(0); }
  // The used entry `index`: chain and length.
  std::pair<uint32_t, uint32_t> entry(uint16_t index) const {
    const uint64_t at = base_ + 0x804 + 8 * uint64_t{static_cast<uint16_t>(index % kRingSize)};
    return {memory_.load<uint32_t>(at).value_or(0), memory_.load<uint32_t>(at + 4).value_or(0)};
  }
  uint16_t free() const {
    return static_cast<uint16_t>(kRingSize - static_cast<uint16_t>(available_ - used()));
  }
  uint16_t next() const { return available_ % kRingSize; }
  // One descriptor, offered.
  void offer(uint64_t gpa, uint32_t length, bool writable) {
    const uint16_t slot = next();
    const uint64_t at = base_ + 16 * uint64_t{slot};
    (void)memory_.store(at, gpa);
    (void)memory_.store(at + 8, length);
    (void)memory_.store(at + 12, static_cast<uint16_t>(writable ? 2 : 0));
    (void)memory_.store(at + 14, uint16_t{0});
    (void)memory_.store(base_ + 0x404 + 2 * uint64_t{slot}, slot);
    (void)memory_.store(base_ + 0x402, ++available_);
  }
  void break_index(uint16_t by) {
    (void)memory_.store(base_ + 0x402, available_ = static_cast<uint16_t>(available_ + by));
  }

 private:
  const GuestMemory& memory_;
  uint64_t base_;
  uint16_t available_ = 0;
};

class Host final : public VirtioHost {
 public:
  explicit Host(const GuestMemory& memory) : memory_(memory) {
    for (int i = 0; i < 3; ++i) queues_.emplace_back(memory);
  }
  VirtQueue& queue(uint16_t index) override { return queues_.at(index); }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t) override {}
  void config_changed() override {}
  void config_updated() override {}
  void needs_reset(const std::string&) override { broken = true; }
  void again(uint16_t queue) override { rung.at(queue) = true; }
  void stopped() override {}
  void queue_stopped(uint16_t) override {}
  bool broken = false;
  std::array<bool, 3> rung{};

 private:
  const GuestMemory& memory_;
  std::deque<VirtQueue> queues_;
};

std::array<UniqueFd, 2> pair() {
  std::array<int, 2> ends{-1, -1};
  FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  // Small, so that streams become full.
  const int size = 1;
  for (const int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

class Backend final : public VsockBackend {
 public:
  tl::expected<UniqueFd, int> open(uint32_t) override {
    if (error != 0) return tl::unexpected(error);
    auto ends = pair();
    programs.push_back(std::move(ends[1]));
    return std::move(ends[0]);
  }
  int error = 0;
  std::vector<UniqueFd> programs;  // the host's ends
};

class Harness {
 public:
  explicit Harness(bool hurried) {
    VsockConfig config;
    if (hurried) config.connect_timeout = config.close_timeout = config.busy_timeout = config.busy_pause = {};
    auto made = VirtioVsock::create(config, backend_);
    FUZZ_CHECK(made);
    device_ = std::move(*made);
    start();
  }
  ~Harness() {
    device_.reset();
    FUZZ_CHECK(outcomes_ == attempts_);
  }

  void run(Input& input) {
    while (!input.empty()) {
      step(input);
      check();
    }
  }

 private:
  void start() {
    host_ = std::make_unique<Host>(memory_);
    for (uint16_t i = 0; i < 3; ++i) {
      rings_[i].clear();
      FUZZ_CHECK(host_->queue(i).start(rings_[i].layout(), {}).empty());
    }
    seen_ = 0;
    device_->start(*host_, 1);
  }

  void step(Input& input) {
    const uint8_t op = input.take8();
    const uint8_t choice = op >> 3;
    switch (op & 7) {
      case 0:
        return packet(input, choice);
      case 1:
        return good_packet(input, choice);
      case 2:
        for (int i = 0; i <= choice % 8 && rings_[0].free() > 0; ++i)
          rings_[0].offer(kBuffers + kSlot * rings_[0].next(), choice < 8 ? 44 + input.take8() : 4096,
                          choice != 9);
        return ring(0);
      case 3: {
        if (attempts_ > 200) return;
        ++attempts_;
        auto ends = pair();
        backend_.programs.push_back(std::move(ends[1]));
        device_->connect(input.take8() & 3, std::move(ends[0]), [this](const VsockOutcome& outcome) {
          ++outcomes_;
          if (outcome.error == 0) (void)!::send(outcome.fd, "OK 1\n", 5, MSG_DONTWAIT | MSG_NOSIGNAL);
        });
        return;
      }
      case 4:
        return program(input, choice);
      case 5:
        if ((choice & 8) != 0) device_->sockets_ready();
        return ring(choice & 3);
      case 6:
        backend_.error = std::array{0, 0, ECONNREFUSED, EAGAIN}[choice & 3];
        return;
      default:
        return other(input, choice);
    }
  }

  void put(const VsockHeader& header, std::span<const std::byte> data) {
    if (rings_[1].free() == 0) ring(1);
    if (rings_[1].free() == 0) return;
    const uint64_t at = kPackets + kSlot * rings_[1].next();
    (void)memory_.store(at, header);
    (void)memory_.write(at + sizeof header, data);
    rings_[1].offer(at, static_cast<uint32_t>(sizeof header + data.size()), false);
    ring(1);
  }

  void packet(Input& input, uint8_t choice) {
    VsockHeader header;
    header.source_cid = (choice & 1) != 0 ? input.take(8) : cid_;
    header.destination_cid = (choice & 2) != 0 ? input.take(8) : 2;
    header.source_port = input.take8() & 3;
    header.destination_port =
        (choice & 4) != 0 ? (uint32_t{1} << 30) + (input.take8() & 7) : input.take8() & 3;
    header.length = (choice & 8) != 0 ? static_cast<uint32_t>(input.take(4)) : input.take8();
    const uint8_t type_op = input.take8();
    header.type = (type_op & 0xf0) == 0xf0 ? static_cast<uint16_t>(input.take(2)) : uint16_t{1};
    header.op = type_op & 15;
    header.flags = input.take8();
    header.room = static_cast<uint32_t>(input.take(4));
    header.forwarded = static_cast<uint32_t>(input.take(4));
    put(header, input.take_bytes(input.take8()));
  }

  // Of the last connection that the device has spoken of.
  void good_packet(Input& input, uint8_t choice) {
    VsockHeader header;
    header.source_cid = cid_;
    header.destination_cid = 2;
    header.source_port = last_.guest;
    header.destination_port = last_.host;
    header.type = 1;
    header.op = choice & 7;
    header.flags = choice >> 3;
    header.room = 0x10000;
    header.forwarded = received_;
    std::vector<std::byte> data;
    if (header.op == static_cast<uint16_t>(VsockOp::kData)) data.resize(uint64_t{input.take8()} * 63);
    header.length = static_cast<uint32_t>(data.size());
    put(header, data);
  }

  void program(Input& input, uint8_t choice) {
    if (backend_.programs.empty()) return;
    const size_t which = input.take8() % backend_.programs.size();
    UniqueFd& fd = backend_.programs[which];
    std::array<std::byte, 8192> bytes{};
    switch (choice & 7) {
      case 0:
      case 1:
        (void)!::send(fd.get(), bytes.data(), uint64_t{input.take8()} * 32, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
      case 2:
      case 3:
        (void)!::recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        break;
      case 4:
        ::shutdown(fd.get(), SHUT_WR);
        break;
      case 5:
        ::shutdown(fd.get(), SHUT_RD);
        break;
      default:
        backend_.programs.erase(backend_.programs.begin() + static_cast<ptrdiff_t>(which));
        break;
    }
    if ((choice & 8) != 0) device_->sockets_ready();
  }

  void other(Input& input, uint8_t choice) {
    if (choice < 8) {
      FUZZ_CHECK(device_->stop());
      return start();
    }
    if (choice < 10) {
      const uint16_t index = choice & 1;
      FUZZ_CHECK(device_->stop_queue(index));
      host_->queue(index).stop();
      rings_[index].clear();
      if (index == 0) seen_ = 0;
      FUZZ_CHECK(host_->queue(index).start(rings_[index].layout(), {}).empty());
      return ring(index);
    }
    if (choice < 12) {
      cid_ = 3 + input.take8();
      return device_->interrupted(cid_);
    }
    Ring& any = rings_[input.take8() % 3];
    if (choice < 14) {
      if (any.free() > 0) any.offer(input.take(3), static_cast<uint32_t>(input.take(2)), (choice & 1) != 0);
    } else if (choice == 31) {
      any.break_index(static_cast<uint16_t>(input.take(2)));
    }
    ring(0);
    ring(1);
    ring(2);
  }

  // A doorbell, and those that the device rings itself.
  void ring(uint16_t index) {
    if (index > 2) return;
    host_->rung[index] = true;
    for (int turns = 0; host_->rung[0] || host_->rung[1] || host_->rung[2]; ++turns) {
      FUZZ_CHECK(turns < 10'000);  // nothing may spin
      for (uint16_t i = 0; i < 3; ++i) {
        if (!std::exchange(host_->rung[i], false) || host_->broken) continue;
        if (host_->queue(i).running()) device_->queue_ready(i);
      }
    }
  }

  void check() {
    FUZZ_CHECK(device_->connections() <= VirtioVsock::kConnectionsMax);
    FUZZ_CHECK(device_->held() <= device_->connections() * VirtioVsock::kRoom);
    FUZZ_CHECK(outcomes_ <= attempts_);
    for (; seen_ != rings_[0].used(); ++seen_) {
      const auto [chain, length] = rings_[0].entry(seen_);
      if (length == 0) continue;
      FUZZ_CHECK(length >= sizeof(VsockHeader) && chain < kRingSize);
      const auto header = memory_.load<VsockHeader>(kBuffers + kSlot * chain);
      // Buffers of raw chains lie elsewhere.
      if (!header || header->source_cid != kVsockHostCid || header->destination_cid != cid_) continue;
      last_ = {header->source_port, header->destination_port};
      if (header->op == static_cast<uint16_t>(VsockOp::kData)) received_ += header->length;
    }
  }

  GuestMemory memory_ = std::move(*GuestMemory::create(kRam));
  std::array<Ring, 3> rings_{Ring(memory_, 0x1000), Ring(memory_, 0x2000), Ring(memory_, 0x3000)};
  Backend backend_;
  std::unique_ptr<Host> host_;
  std::unique_ptr<VirtioVsock> device_;
  uint64_t cid_ = 3;
  VsockPorts last_;
  uint32_t received_ = 0;
  uint16_t seen_ = 0;
  unsigned attempts_ = 0, outcomes_ = 0;
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  [[maybe_unused]] static const bool quiet = snug::log_open(snug::LogLevel::kOff).has_value();
  snug::fuzz::Input input(data, size);
  const bool hurried = (input.take8() & 1) != 0;
  snug::fuzz::Harness(hurried).run(input);
  return 0;
}
