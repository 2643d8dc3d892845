#include "devices/virtio/pci.h"

#include <array>
#include <optional>

#include "devices/pci/root.h"
#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/virtio_driver.h"
#include "vmm/base/endian.h"

namespace snug::test {
namespace {

// Registers of the common configuration (virtio 1.2, 4.1.4.3) and where the parts lie in the BAR.
constexpr uint64_t kDeviceFeatureSelect = 0x00, kDeviceFeature = 0x04, kDriverFeatureSelect = 0x08,
                   kDriverFeature = 0x0c, kConfigVector = 0x10, kQueueCount = 0x12, kStatus = 0x14,
                   kGeneration = 0x15, kQueueSelect = 0x16, kQueueSize = 0x18, kQueueVector = 0x1a,
                   kQueueEnable = 0x1c, kQueueDescriptors = 0x20, kQueueDriver = 0x28, kQueueDevice = 0x30;
constexpr uint64_t kIsr = 0x1000, kConfig = 0x2000, kNotify = 0x3000, kTable = 0x4000, kPending = 0x6000;

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
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(offset + i);
  }
  void write_config(uint64_t offset, std::span<const std::byte> data) override {
    written_config = {offset, load_le(data)};
  }
  void start(VirtioHost& h, uint64_t f) override {
    host = &h;
    negotiated = f;
    ++starts;
  }
  void queue_ready(uint16_t queue) override { ready.push_back(queue); }
  bool stop() override {
    ++stops;
    return stops_at_once;
  }

  std::array<uint16_t, 2> sizes{8, 16};
  VirtioHost* host = nullptr;
  uint64_t negotiated = 0;
  int starts = 0, stops = 0;
  bool stops_at_once = true;
  std::vector<uint16_t> ready;
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
  void bring_up(uint16_t vector = 0xffff) {
    negotiate(kVirtioVersion1 | 1);
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

TEST_F(VirtioPciTest, ShowsItselfAsAModernDevice) {
  EXPECT_EQ(config_in(0x00, 4), 0x10441af4u);
  EXPECT_EQ(config_in(0x08, 1), 1u) << "revision of a non-transitional device";
  for (uint8_t type = 1; type <= 5; ++type) EXPECT_NE(capability(9, type), 0) << int{type};
  EXPECT_NE(capability(0x11), 0);
  const uint16_t notify = capability(9, 2);
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 2), 1), 20u) << "with the multiplier";
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 8), 4), kNotify);
  EXPECT_EQ(config_in(static_cast<uint16_t>(notify + 16), 4), 4u);
  EXPECT_EQ(in(kQueueCount, 2), 2u);
}

TEST_F(VirtioPciTest, OffersFeaturesBySelector) {
  EXPECT_EQ(in(kDeviceFeature, 4), 0x30000005u);
  out(kDeviceFeatureSelect, 4, 1);
  EXPECT_EQ(in(kDeviceFeature, 4), 1u) << "VERSION_1";
  out(kDeviceFeatureSelect, 4, 2);
  EXPECT_EQ(in(kDeviceFeature, 4), 0u);
  out(kDeviceFeatureSelect, 4, 0xffffffff);
  EXPECT_EQ(in(kDeviceFeature, 4), 0u);
}

TEST_F(VirtioPciTest, ComesUpInOrder) {
  bring_up();
  EXPECT_EQ(status(), 15);
  EXPECT_EQ(device.starts, 1);
  EXPECT_EQ(device.negotiated, kVirtioVersion1 | 1);
  EXPECT_EQ(take_count(transport->lock()->doorbell_fd(0)), 1u) << "what was available before is looked for";
  transport->lock()->notified(0);
  EXPECT_EQ(device.ready, std::vector<uint16_t>{0});
  transport->lock()->notified(1);
  EXPECT_EQ(device.ready.size(), 1u) << "a queue that was not enabled";
}

TEST_F(VirtioPciTest, RefusesFeaturesThatWereNotOffered) {
  negotiate(kVirtioVersion1 | 2);
  EXPECT_EQ(status(), 3) << "FEATURES_OK stays clear";
  out(kStatus, 1, 0);
  negotiate(1);
  EXPECT_EQ(status(), 3) << "without VERSION_1";
  out(kStatus, 1, 0);
  negotiate(kVirtioVersion1);
  EXPECT_EQ(status(), 11);
  out(kDriverFeatureSelect, 4, 0);
  out(kDriverFeature, 4, 5);
  EXPECT_EQ(in(kDriverFeature, 4), 0u) << "settled";
}

