#include "vmm/kvm/coalesced_writes.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "vmm/base/endian.h"

namespace snug::kvm {
namespace {

constexpr uint32_t kEntries = (4096 - 8) / 24;

// What KVM does with its end of the ring.
struct FakeKvm {
  void write(uint64_t address, uint32_t value, uint32_t length, AddressSpace space = AddressSpace::kPort) {
    kvm_coalesced_mmio& entry = ring().coalesced_mmio[ring().last];
    entry.phys_addr = address;
    entry.len = length;
    entry.pio = space == AddressSpace::kPort ? 1 : 0;
    store_le(std::as_writable_bytes(std::span(entry.data).first(4)), value);
    ring().last = (ring().last + 1) % kEntries;
  }
  kvm_coalesced_mmio_ring& ring() { return *reinterpret_cast<kvm_coalesced_mmio_ring*>(page.data()); }
  alignas(4096) std::array<std::byte, 4096> page{};
};

using Written = std::vector<std::pair<uint64_t, uint64_t>>;

Written drained(CoalescedWrites& writes) {
  Written seen;
  const size_t count = writes.drain([&](AddressSpace, uint64_t address, std::span<const std::byte> data) {
    seen.emplace_back(address, load_le(data));
  });
  EXPECT_EQ(count, seen.size());
  return seen;
}

TEST(CoalescedWrites, NothingWithoutARing) {
  CoalescedWrites writes(nullptr);
  EXPECT_TRUE(drained(writes).empty());
}

TEST(CoalescedWrites, KeepsTheOrderAndTheWidth) {
  FakeKvm kvm;
  CoalescedWrites writes(&kvm.ring());
  EXPECT_TRUE(drained(writes).empty());
  kvm.write(0xcf8, 0x80001234, 4);
  kvm.write(0x70, 0xffffff0a, 1);
  kvm.write(0xcf8, 0x80005678, 4);
  EXPECT_EQ(drained(writes), (Written{{0xcf8, 0x80001234}, {0x70, 0x0a}, {0xcf8, 0x80005678}}));
  EXPECT_TRUE(drained(writes).empty());
}

TEST(CoalescedWrites, TellsPortsAndMemoryApart) {
  FakeKvm kvm;
  CoalescedWrites writes(&kvm.ring());
  kvm.write(0x70, 1, 1);
  kvm.write(0x2'0000'0070, 2, 4, AddressSpace::kMmio);
  std::vector<std::pair<AddressSpace, uint64_t>> seen;
  writes.drain([&](AddressSpace space, uint64_t address, std::span<const std::byte>) {
    seen.emplace_back(space, address);
  });
  EXPECT_EQ(seen, (decltype(seen){{AddressSpace::kPort, 0x70}, {AddressSpace::kMmio, 0x2'0000'0070}}));
}

TEST(CoalescedWrites, GoesRoundTheRing) {
  FakeKvm kvm;
  CoalescedWrites writes(&kvm.ring());
  uint32_t next = 0;
  for (int round = 0; round < 10; ++round) {
    Written expected;
    for (uint32_t i = 0; i < kEntries - 1; ++i, ++next) {
      kvm.write(0xcf8, next, 4);
      expected.emplace_back(0xcf8, next);
    }
    EXPECT_EQ(drained(writes), expected);
  }
}

TEST(CoalescedWrites, LeavesWhatComesMeanwhileForNextTime) {
  FakeKvm kvm;
  CoalescedWrites writes(&kvm.ring());
  kvm.write(0x70, 1, 1);
  const size_t count =
      writes.drain([&](AddressSpace, uint64_t, std::span<const std::byte>) { kvm.write(0x70, 2, 1); });
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(drained(writes), (Written{{0x70, 2}}));
}

TEST(CoalescedWrites, TrustsNoIndexAndNoLength) {
  FakeKvm kvm;
  CoalescedWrites writes(&kvm.ring());
  kvm.ring().coalesced_mmio[0].len = 0xffffffff;
  kvm.ring().first = 0xfffffff0;
  kvm.ring().last = 0x12345678;
  size_t longest = 0;
  const size_t count = writes.drain([&](AddressSpace, uint64_t, std::span<const std::byte> data) {
    longest = std::max(longest, data.size());
  });
  EXPECT_LT(count, kEntries);
  EXPECT_LE(longest, 8u);
}

}  // namespace
}  // namespace snug::kvm
