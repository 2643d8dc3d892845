#include "vmm/kvm/cpuid.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmm/kvm/kvm.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

using Entry = kvm_cpuid_entry2;

constexpr uint32_t kHypervisorBase = 0x40000000;
constexpr uint32_t kTimingLeaf = 0x40000010;  // EAX: TSC kHz, EBX: local APIC timer kHz
constexpr uint32_t kApicBusKhz = 1'000'000;   // KVM's APIC bus cycle is 1 ns

// Bits needed to number `count` things.
uint32_t id_width(uint32_t count) { return static_cast<uint32_t>(std::bit_width(count - 1)); }

uint32_t with_bits(uint32_t value, uint32_t shift, uint32_t width, uint32_t bits) {
  const uint32_t mask = ((width < 32 ? uint32_t{1} << width : 0) - 1) << shift;
  return (value & ~mask) | ((bits << shift) & mask);
}

void patch_features(Entry& leaf1, const CpuTopology& topology, uint32_t apic_id) {
  constexpr uint32_t kEcxTscDeadline = 1u << 24;
  constexpr uint32_t kEcxHypervisor = 1u << 31;
  constexpr uint32_t kEdxHtt = 1u << 28;
  leaf1.ebx = with_bits(leaf1.ebx, 24, 8, apic_id);
  leaf1.ebx = with_bits(leaf1.ebx, 16, 8, 1u << id_width(topology.cpus));
  leaf1.ecx |= kEcxHypervisor;
  if (topology.tsc_deadline) leaf1.ecx |= kEcxTscDeadline;
  leaf1.edx = topology.cpus > 1 ? leaf1.edx | kEdxHtt : leaf1.edx & ~kEdxHtt;
}

// Intel's cache parameters: how many APIC ids share the cache, how many the package has.
void patch_intel_caches(Entry& leaf4, const CpuTopology& topology) {
  constexpr uint32_t kLevelShift = 5;
  constexpr uint32_t kLastLevel = 3;
  const uint32_t ids = 1u << id_width(topology.cpus);
  const uint32_t level = (leaf4.eax >> kLevelShift) & 7;
  leaf4.eax = with_bits(leaf4.eax, 26, 6, ids - 1);
  leaf4.eax = with_bits(leaf4.eax, 14, 12, level >= kLastLevel ? ids - 1 : 0);
}

void patch_amd_caches(Entry& leaf, const CpuTopology& topology) {
  const uint32_t level = (leaf.eax >> 5) & 7;
  leaf.eax = with_bits(leaf.eax, 14, 12, level >= 3 ? topology.cpus - 1 : 0);
}

// x2APIC topology: level 0 one thread per core, level 1 all cores of the one package.
void append_topology(std::vector<Entry>& entries, uint32_t function, const CpuTopology& topology,
                     uint32_t apic_id) {
  constexpr uint32_t kSmt = 1, kCore = 2, kInvalid = 0;
  const auto level = [&](uint32_t index, uint32_t type, uint32_t shift, uint32_t count) {
    Entry entry{};
    entry.function = function;
    entry.index = index;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = shift;
    entry.ebx = count;
    entry.ecx = index | type << 8;
    entry.edx = apic_id;
    entries.push_back(entry);
  };
  level(0, kSmt, 0, 1);
  level(1, kCore, id_width(topology.cpus), topology.cpus);
  level(2, kInvalid, 0, 0);
}

void patch(Entry& entry, const CpuTopology& topology, uint32_t apic_id) {
  switch (entry.function) {
    case 0x1:
      patch_features(entry, topology, apic_id);
      break;
    case 0x4:
      patch_intel_caches(entry, topology);
      break;
    case 0x80000001: {
      constexpr uint32_t kEcxCmpLegacy = 1u << 1;
      entry.ecx = topology.cpus > 1 ? entry.ecx | kEcxCmpLegacy : entry.ecx & ~kEcxCmpLegacy;
      break;
    }
    case 0x80000008:  // ECX: APIC id width, number of cores less one
      entry.ecx = with_bits(entry.ecx, 12, 4, id_width(topology.cpus));
      entry.ecx = with_bits(entry.ecx, 0, 8, topology.cpus - 1);
      break;
    case 0x8000001d:
      patch_amd_caches(entry, topology);
      break;
    case 0x8000001e:  // EAX: APIC id; EBX: core id, one thread per core; ECX: node 0 of 1
      entry.eax = apic_id;
      entry.ebx = apic_id & 0xff;
      entry.ecx = 0;
      break;
    default:
      break;
  }
}