TEST_F(VirtioPciTest, StatusBitsComeInOrderAndGoOnlyByReset) {
  for (const int bad : {2, 4, 8, 12, 14}) {
    out(kStatus, 1, static_cast<uint64_t>(bad));
    EXPECT_EQ(status(), 0) << bad;
  }
  out(kStatus, 1, 1);
  out(kStatus, 1, 5);
  EXPECT_EQ(status(), 1) << "DRIVER_OK before FEATURES_OK";
  out(kStatus, 1, 3);
  out(kStatus, 1, 1);
  EXPECT_EQ(status(), 3) << "a bit was taken back";
  out(kStatus, 1, 0x83);
  EXPECT_EQ(status(), 0x83) << "the driver has given up";
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(device.starts, 0);
}

TEST_F(VirtioPciTest, ASecondDriverOkStartsNothing) {
  bring_up();
  out(kStatus, 1, 15);
  EXPECT_EQ(device.starts, 1);
}

TEST_F(VirtioPciTest, QueueRegistersAreSettledWhileEnabled) {
  bring_up();
  out(kQueueSize, 2, 4);
  out(kQueueDescriptors, 8, 0x99000);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  EXPECT_EQ(in(kQueueDescriptors, 8), driver.layout().descriptors);
  out(kQueueEnable, 2, 0);
  EXPECT_EQ(in(kQueueEnable, 2), 1u);
}

TEST_F(VirtioPciTest, QueuesThatAreNotThere) {
  out(kQueueSelect, 2, 2);
  EXPECT_EQ(in(kQueueSize, 2), 0u);
  out(kQueueSize, 2, 8);
  out(kQueueEnable, 2, 1);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  out(kQueueSelect, 2, 0xffff);
  EXPECT_EQ(in(kQueueDescriptors, 8), 0u);
  out(kNotify + 4 * 2, 2, 2);
  out(kNotify + 0xffc, 2, 1023);
  transport->lock()->read(kNotify, std::span<std::byte>());
}

TEST_F(VirtioPciTest, ALayoutThatCannotBeAsksForAReset) {
  negotiate(kVirtioVersion1);
  set_up_queue(0, {8, kRam, 0x11000, 0x12000});
  EXPECT_EQ(status(), 11 | 64);
  out(kStatus, 1, 15 | 64);
  EXPECT_EQ(device.starts, 0) << "it does not start before the reset";
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
  bring_up();
  EXPECT_EQ(device.starts, 1);
}

TEST_F(VirtioPciTest, RaisesMessages) {
  enable_msix();
  program(1, 0x41);
  bring_up(1);
  EXPECT_TRUE(vectors.all[1]->connected());
  EXPECT_EQ(vectors.all[1]->message(), (MsiMessage{0xfee01000, 0x41}));
  serve();
  EXPECT_EQ(vectors.all[1]->take(), 1u);
  EXPECT_FALSE(line.level());
  EXPECT_EQ(in(kIsr, 1), 0u) << "MSI-X leaves the ISR alone";
}

TEST_F(VirtioPciTest, MaskedMessagesWait) {
  enable_msix();
  program(1, 0x41, true);
  bring_up(1);
  serve();
  EXPECT_EQ(vectors.all[1]->take(), 0u);
  EXPECT_EQ(in(kPending, 4), 2u);
  out(kTable + 16 + 12, 4, 0);
  EXPECT_EQ(vectors.all[1]->take(), 1u);
  EXPECT_EQ(in(kPending, 4), 0u);
  // The whole function.
  const auto control = static_cast<uint16_t>(capability(0x11) + 2);
  config_out(control, 2, 0xc000);
  EXPECT_FALSE(vectors.all[1]->connected());
  serve();
  EXPECT_EQ(in(kPending, 4), 2u);
  config_out(control, 2, 0x8000);
  EXPECT_EQ(vectors.all[1]->take(), 1u);
}

