// The guest's side of virtio for these tests: RAM, split rings laid down in it, and vectors that count.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/queue.h"
#include "vmm/base/checked.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/interrupt.h"

namespace snug::test {

constexpr uint64_t kRam = 16 * kMiB;

inline GuestMemory ram() { return std::move(*GuestMemory::create(kRam)); }

struct Part {
  uint64_t gpa;
  uint32_t length;
  bool writable;
};

// Descriptor flags.
constexpr uint16_t kDescNext = 1;
constexpr uint16_t kDescWrite = 2;
constexpr uint16_t kDescIndirect = 4;

// Writes rings as a driver does, and anything else that a hostile one could.
class RingDriver {
 public:
  RingDriver(const GuestMemory& memory, uint16_t size, uint64_t base = 0x10000)
      : memory_(memory), layout_{size, base, base + 0x8000, base + 0xc000} {}

  const VirtQueueLayout& layout() const { return layout_; }

  void descriptor(uint64_t table, uint16_t index, uint64_t gpa, uint32_t length, uint16_t flags,
                  uint16_t next) {
    put(table + 16 * index, gpa);
    put(table + 16 * index + 8, length);
    put(table + 16 * index + 12, flags);
    put(table + 16 * index + 14, next);
  }
  void descriptor(uint16_t index, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next = 0) {
    descriptor(layout_.descriptors, index, gpa, length, flags, next);
  }
  // A chain in descriptors `first`, first + 1, ...
  void chain(uint16_t first, const std::vector<Part>& parts) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool last = i + 1 == parts.size();
      descriptor(static_cast<uint16_t>(first + i), parts[i].gpa, parts[i].length,
                 static_cast<uint16_t>((parts[i].writable ? kDescWrite : 0) | (last ? 0 : kDescNext)),
                 static_cast<uint16_t>(first + i + 1));
    }
  }
  // The ring is empty again.
  void restart() { set_available_index(0); }
  // A chain of one buffer for the device to write into, made available.
  void offer_buffer(uint16_t head) {
    chain(head, {{0x100000, 8, true}});
    offer(head);
  }
  // Makes the chain that starts at `head` available.
  void offer(uint16_t head) {
    put(layout_.available + 4 + 2 * (available_ % layout_.size), head);
    set_available_index(++available_);
  }
  void set_available_index(uint16_t index) { put(layout_.available + 2, available_ = index); }
  void set_available_flags(uint16_t flags) { put(layout_.available, flags); }
  void set_used_event(uint16_t index) { put(layout_.available + 4 + 2 * layout_.size, index); }
  uint16_t used_index() const { return get<uint16_t>(layout_.used + 2); }
  uint16_t used_flags() const { return get<uint16_t>(layout_.used); }
  uint16_t available_event() const { return get<uint16_t>(layout_.used + 4 + 8 * layout_.size); }
  uint32_t used_id(uint16_t index) const {
    return get<uint32_t>(layout_.used + 4 + 8 * (index % layout_.size));
  }
  uint32_t used_length(uint16_t index) const {
    return get<uint32_t>(layout_.used + 8 + 8 * (index % layout_.size));
  }
  template <class T>
  void put(uint64_t gpa, T value) {
    ASSERT_TRUE(memory_.store(gpa, value));
  }
  template <class T>
  T get(uint64_t gpa) const {
    return *memory_.load<T>(gpa);
  }

 private:
  const GuestMemory& memory_;
  VirtQueueLayout layout_;
  uint16_t available_ = 0;
};

// Takes the count of an eventfd.
inline uint64_t take_count(int event_fd) {
  uint64_t count = 0;
  return ::read(event_fd, &count, sizeof count) == sizeof count ? count : 0;
}

class FakeVector final : public MsiVector {
 public:
  FakeVector() : fd_(std::move(*make_eventfd())) {}
  int event_fd() const override { return fd_.get(); }
  Result<void> set(const MsiMessage& message) override {
    message_ = message;
    connected_ = true;
    return {};
  }
  void mask() override { connected_ = false; }
  bool connected() const { return connected_; }
  const MsiMessage& message() const { return message_; }
  uint64_t take() { return take_count(fd_.get()); }

 private:
  UniqueFd fd_;
  MsiMessage message_;
  bool connected_ = false;
};

class FakeVectors final : public MsiVectorSource {
 public:
  Result<std::unique_ptr<MsiVector>> vector() override {
    auto made = std::make_unique<FakeVector>();
    all.push_back(made.get());
    return std::unique_ptr<MsiVector>(std::move(made));
  }
  std::vector<FakeVector*> all;  // owned by whoever asked
};

}  // namespace snug::test