// Without XSAVE nobody can switch on the registers of AVX and what came after it (Intel SDM vol. 1, 14.3).
// KVM reports such instructions as its own CPU does, even where the host's kernel has no XSAVE; Linux guests
// then use them in kernel mode, and die of invalid opcodes.
void drop_what_needs_xsave(std::vector<Entry>& entries) {
  constexpr uint32_t kEcxXsave = 1u << 26;
  constexpr uint32_t kFma = 1u << 12, kAvx = 1u << 28, kF16c = 1u << 29;
  constexpr uint32_t kXop = 1u << 11, kFma4 = 1u << 16;
  // Leaf 7: AVX2, the parts of AVX-512, VAES, VPCLMULQDQ, AMX; then AVX-VNNI, AVX-IFMA, AVX10 and the like.
  constexpr uint32_t kLeaf7Ebx = 0xdc230020, kLeaf7Ecx = 0x00005e42, kLeaf7Edx = 0x03c0010c;
  constexpr uint32_t kLeaf71Eax = 0x00a00030, kLeaf71Edx = 0x00080130;
  const auto leaf1 =
      std::find_if(entries.begin(), entries.end(), [](const Entry& entry) { return entry.function == 1; });
  if (leaf1 == entries.end() || (leaf1->ecx & kEcxXsave) != 0) return;
  leaf1->ecx &= ~(kFma | kAvx | kF16c);
  for (Entry& entry : entries) {
    if (entry.function == 7 && entry.index == 0) {
      entry.ebx &= ~kLeaf7Ebx;
      entry.ecx &= ~kLeaf7Ecx;
      entry.edx &= ~kLeaf7Edx;
    }
    if (entry.function == 7 && entry.index == 1) {
      entry.eax &= ~kLeaf71Eax;
      entry.edx &= ~kLeaf71Edx;
    }
    if (entry.function == 0x80000001) entry.ecx &= ~(kXop | kFma4);
  }
}

bool is_topology_leaf(uint32_t function) { return function == 0xb || function == 0x1f; }

void append_timing(std::vector<Entry>& entries, const CpuTopology& topology) {
  const auto base = std::find_if(entries.begin(), entries.end(),
                                 [](const Entry& entry) { return entry.function == kHypervisorBase; });
  if (base == entries.end() || topology.tsc_khz == 0) return;
  base->eax = std::max(base->eax, kTimingLeaf);
  std::erase_if(entries, [](const Entry& entry) { return entry.function == kTimingLeaf; });
  Entry timing{};
  timing.function = kTimingLeaf;
  timing.eax = topology.tsc_khz;
  timing.ebx = kApicBusKhz;
  entries.push_back(timing);
}

}  // namespace

Result<std::vector<Entry>> supported_cpuid(const Kvm& kvm) {
  constexpr size_t kMaxEntries = 256;
  static_assert(sizeof(kvm_cpuid2) <= sizeof(Entry));
  // The table behind the header, in units of entries.
  std::vector<Entry> buffer(kMaxEntries + 1);
  auto* table = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  table->nent = kMaxEntries;
  if (::ioctl(kvm.fd(), KVM_GET_SUPPORTED_CPUID, table) != 0)
    return fail_errno(errno, "KVM_GET_SUPPORTED_CPUID");
  return std::vector<Entry>(table->entries, table->entries + table->nent);
}

std::vector<Entry> guest_cpuid(std::span<const Entry> supported, const CpuTopology& topology,
                               uint32_t apic_id) {
  std::vector<Entry> entries;
  entries.reserve(supported.size() + 8);
  bool has_topology = false;
  for (const Entry& original : supported) {
    if (is_topology_leaf(original.function)) {
      has_topology = true;
      continue;
    }
    Entry entry = original;
    patch(entry, topology, apic_id);
    entries.push_back(entry);
  }
  const auto leaf0 =
      std::find_if(entries.begin(), entries.end(), [](const Entry& entry) { return entry.function == 0; });
  if (leaf0 != entries.end() && (has_topology || leaf0->eax >= 0xb)) {
    append_topology(entries, 0xb, topology, apic_id);
    if (leaf0->eax >= 0x1f) append_topology(entries, 0x1f, topology, apic_id);
  }
  append_timing(entries, topology);
  drop_what_needs_xsave(entries);
  return entries;
}

namespace {

// Leaves that tell the counter's frequency (Intel SDM vol. 2A, CPUID: 15H, 16H; 40000010H of hypervisors):
// hosts measure it anew at each boot.
bool is_of_frequency(const Entry& entry) {
  return entry.function == 0x15 || entry.function == 0x16 || entry.function == kTimingLeaf;
}

bool same_leaf(const Entry& a, const Entry& b) {
  return a.function == b.function && a.index == b.index && a.eax == b.eax && a.ebx == b.ebx &&
         a.ecx == b.ecx && a.edx == b.edx;
}

}  // namespace

const Entry* first_difference(std::span<const Entry> wanted, std::span<const Entry> here) {
  for (const Entry& entry : wanted)
    if (!is_of_frequency(entry) &&
        std::ranges::none_of(here, [&](const Entry& own) { return same_leaf(own, entry); }))
      return &entry;
  return nullptr;
}

Result<std::vector<Entry>> host_cpuid(const Kvm& kvm) {
  const auto supported = SNUG_TRY(supported_cpuid(kvm));
  return guest_cpuid(supported, {.tsc_deadline = kvm.has_tsc_deadline()}, 0);
}

uint32_t physical_bits(std::span<const kvm_cpuid_entry2> entries) {
  for (const kvm_cpuid_entry2& entry : entries)
    if (entry.function == 0x80000008) return entry.eax & 0xff;
  return 36;
}

std::string cpuid_vendor(std::span<const Entry> entries) {
  for (const Entry& entry : entries) {
    if (entry.function != 0) continue;
    std::string vendor(12, '\0');
    std::memcpy(vendor.data(), &entry.ebx, 4);
    std::memcpy(vendor.data() + 4, &entry.edx, 4);
    std::memcpy(vendor.data() + 8, &entry.ecx, 4);
    return vendor;
  }
  return {};
}

}  // namespace snug::kvm