TEST_F(VirtioPciTest, AMessageIsMovedByRewritingIt) {
  enable_msix();
  program(0, 0x50);
  out(kTable + 8, 4, 0x51);
  EXPECT_EQ(vectors.all[0]->message().data, 0x51u);
  out(kTable, 8, 0x1'fee02000);
  EXPECT_EQ(vectors.all[0]->message().address, 0x1'fee02000u);
  EXPECT_EQ(in(kTable, 8), 0x1'fee02000u);
}

TEST_F(VirtioPciTest, OddAccessesToTheMessageTableDoNothing) {
  enable_msix();
  program(0, 0x50);
  out(kTable + 8, 2, 0x99);
  out(kTable + 9, 4, 0x99999999);
  out(kTable + 8, 1, 0x99);
  EXPECT_EQ(in(kTable + 8, 4), 0x50u);
  EXPECT_EQ(in(kTable + 8, 2), 0xffffu);
  // The last entry's end, and behind it.
  EXPECT_EQ(in(kTable + 3 * 16 - 4, 8), 0xffffffffffffffffu);
  EXPECT_EQ(in(kTable + 3 * 16, 4), 0u);
}

TEST_F(VirtioPciTest, VectorsThatAreNotThereAreRefused) {
  out(kConfigVector, 2, 3);
  EXPECT_EQ(in(kConfigVector, 2), 0xffffu);
  out(kConfigVector, 2, 2);
  EXPECT_EQ(in(kConfigVector, 2), 2u);
}

TEST_F(VirtioPciTest, WithoutMessagesTheLineRises) {
  bring_up();
  serve();
  EXPECT_TRUE(line.level());
  EXPECT_EQ(config_in(0x06, 2) & 8, 8u) << "interrupt status";
  EXPECT_EQ(in(kIsr, 1), 1u);
  EXPECT_FALSE(line.level()) << "reading acknowledges";
  EXPECT_EQ(in(kIsr, 1), 0u);
  device.host->config_changed();
  EXPECT_EQ(in(kIsr, 1), 2u);
  EXPECT_EQ(in(kGeneration, 1), 1u);
  // The guest may switch the line off.
  serve();
  config_out(0x04, 2, 0x0406);
  EXPECT_FALSE(line.level());
  config_out(0x04, 2, 0x0006);
  EXPECT_TRUE(line.level());
}

TEST_F(VirtioPciTest, ResetForgetsEverything) {
  enable_msix();
  program(1, 0x41);
  bring_up(1);
  out(kConfigVector, 2, 0);
  out(kStatus, 1, 0);
  EXPECT_EQ(device.stops, 1);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(in(kConfigVector, 2), 0xffffu);
  EXPECT_EQ(in(kQueueEnable, 2), 0u);
  EXPECT_EQ(in(kQueueSize, 2), 8u);
  EXPECT_EQ(in(kQueueDescriptors, 8), 0u);
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  driver.set_available_index(0);
  bring_up(1);
  EXPECT_EQ(device.starts, 2);
}

TEST_F(VirtioPciTest, AResetWaitsForRequestsUnderWay) {
  device.stops_at_once = false;
  bring_up();
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 15) << "not done yet";
  out(kStatus, 1, 0);
  EXPECT_EQ(device.stops, 1);
  out(kStatus, 1, 15);
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  EXPECT_FALSE(device.host->queue(0).running());
  device.host->stopped();
  EXPECT_EQ(status(), 0);
  device.host->stopped();
  EXPECT_EQ(status(), 0);
}

TEST_F(VirtioPciTest, ABrokenDeviceStandsStillUntilReset) {
  enable_msix();
  program(0, 0x40);
  negotiate(kVirtioVersion1);
  out(kConfigVector, 2, 0);
  set_up_queue(0, driver.layout());
  out(kStatus, 1, 15);
  device.host->needs_reset("of a test");
  device.host->needs_reset("of a test");
  EXPECT_EQ(status(), 15 | 64);
  EXPECT_EQ(vectors.all[0]->take(), 1u) << "told once";
  transport->lock()->notified(0);
  EXPECT_TRUE(device.ready.empty());
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
}

TEST_F(VirtioPciTest, DeviceConfigurationPassesThrough) {
  EXPECT_EQ(in(kConfig + 4, 4), 0x07060504u);
  out(kConfig + 8, 2, 0xabcd);
  EXPECT_EQ(device.written_config, (std::pair<uint64_t, uint64_t>{8, 0xabcd}));
}

TEST_F(VirtioPciTest, TheConfigurationWindowReachesTheBar) {
  const uint16_t window = capability(9, 5);
  const auto at = [window](int offset) { return static_cast<uint16_t>(window + offset); };
  config_out(at(4), 1, 0);
  config_out(at(8), 4, kQueueCount);
  config_out(at(12), 4, 2);
  EXPECT_EQ(config_in(at(16), 2), 2u);
  config_out(at(8), 4, kStatus);
  config_out(at(12), 4, 1);
  config_out(at(16), 1, 1);
  EXPECT_EQ(status(), 1);
  // Windows that are none: another BAR, odd lengths, unaligned, behind the end.
  const std::array<std::array<uint32_t, 3>, 6> bad{{{1, kStatus, 1},
                                                    {0, kStatus, 3},
                                                    {0, kStatus, 0},
                                                    {0, kStatus + 1, 4},
                                                    {0, 0x8000, 1},
                                                    {0, 0xfffffffc, 4}}};
  for (const auto& [bar, offset, length] : bad) {
    config_out(at(4), 1, bar);
    config_out(at(8), 4, offset);
    config_out(at(12), 4, length);
    config_out(at(16), 4, 0);
    config_in(at(16), 4);
    EXPECT_EQ(status(), 1);
  }
}

TEST_F(VirtioPciTest, DoorbellsFollowTheBar) {
  EXPECT_TRUE(transport->lock()->map_doorbells(0xc0008000));
  EXPECT_EQ(doorbells.bound, 0) << "nobody can ring yet";
  bring_up();
  EXPECT_EQ(doorbells.bound, 2);
  EXPECT_EQ(doorbells.last->address, 0xc0008000u + kNotify + 4);
  EXPECT_TRUE(transport->lock()->map_doorbells(0xd0000000));
  EXPECT_EQ(doorbells.bound, 2);
  transport->lock()->unmap_doorbells();
  EXPECT_EQ(doorbells.bound, 0);
  doorbells.limit = 1;
  EXPECT_FALSE(transport->lock()->map_doorbells(0xc0008000));
  EXPECT_EQ(doorbells.bound, 0) << "all or none";
  // Without them the write itself rings.
  out(kNotify + 4, 2, 1);
  EXPECT_EQ(take_count(transport->lock()->doorbell_fd(1)), 1u);
  // A device that cannot have them works all the same.
  out(kStatus, 1, 0);
  EXPECT_TRUE(transport->lock()->map_doorbells(0xc0008000));
  driver.set_available_index(0);
  bring_up();
  EXPECT_EQ(status(), 15);
  EXPECT_EQ(doorbells.bound, 0);
}

// Anything a guest can do to the registers, for a while: nothing but the lock is needed.
TEST_F(VirtioPciTest, RandomAccesses) {
  Random random(7);
  const std::array<size_t, 4> widths{1, 2, 4, 8};
  const std::array<uint64_t, 6> parts{0, kIsr, kConfig, kNotify, kTable, kPending};
  const std::array<uint64_t, 8> values{0, 1, 3, 11, 15, 0x10000, 0xffff, 0x12000};
  for (int i = 0; i < 200000; ++i) {
    const size_t width = widths[random.below(4)];
    uint64_t offset = parts[random.below(6)] + random.below(0x40);
    if (random.below(10) == 0) offset = random.below(VirtioPci::kBarSize - 8);
    const uint64_t value = random.below(2) == 0 ? values[random.below(8)] : random.next();
    switch (random.below(4)) {
      case 0:
        in(offset, width);
        break;
      case 1:
        config_out(static_cast<uint16_t>(random.below(64) * 4), 4, value);
        break;
      case 2:
        transport->lock()->notified(static_cast<uint16_t>(random.below(2)));
        break;
      default:
        out(offset, width, value);
        break;
    }
  }
  out(kStatus, 1, 0);
  EXPECT_EQ(status(), 0);
}

}  // namespace
}  // namespace snug::test
