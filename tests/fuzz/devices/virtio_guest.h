// A virtio device behind its real transport, and a guest whose driver does what a fuzz input says: it can
// speak either layout of ring properly, and scribble over everything.
#pragma once

#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "devices/pci/root.h"
#include "devices/virtio/pci.h"
#include "tests/fuzz/devices/input.h"
#include "vmm/base/endian.h"

namespace snug::fuzz {

constexpr uint64_t kRam = 1 << 20;

class Line final : public IrqLine {
 public:
  void set(bool asserted) override {
    FUZZ_CHECK(asserted != level);
    level = asserted;
  }
  bool level = false;
};

class Vector final : public MsiVector {
 public:
  Vector() : fd_(std::move(*make_eventfd())) {}
  int event_fd() const override { return fd_.get(); }
  Result<void> set(const MsiMessage& now) override {
    if (refuses) return fail("no route");
    message = now;
    connected = true;
    return {};
  }
  void mask() override { connected = false; }
  uint64_t take() const {
    uint64_t count = 0;
    return ::read(fd_.get(), &count, sizeof count) == sizeof count ? count : 0;
  }
  MsiMessage message;
  bool connected = false;
  bool refuses = false;

 private:
  UniqueFd fd_;
};

class Vectors final : public MsiVectorSource {
 public:
  Result<std::unique_ptr<MsiVector>> vector() override {
    auto made = std::make_unique<Vector>();
    all.push_back(made.get());
    return std::unique_ptr<MsiVector>(std::move(made));
  }
  std::vector<Vector*> all;  // whoever asked owns them
};

class Doorbells final : public DoorbellBinder {
 public:
  Result<void> bind(const Doorbell&, int) override {
    ++bound;
    return {};
  }
  void unbind(const Doorbell&, int) override {
    FUZZ_CHECK(bound > 0);
    --bound;
  }
  int bound = 0;
};

class VirtioGuest {
 public:
  // `finish` is called until nothing of the device's is under way any more.
  VirtioGuest(VirtioDevice& device, std::function<void()> finish);

  // Resets the device and brings it up with these features, as far as it offers them, and queues of at most
  // `size` entries.
  void bring_up(uint64_t features, uint16_t size);
  // One thing that a guest or the loop can do.
  void step(Input& input);
  // A chain of parts, each readable or writable, made available properly.
  struct Part {
    uint64_t gpa;
    uint32_t length;
    bool writable;
  };
  void offer(uint16_t queue, const std::vector<Part>& parts, bool indirect = false);
  // Lets the loop do what doorbells ask for, until there is silence.
  void settle();
  void notify(uint16_t queue) { write_bar(kNotify + 4u * queue, queue, 2); }
  void reset();
  // Whether the device, reset and brought up anew, gives back a good request.
  bool serves(uint16_t queue, const std::vector<Part>& parts);

  uint64_t read_bar(uint64_t offset, size_t width);
  void write_bar(uint64_t offset, uint64_t value, size_t width);
  uint8_t status() { return static_cast<uint8_t>(read_bar(kStatus, 1)); }
  uint16_t queues() { return transport_->lock()->queue_count(); }
  GuestMemory& memory() { return memory_; }
  Synced<VirtioPci>& transport() { return *transport_; }
  Doorbells& doorbells() { return doorbells_; }
  // A place for data; wraps around.
  uint64_t place(uint64_t bytes);

  static constexpr uint64_t kStatus = 0x14, kQueueSelect = 0x16, kQueueReset = 0x3a, kNotify = 0x5000;

 private:
  struct DriverQueue {
    uint16_t size = 0;
    uint32_t next = 0;  // split: free-running; packed: a place in the ring
    bool wrap = true;
  };

  uint64_t area(uint16_t queue) const { return 0x1000 + 0x1000u * (queue % 8u); }
  void set_up_queue(uint16_t queue, uint16_t size);
  void offer_something(Input& input);
  void config_access(Input& input);
  void put(uint64_t gpa, uint64_t value, size_t width);

  std::function<void()> finish_;
  GuestMemory memory_;
  Line line_;
  Doorbells doorbells_;
  Vectors vectors_;
  std::unique_ptr<Synced<VirtioPci>> transport_;
  PciRoot root_;
  std::vector<DriverQueue> driver_;
  bool packed_ = false;
  uint16_t size_ = 8;
  uint64_t features_ = 0;
  uint64_t next_place_ = 0;
};

}  // namespace snug::fuzz
