#include "vmm/kvm/cpuid.h"

#include <gtest/gtest.h>
#include "vmm/kvm/uapi.h"

#include <set>

#include "vmm/kvm/kvm.h"

namespace snug::kvm {
namespace {

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                      uint32_t edx) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& entries, uint32_t function,
                             uint32_t index = 0) {
  for (const auto& entry : entries)
    if (entry.function == function && entry.index == index) return &entry;
  return nullptr;
}

// A host of 16 threads as KVM describes it.
std::vector<kvm_cpuid_entry2> host() {
  return {
      leaf(0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69),
      leaf(1, 0, 0x906ea, 0x0f100800, 0x00000200, 0x1fffffff),
      leaf(4, 0, 0x1c004121, 0, 0, 0),
      leaf(4, 3, 0x1c03c163, 0, 0, 0),
      leaf(0xb, 0, 1, 2, 0x100, 15),
      leaf(0xb, 1, 4, 16, 0x201, 15),
      leaf(0x1f, 0, 1, 2, 0x100, 15),
      leaf(0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d),
      leaf(0x80000008, 0, 0x3030, 0, 0xf00f, 0),
      leaf(0x8000001e, 0, 15, 0x0107, 0x0, 0),
  };
}

TEST(Cpuid, NamesTheVendor) { EXPECT_EQ(cpuid_vendor(host()), "GenuineIntel"); }

TEST(Cpuid, TheFirstDifferenceOfTwoHostsIsFound) {
  auto other = host();
  EXPECT_EQ(first_difference(host(), other), nullptr);
  // More than is wanted, and another frequency.
  other.push_back(leaf(0x15, 0, 2, 100, 24'000'000, 0));
  EXPECT_EQ(first_difference(host(), other), nullptr);
  EXPECT_EQ(first_difference(other, host()), nullptr);
  other[3].ecx = 1;
  const auto wanted = host();
  const auto* different = first_difference(wanted, other);
  ASSERT_NE(different, nullptr);
  EXPECT_EQ(different->function, 4u);
  EXPECT_EQ(different->index, 3u);
  const auto* missing = first_difference(wanted, {});
  ASSERT_NE(missing, nullptr);
  EXPECT_EQ(missing->function, 0u);
}

TEST(Cpuid, GivesEachVcpuItsOwnApicId) {
  std::set<uint32_t> ids;
  for (uint32_t id = 0; id < 64; ++id) {
    const auto guest = guest_cpuid(host(), {.cpus = 64}, id);
    const auto* features = find(guest, 1);
    EXPECT_EQ(features->ebx >> 24, id);
    EXPECT_EQ(features->ebx >> 16 & 0xff, 64u);
    EXPECT_EQ(find(guest, 0xb, 0)->edx, id);
    EXPECT_EQ(find(guest, 0x8000001e)->eax, id);
    ids.insert(find(guest, 0x1f, 1)->edx);
  }
  EXPECT_EQ(ids.size(), 64u);
}

TEST(Cpuid, TopologyIsOneThreadPerCoreInOnePackage) {
  const auto guest = guest_cpuid(host(), {.cpus = 3}, 2);
  EXPECT_EQ(find(guest, 0xb, 0)->eax, 0u);
  EXPECT_EQ(find(guest, 0xb, 0)->ebx, 1u);
  EXPECT_EQ(find(guest, 0xb, 0)->ecx, 0x100u);
  EXPECT_EQ(find(guest, 0xb, 1)->eax, 2u) << "two bits number three cores";
  EXPECT_EQ(find(guest, 0xb, 1)->ebx, 3u);
  EXPECT_EQ(find(guest, 0xb, 1)->ecx, 0x201u);
  EXPECT_EQ(find(guest, 4, 0)->eax >> 14 & 0xfff, 0u) << "the first-level cache is a core's own";
  EXPECT_EQ(find(guest, 4, 3)->eax >> 14 & 0xfff, 3u);
  EXPECT_EQ(find(guest, 0x80000008)->ecx & 0xff, 2u);
}

