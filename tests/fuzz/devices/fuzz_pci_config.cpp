// Configuration space through both windows. An operation is one byte: bit 0 write, bit 1 the ports instead of
// ECAM, bits 4-7 the width; then the address (3 bytes for ECAM, 1 for the ports) and, to write, the data.
#include <array>

#include "devices/pci/windows.h"
#include "tests/fuzz/devices/input.h"
#include "vmm/base/endian.h"

namespace snug::fuzz {
namespace {

constexpr uint8_t kSlot = 2;
constexpr uint16_t kMessageControl = 0x42;

class Device final : public PciDevice {
 public:
  Device() : PciDevice({.vendor = 0x1af4, .device = 0x1041, .class_code = 0x020000, .revision = 1}) {
    config_.add_bar(0, PciBarKind::kMemory64Prefetchable, 0x8000);
    config_.add_bar(2, PciBarKind::kMemory32, 0x1000);
    config_.add_bar(4, PciBarKind::kMemory64, uint64_t{1} << 33);
    const std::array<std::byte, 10> msix{};
    FUZZ_CHECK(config_.add_capability(pci::kCapabilityMsix, msix) + 2 == kMessageControl);
    config_.allow_write<uint16_t>(kMessageControl, 0xc000);
    config_.place_bar(2, 0xc0000000);
    config_.write16(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster);
  }
  void before_config_read(uint16_t offset, size_t length) override { FUZZ_CHECK(offset % 4 + length <= 4); }
  void after_config_write(uint16_t offset, size_t length) override { FUZZ_CHECK(offset % 4 + length <= 4); }
  void bar_changed(const PciBar& before, const PciBar& now) override {
    FUZZ_CHECK(before.index == now.index && before.size == now.size && !(before == now));
  }
};

class Listener final : public PciBarListener {
 public:
  void config_is_memory(uint8_t, bool) override { FUZZ_CHECK(false); }
  void bar_changed(uint8_t slot, const PciBar&, const PciBar& now) override {
    FUZZ_CHECK(slot == kSlot);
    FUZZ_CHECK(now.size != 0 && (now.address & (now.size - 1)) == 0);
  }
};

class Harness {
 public:
  Harness() : page_(device_.lock()->config().page().data()) { FUZZ_CHECK(root_.lock()->add(kSlot, device_)); }

  void run(Input& input) {
    while (!input.empty()) step(input);
    check();
  }

 private:
  void step(Input& input) {
    const uint8_t op = input.take8();
    const bool write = (op & 1) != 0;
    const bool by_ports = (op & 2) != 0;
    // A bus never lets an access past the end of its range through.
    const uint64_t size = by_ports ? PciConfigPorts::kPorts : PciRoot::kEcamSize;
    const uint64_t offset = (by_ports ? input.take8() : input.take(3)) % size;
    const auto width = std::min<size_t>(op >> 4, size - offset);
    BusDevice& window = by_ports ? static_cast<BusDevice&>(ports_) : ecam_;
    std::array<std::byte, 16> bytes{};
    const auto data = std::span(bytes).first(width);
    if (write) {
      const auto given = input.take_bytes(width);
      std::copy(given.begin(), given.end(), data.begin());
      window.write(offset, data);
    } else {
      window.read(offset, data);
    }
  }

  void check() {
    auto device = device_.lock();
    const ConfigSpace& config = device->config();
    FUZZ_CHECK(config.page().data() == page_);
    FUZZ_CHECK(config.read32(pci::kVendorId) == 0x10411af4);
    FUZZ_CHECK(config.read32(pci::kRevision) == 0x02000001);
    FUZZ_CHECK((config.read16(pci::kCommand) & ~0x0546) == 0);
    FUZZ_CHECK(config.read16(pci::kStatus) == pci::kStatusCapabilityList);
    FUZZ_CHECK(config.read8(pci::kCapabilities) == 0x40);
    FUZZ_CHECK((config.read16(kMessageControl) & 0x3fff) == 0);
    for (const unsigned index : {0u, 2u, 4u}) {
      const PciBar bar = config.bar(index);
      FUZZ_CHECK((bar.address & (bar.size - 1)) == 0);
    }
    for (size_t i = ConfigSpace::kConventional; i < ConfigSpace::kSize; ++i)
      FUZZ_CHECK(config.page()[i] == std::byte{0xff});
  }

  Listener listener_;
  Synced<Device> device_;
  Synced<PciRoot> root_{&listener_};
  PciEcam ecam_{root_};
  PciConfigPorts ports_{root_};
  const std::byte* page_;
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  snug::fuzz::Harness().run(input);
  return 0;
}
