#include "tests/fuzz/devices/virtio_guest.h"

#include "vmm/base/log.h"

namespace snug::fuzz {
namespace {

constexpr uint64_t kDeviceFeatureSelect = 0x00, kDeviceFeature = 0x04, kDriverFeatureSelect = 0x08,
                   kDriverFeature = 0x0c, kQueueSize = 0x18, kQueueEnable = 0x1c, kQueueDescriptors = 0x20,
                   kQueueDriver = 0x28, kQueueDevice = 0x30;
constexpr uint64_t kNext = 1, kWrite = 2, kIndirect = 4;
constexpr uint64_t kDriverArea = 0x400, kDeviceArea = 0x600;  // in a queue's area
constexpr uint64_t kPlaces = 0x20000;                         // data goes from here on

}  // namespace

VirtioGuest::VirtioGuest(VirtioDevice& device, std::function<void()> finish)
    : finish_(std::move(finish)), memory_(std::move(*GuestMemory::create(kRam))) {
  auto made = VirtioPci::create(device, line_, 16, {memory_, doorbells_, vectors_});
  FUZZ_CHECK(made);
  transport_ = std::move(*made);
  FUZZ_CHECK(root_.add(1, *transport_));
  FUZZ_CHECK(transport_->lock()->map_doorbells(0xc0008000));
  driver_.resize(queues());
}

uint64_t VirtioGuest::read_bar(uint64_t offset, size_t width) {
  std::array<std::byte, 8> bytes{};
  transport_->lock()->read(offset, std::span(bytes).first(width));
  return load_le(std::span<const std::byte>(bytes).first(width));
}

void VirtioGuest::write_bar(uint64_t offset, uint64_t value, size_t width) {
  std::array<std::byte, 8> bytes{};
  store_le(std::span<std::byte>(bytes).first(width), value);
  transport_->lock()->write(offset, std::span<const std::byte>(bytes).first(width));
}

void VirtioGuest::put(uint64_t gpa, uint64_t value, size_t width) {
  std::array<std::byte, 8> bytes{};
  store_le(std::span<std::byte>(bytes).first(width), value);
  (void)memory_.write(gpa, std::span<const std::byte>(bytes).first(width));
}

uint64_t VirtioGuest::place(uint64_t bytes) {
  if (next_place_ + bytes > kRam - kPlaces) next_place_ = 0;
  const uint64_t at = kPlaces + next_place_;
  next_place_ += bytes;
  return at;
}

void VirtioGuest::reset() {
  write_bar(kStatus, 0, 1);
  for (int i = 0; status() != 0; ++i) {
    FUZZ_CHECK(i < 1000);
    finish_();
  }
}

void VirtioGuest::bring_up(uint64_t features, uint16_t size) {
  reset();
  uint64_t offered = 0;
  for (uint64_t i = 0; i < 2; ++i) {
    write_bar(kDeviceFeatureSelect, i, 4);
    offered |= read_bar(kDeviceFeature, 4) << (32 * i);
  }
  features_ = (features & offered) | kVirtioVersion1;
  packed_ = (features_ & kVirtioRingPacked) != 0;
  size_ = size;
  write_bar(kStatus, 3, 1);
  for (uint64_t i = 0; i < 2; ++i) {
    write_bar(kDriverFeatureSelect, i, 4);
    write_bar(kDriverFeature, features_ >> (32 * i), 4);
  }
  write_bar(kStatus, 11, 1);
  FUZZ_CHECK(status() == 11);
  for (uint16_t queue = 0; queue < queues(); ++queue) set_up_queue(queue, size_);
  write_bar(kStatus, 15, 1);
  FUZZ_CHECK(status() == 15);
}

void VirtioGuest::set_up_queue(uint16_t queue, uint16_t size) {
  (void)memory_.zero(area(queue), 0x1000);
  write_bar(kQueueSelect, queue, 2);
  size = std::min(size, static_cast<uint16_t>(read_bar(kQueueSize, 2)));
  driver_[queue] = {.size = size};
  write_bar(kQueueSize, size, 2);
  write_bar(kQueueDescriptors, area(queue), 8);
  write_bar(kQueueDriver, area(queue) + kDriverArea, 8);
  write_bar(kQueueDevice, area(queue) + kDeviceArea, 8);
  write_bar(kQueueEnable, 1, 2);
}

void VirtioGuest::offer(uint16_t queue, const std::vector<Part>& parts, bool indirect) {
  DriverQueue& ring = driver_[queue];
  const uint32_t count = indirect ? 1 : static_cast<uint32_t>(parts.size());
  if (parts.empty() || count > ring.size) return;
  const uint64_t table = place(16 * parts.size());
  // Split rings reuse the first descriptors for every chain; to the device that is all the same.
  const uint32_t first = packed_ ? ring.next : 0;
  uint64_t first_flags = 0;
  const auto available = [&](uint32_t i) -> uint64_t {
    const bool wrap = ring.wrap != (ring.next + i >= ring.size);
    return packed_ ? (wrap ? 1u << 7 : 1u << 15) : 0;
  };
  for (uint32_t i = 0; i < parts.size(); ++i) {
    const auto& [gpa, length, writable] = parts[i];
    const uint64_t at = indirect ? table + 16u * i : area(queue) + 16u * ((first + i) % ring.size);
    uint64_t flags = (writable ? kWrite : 0) | (i + 1 < parts.size() ? kNext : 0);
    if (!indirect) flags |= available(i);
    put(at, gpa, 8);
    put(at + 8, length, 4);
    put(at + (packed_ ? 12 : 14), i + 1, 2);
    if (packed_ && !indirect && i == 0) {
      first_flags = flags;
    } else {
      put(at + (packed_ ? 14 : 12), flags, 2);
    }
  }
  const uint64_t head = area(queue) + 16u * first;
  if (indirect) {
    put(head, table, 8);
    put(head + 8, 16 * parts.size(), 4);
    put(head + (packed_ ? 12 : 14), 0, 2);
    first_flags = kIndirect | available(0);
    if (!packed_) put(head + 12, first_flags, 2);
  }
  if (packed_) {
    put(head + 14, first_flags, 2);
    ring.next += count;
    if (ring.next >= ring.size) {
      ring.next -= ring.size;
      ring.wrap = !ring.wrap;
    }
  } else {
    put(area(queue) + kDriverArea + 4 + 2 * (ring.next % ring.size), 0, 2);
    ++ring.next;
    put(area(queue) + kDriverArea + 2, ring.next, 2);
  }
}

// A device that asks for its turn again and again without end would keep the loop busy for ever.
void VirtioGuest::settle() {
  for (int round = 0;; ++round) {
    FUZZ_CHECK(round < 200);
    bool rang = false;
    for (uint16_t queue = 0; queue < queues(); ++queue) {
      uint64_t count = 0;
      if (::read(transport_->lock()->doorbell_fd(queue), &count, sizeof count) != sizeof count) continue;
      rang = true;
      transport_->lock()->notified(queue);
    }
    if (!rang) return;
  }
}

void VirtioGuest::step(Input& input) {
  const uint8_t op = input.take8();
  const auto queue = static_cast<uint16_t>((op >> 4) % queues());
  switch (op & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
      offer_something(input);
      break;
    case 4:
    case 5:
      notify(queue);
      settle();
      break;
    case 6: {  // scribble
      const auto gpa = input.take(2);
      (void)memory_.write(gpa, input.take_bytes(1 + (op >> 4)));
      break;
    }
    case 7:
      finish_();
      settle();
      break;
    case 8: {
      const size_t width = size_t{1} << (op >> 4) % 4;
      read_bar(input.take(2) % (VirtioPci::kBarSize - 8), width);
      break;
    }
    case 9: {
      const size_t width = size_t{1} << (op >> 4) % 4;
      const uint64_t offset = input.take(2) % (VirtioPci::kBarSize - 8);
      write_bar(offset, input.take(width), width);
      break;
    }
    case 10:
      config_access(input);
      break;
    case 11:  // one queue, to another size
      write_bar(kQueueSelect, queue, 2);
      write_bar(kQueueReset, 1, 2);
      for (int i = 0; i < 1000 && read_bar(kQueueReset, 2) == 1; ++i) finish_();
      FUZZ_CHECK((status() & 64) != 0 || read_bar(kQueueReset, 2) == 0 || status() != 15);
      set_up_queue(queue, static_cast<uint16_t>(1u << input.take8() % 4));
      break;
    case 12:
      bring_up(input.take(8), static_cast<uint16_t>(1u << (op >> 4) % 5));
      break;
    case 13:  // a reset in the middle
      write_bar(kStatus, 0, 1);
      break;
    case 14:
      if ((op & 16) != 0) {
        FUZZ_CHECK(transport_->lock()->map_doorbells(0xc0000000 + input.take(2) * VirtioPci::kBarSize));
      } else {
        transport_->lock()->unmap_doorbells();
      }
      break;
    default:
      settle();
      break;
  }
}

// Parts: bit 0 writable; bit 1: a place of its own instead of a given one; else the content follows.
void VirtioGuest::offer_something(Input& input) {
  const uint8_t what = input.take8();
  const auto queue = static_cast<uint16_t>((what & 7) % queues());
  std::vector<Part> parts;
  for (unsigned i = 0; i <= (what >> 4); ++i) {
    const uint8_t kind = input.take8();
    Part part{0, 0, (kind & 1) != 0};
    if ((kind & 2) != 0) {
      part.length = static_cast<uint32_t>(input.take(2));
      part.gpa = place(part.length);
    } else if ((kind & 4) != 0) {
      part.gpa = input.take(2) * 17;  // some of it is beyond the end of RAM
      part.length = static_cast<uint32_t>(input.take(2));
    } else {
      const auto content = input.take_bytes(kind >> 3);
      part.length = static_cast<uint32_t>(content.size());
      part.gpa = place(part.length);
      (void)memory_.write(part.gpa, content);
    }
    parts.push_back(part);
  }
  offer(queue, parts, (what & 8) != 0);
}

void VirtioGuest::config_access(Input& input) {
  const uint8_t what = input.take8();
  const size_t width = size_t{1} << (what & 3) % 3;
  const uint64_t offset = (1 << 15) + input.take8();
  std::array<std::byte, 4> bytes{};
  const auto data = std::span(bytes).first(width);
  if ((what & 4) == 0) {
    root_.read(offset, data);
  } else {
    const auto given = input.take_bytes(width);
    std::copy(given.begin(), given.end(), data.begin());
    root_.write(offset, data);
  }
}

bool VirtioGuest::serves(uint16_t queue, const std::vector<Part>& parts) {
  bring_up(packed_ ? kVirtioRingPacked : 0, 4);
  offer(queue, parts);
  notify(queue);
  settle();
  finish_();
  settle();
  const uint64_t used = area(queue) + kDeviceArea;
  if (!packed_) return memory_.load<uint16_t>(used + 2) == 1;
  const auto flags = memory_.load<uint16_t>(area(queue) + 14);
  return (*flags & 0x8080) == 0x8080;
}

}  // namespace snug::fuzz
