// The guest's side of the PCI transport for these tests: its registers, and a device that remembers what is
// asked of it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "devices/pci/root.h"
#include "devices/virtio/pci.h"
#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/virtio_driver.h"
#include "vmm/base/endian.h"

namespace snug::test {
// Registers of the common configuration (virtio 1.2, 4.1.4.3) and where the parts lie in the BAR.
constexpr uint64_t kDeviceFeatureSelect = 0x00, kDeviceFeature = 0x04, kDriverFeatureSelect = 0x08,
                   kDriverFeature = 0x0c, kConfigVector = 0x10, kQueueCount = 0x12, kStatus = 0x14,
                   kGeneration = 0x15, kQueueSelect = 0x16, kQueueSize = 0x18, kQueueVector = 0x1a,
                   kQueueEnable = 0x1c, kQueueDescriptors = 0x20, kQueueDriver = 0x28, kQueueDevice = 0x30,
                   kQueueReset = 0x3a;
constexpr uint64_t kConfig = 0x0800, kTable = 0x1000, kPending = 0x3000, kIsr = 0x4000, kNotify = 0x5000;

class FakeDoorbells final : public DoorbellBinder {
 public:
  Result<void> bind(const Doorbell& doorbell, int) override {
    if (bound == limit) return fail("no more");
    ++bound;
    last = doorbell;
    return {};
  }
  void unbind(const Doorbell&, int) override { --bound; }
  int bound = 0;
  int limit = 100;
  std::optional<Doorbell> last;
};

// Remembers what the transport asks of it.
class FakeDevice final : public VirtioDevice {
 public:
  VirtioType type() const override { return VirtioType::kRng; }
  std::string_view name() const override { return "fake"; }
  uint32_t pci_class() const override { return 0x00ff00; }
  uint64_t features() const override { return 0x5; }
  std::span<const uint16_t> queue_sizes() const override { return sizes; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override {
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(first_byte + offset + i);
  }
  void write_config(uint64_t offset, std::span<const std::byte> data) override {
    written_config = {offset, load_le(data)};
  }
  void start(VirtioHost& h, uint64_t f) override {
    host = &h;
    negotiated = f;
    ++starts;
    if (change_at_start) first_byte = 8;
  }
  void queue_ready(uint16_t queue) override { ready.push_back(queue); }
  bool stop() override {
    ++stops;
    return stops_at_once;
  }
  bool stop_queue(uint16_t queue) override {
    stopped_queues.push_back(queue);
    return stops_at_once;
  }

  std::array<uint16_t, 2> sizes{8, 16};
  VirtioHost* host = nullptr;
  uint64_t negotiated = 0;
  int starts = 0, stops = 0;
  unsigned first_byte = 0;  // of its configuration
  bool change_at_start = false;
  bool stops_at_once = true;
  std::vector<uint16_t> ready, stopped_queues;
  std::pair<uint64_t, uint64_t> written_config;
};

class VirtioPciTest : public testing::Test {
 protected:
  VirtioPciTest() : memory(ram()), driver(memory, 8) {
    auto made = VirtioPci::create(device, line, 16, {memory, doorbells, vectors});
    EXPECT_TRUE(made);
    transport = std::move(*made);
    EXPECT_TRUE(root.add(1, *transport));
  }

  uint64_t in(uint64_t offset, size_t width) {
    std::array<std::byte, 8> bytes{};
    transport->lock()->read(offset, std::span(bytes).first(width));
    return load_le(std::span<const std::byte>(bytes).first(width));
  }
  void out(uint64_t offset, size_t width, uint64_t value) {
    std::array<std::byte, 8> bytes{};
    store_le(std::span<std::byte>(bytes).first(width), value);
    transport->lock()->write(offset, std::span<const std::byte>(bytes).first(width));
  }
  uint64_t config_in(uint16_t offset, size_t width) {
    std::array<std::byte, 4> bytes{};
    root.read((1 << 15) + offset, std::span(bytes).first(width));
    return load_le(std::span<const std::byte>(bytes).first(width));
  }
  void config_out(uint16_t offset, size_t width, uint64_t value) {
    std::array<std::byte, 4> bytes{};
    store_le(std::span<std::byte>(bytes).first(width), value);
    root.write((1 << 15) + offset, std::span<const std::byte>(bytes).first(width));
  }
  // The capability of this id (and of virtio ones, type); 0 when there is none.
  uint16_t capability(uint8_t id, uint8_t type = 0) {
    for (auto at = static_cast<uint16_t>(config_in(0x34, 1)); at != 0;
         at = static_cast<uint16_t>(config_in(static_cast<uint16_t>(at + 1), 1)))
      if (config_in(at, 1) == id && (type == 0 || config_in(static_cast<uint16_t>(at + 3), 1) == type))
        return at;
    return 0;
  }
  uint8_t status() { return static_cast<uint8_t>(in(kStatus, 1)); }
  void negotiate(uint64_t features) {
    out(kStatus, 1, 1);
    out(kStatus, 1, 3);
    for (uint32_t i = 0; i < 2; ++i) {
      out(kDriverFeatureSelect, 4, i);
      out(kDriverFeature, 4, features >> (32 * i));
    }
    out(kStatus, 1, 11);
  }
  void set_up_queue(uint16_t index, const VirtQueueLayout& layout, uint16_t vector = 0xffff) {
    out(kQueueSelect, 2, index);
    out(kQueueSize, 2, layout.size);
    out(kQueueVector, 2, vector);
    out(kQueueDescriptors, 4, layout.descriptors);
    out(kQueueDescriptors + 4, 4, layout.descriptors >> 32);
    out(kQueueDriver, 8, layout.available);
    out(kQueueDevice, 8, layout.used);
    out(kQueueEnable, 2, 1);
  }
  void bring_up(uint16_t vector = 0xffff, uint64_t more_features = 0) {
    negotiate(kVirtioVersion1 | 1 | more_features);
    set_up_queue(0, driver.layout(), vector);
    out(kStatus, 1, 15);
  }
  void enable_msix() { config_out(static_cast<uint16_t>(capability(0x11) + 2), 2, 0x8000); }
  void program(uint16_t entry, uint32_t data, bool masked = false) {
    out(kTable + 16u * entry, 4, 0xfee01000);
    out(kTable + 16u * entry + 4, 4, 0);
    out(kTable + 16u * entry + 8, 4, data);
    out(kTable + 16u * entry + 12, 4, masked ? 1 : 0);
  }
  // One request through the ring, answered by the device.
  void serve() {
    driver.chain(0, {{0x100000, 8, true}});
    driver.offer(0);
    VirtChain chain;
    ASSERT_EQ(device.host->queue(0).pop(chain), VirtQueue::Pop::kChain);
    ASSERT_TRUE(device.host->queue(0).push(0, 8));
    device.host->used(0);
  }

  GuestMemory memory;
  RingDriver driver;
  FakeIrqLine line;
  FakeDoorbells doorbells;
  FakeVectors vectors;
  FakeDevice device;
  std::unique_ptr<Synced<VirtioPci>> transport;
  PciRoot root;
};

}  // namespace snug::test