TEST(Cpuid, ASingleCpuHasNoHyperThreading) {
  const auto guest = guest_cpuid(host(), {.cpus = 1}, 0);
  EXPECT_EQ(find(guest, 1)->edx & 1u << 28, 0u);
  EXPECT_NE(find(guest, 1)->ecx & 1u << 31, 0u) << "the hypervisor bit";
  EXPECT_EQ(find(guest, 1)->ecx & 1u << 24, 0u) << "no TSC deadline where KVM has none";
  EXPECT_NE(find(guest_cpuid(host(), {.cpus = 1, .tsc_deadline = true}, 0), 1)->ecx & 1u << 24, 0u);
}

TEST(Cpuid, TimingLeafGivesTheTscFrequency) {
  const auto guest = guest_cpuid(host(), {.cpus = 1, .tsc_khz = 2'400'000}, 0);
  ASSERT_NE(find(guest, 0x40000010), nullptr);
  EXPECT_EQ(find(guest, 0x40000010)->eax, 2'400'000u);
  EXPECT_EQ(find(guest, 0x40000000)->eax, 0x40000010u);
  EXPECT_EQ(find(guest_cpuid(host(), {.cpus = 1}, 0), 0x40000010), nullptr);
}

TEST(Cpuid, NoAvxWithoutXsave) {
  constexpr uint32_t kXsave = 1u << 26;
  const auto with_leaf1 = [](uint32_t ecx) {
    return std::vector<kvm_cpuid_entry2>{
        leaf(0, 0, 7, 0x756e6547, 0x6c65746e, 0x49656e69), leaf(1, 0, 0x906ea, 0, ecx, 0),
        leaf(7, 0, 1, 0xffffffff, 0xffffffff, 0xffffffff), leaf(7, 1, 0xffffffff, 0, 0, 0xffffffff),
        leaf(0x80000001, 0, 0, 0, 0xffffffff, 0),
    };
  };
  const auto without = guest_cpuid(with_leaf1(~kXsave), {.cpus = 1}, 0);
  EXPECT_EQ(find(without, 1)->ecx & (1u << 28 | 1u << 12 | 1u << 29), 0u) << "AVX, FMA, F16C";
  EXPECT_NE(find(without, 1)->ecx & 1u << 25, 0u) << "AES does without";
  EXPECT_EQ(find(without, 7)->ebx & (1u << 5 | 1u << 16 | 1u << 31), 0u) << "AVX2, AVX512F, AVX512VL";
  EXPECT_EQ(find(without, 7)->ebx & (1u << 3 | 1u << 8 | 1u << 29), 1u << 3 | 1u << 8 | 1u << 29)
      << "BMI1, BMI2 and SHA do without";
  EXPECT_EQ(find(without, 7)->ecx & (1u << 9 | 1u << 10), 0u) << "VAES, VPCLMULQDQ";
  EXPECT_EQ(find(without, 7, 1)->eax & 1u << 4, 0u) << "AVX-VNNI";
  EXPECT_EQ(find(without, 0x80000001)->ecx & (1u << 11 | 1u << 16), 0u) << "XOP, FMA4";
  const auto with = guest_cpuid(with_leaf1(~0u), {.cpus = 1}, 0);
  EXPECT_NE(find(with, 1)->ecx & 1u << 28, 0u);
  EXPECT_EQ(find(with, 7)->ebx, 0xffffffffu);
}

TEST(Kvm, SaysWhatIsWrongWithTheDevice) {
  OpenFailure failure{};
  const auto missing = Kvm::open("/nonexistent/kvm", &failure);
  ASSERT_FALSE(missing);
  EXPECT_EQ(failure, OpenFailure::kMissing);
  EXPECT_FALSE(missing.error().hint.empty());
  EXPECT_FALSE(Kvm::open("/dev/null", &failure));
  EXPECT_EQ(failure, OpenFailure::kWrongVersion);
}

}  // namespace
}  // namespace snug::kvm
