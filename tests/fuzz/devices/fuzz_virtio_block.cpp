// Requests of a disk, behind its transport; a backend that looks at each of them and does it when it is told
// to.
#include <deque>

#include "devices/virtio/block/block.h"
#include "tests/fuzz/devices/virtio_guest.h"
#include "vmm/base/checked.h"

namespace snug::fuzz {
namespace {

constexpr uint64_t kDiskSize = 64 * 512;

class Backend final : public BlockBackend {
 public:
  Backend() : fd_(std::move(*make_eventfd())) {}
  bool submit(BlockRequest& request) override {
    if (held_.size() >= limit) return false;
    FUZZ_CHECK(request.operation == BlockOperation::kFlush ||
               (request.length > 0 && range_within(request.offset, request.length, kDiskSize)));
    if (request.operation == BlockOperation::kRead || request.operation == BlockOperation::kWrite) {
      uint64_t total = 0;
      for (const iovec& part : request.iovecs) total += part.iov_len;
      FUZZ_CHECK(total == request.length);
    }
    held_.push_back(&request);
    return true;
  }
  bool kick() override { return false; }
  int event_fd() const override { return fd_.get(); }
  void reap(const Report& report) override {
    for (; !held_.empty(); held_.pop_front()) {
      const BlockRequest& request = *held_.front();
      // What the kernel would do: every byte of it is touched.
      for (const iovec& part : request.iovecs) {
        auto* bytes = static_cast<volatile unsigned char*>(part.iov_base);
        for (size_t i = 0; i < part.iov_len; i += 256) {
          const unsigned char byte = bytes[i];
          if (request.operation == BlockOperation::kRead) bytes[i] = byte;
        }
      }
      report(request.tag, error);
    }
  }
  size_t limit = 1000;
  int error = 0;

 private:
  UniqueFd fd_;
  std::deque<BlockRequest*> held_;
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  fuzz::Input input(data, size);
  const uint8_t shape = input.take8();
  auto owned = std::make_unique<fuzz::Backend>();
  fuzz::Backend& backend = *owned;
  BlockConfig config;
  config.name = "fuzzed disk";
  config.size = fuzz::kDiskSize;
  config.read_only = (shape & 1) != 0;
  config.discard = (shape & 2) != 0;
  config.ephemeral = (shape & 4) != 0;
  config.serial = "fuzz";
  config.queues = static_cast<uint16_t>(1 + (shape >> 6));
  VirtioBlock device(std::move(config), std::move(owned));
  fuzz::VirtioGuest* guest_of = nullptr;
  fuzz::VirtioGuest guest(device, [&] {
    auto lock = guest_of->transport().lock();
    device.completed();
  });
  guest_of = &guest;
  if ((shape & 8) != 0) backend.limit = 2;
  if ((shape & 16) != 0) backend.error = EIO;
  guest.bring_up(input.take(8), static_cast<uint16_t>(1u << input.take8() % 5));
  while (!input.empty()) guest.step(input);
  guest.settle();
  // GET_ID
  guest.reset();
  (void)guest.memory().store(0x30000, std::array<uint32_t, 4>{8, 0, 0, 0});
  FUZZ_CHECK(guest.serves(0, {{0x30000, 16, false}, {0x30100, 20, true}, {0x30200, 1, true}}));
  FUZZ_CHECK(guest.memory().load<uint8_t>(0x30200) == uint8_t{0});
  return 0;
}
