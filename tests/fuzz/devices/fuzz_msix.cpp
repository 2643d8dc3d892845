// The table of messages. An operation is one byte: bits 0-2 what, bits 4-7 the width or a number.
#include "devices/pci/msix.h"

#include "tests/fuzz/devices/virtio_guest.h"

namespace snug::fuzz {
namespace {

constexpr size_t kCount = 5;
constexpr uint16_t kControl = 0x42;

class Harness {
 public:
  void run(Input& input) {
    while (!input.empty()) {
      step(input);
      check();
    }
    // Whatever was done, it can be used.
    for (Vector* vector : vectors_.all) vector->refuses = false;
    msix_->reset();
    check();
    control(0x8000);
    write(16, 0xfee00000, 8);
    write(24, 0x41, 8);
    vectors_.all[1]->take();
    msix_->raise(1);
    FUZZ_CHECK(vectors_.all[1]->take() == 1 && vectors_.all[1]->message == (MsiMessage{0xfee00000, 0x41}));
  }

 private:
  void control(uint16_t value) {
    std::array<std::byte, 2> bytes{};
    store_le(std::span<std::byte>(bytes), value);
    config_.guest_write(kControl, bytes);
    msix_->after_config_write();
  }
  void write(uint64_t offset, uint64_t value, size_t width) {
    std::array<std::byte, 16> bytes{};
    store_le(std::span<std::byte>(bytes).first(8), value);
    msix_->write_table(offset, std::span<const std::byte>(bytes).first(width));
  }
  void step(Input& input) {
    const uint8_t op = input.take8();
    const unsigned number = op >> 4;
    std::array<std::byte, 16> bytes{};
    switch (op & 7) {
      case 0:
      case 1: {
        const uint64_t offset = input.take8();
        write(offset, input.take(8), number);
        break;
      }
      case 2:
        msix_->read_table(input.take8(), std::span(bytes).first(number));
        break;
      case 3:
        msix_->read_pending(input.take8(), std::span(bytes).first(number));
        break;
      case 4:
        control(static_cast<uint16_t>(number << 12));
        break;
      case 5:
        msix_->raise(static_cast<uint16_t>(number));
        break;
      case 6:
        vectors_.all[number % kCount]->refuses = (input.take8() & 1) != 0;
        break;
      default:
        if (number == 15) msix_->reset();
        break;
    }
  }
  // A vector is connected only where nothing masks it, with the message that the table shows; what waits is
  // masked.
  void check() {
    const uint16_t now = config_.read16(kControl);
    FUZZ_CHECK((now & 0x7ff) == kCount - 1);
    const bool open = (now & 0x8000) != 0 && (now & 0x4000) == 0;
    for (size_t i = 0; i < kCount; ++i) {
      std::array<std::byte, 16> entry{};
      for (size_t at = 0; at < 16; at += 4) msix_->read_table(16 * i + at, std::span(entry).subspan(at, 4));
      const std::span<const std::byte> all(entry);
      const bool masked = (load_le(all.subspan(12, 4)) & 1) != 0;
      const Vector& vector = *vectors_.all[i];
      if (!open || masked) FUZZ_CHECK(!vector.connected);
      std::array<std::byte, 1> pending{};
      msix_->read_pending(0, pending);
      const bool waits = (std::to_integer<unsigned>(pending[0]) >> i & 1) != 0;
      if (waits) FUZZ_CHECK(!vector.connected || vector.refuses);
      if (vector.connected && !vector.refuses)
        FUZZ_CHECK(vector.message ==
                   (MsiMessage{load_le(all.first(8)), static_cast<uint32_t>(load_le(all.subspan(8, 4)))}));
    }
  }

  ConfigSpace config_{PciIdentity{}};
  RegisterPages pages_{2};
  Vectors vectors_;
  std::unique_ptr<Msix> msix_ = [this] {
    std::vector<std::unique_ptr<MsiVector>> owned;
    for (size_t i = 0; i < kCount; ++i) owned.push_back(std::move(*vectors_.vector()));
    return std::make_unique<Msix>(config_, 0, 0x1000, 0x6000, std::move(owned), pages_);
  }();
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  snug::fuzz::Harness().run(input);
  return 0;
}
