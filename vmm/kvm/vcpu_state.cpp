#include "vmm/kvm/vcpu_state.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/base/log.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

constexpr uint16_t kVcpuVersion = 1;
constexpr uint16_t kVmVersion = 1;
constexpr size_t kXsaveMin = 4096;  // sizeof(kvm_xsave) without what grows
constexpr size_t kXsaveMax = size_t{1} << 20;
constexpr size_t kMsrsMax = 1024;
constexpr size_t kMsrsAtOnce = 64;
constexpr size_t kCpuidMax = 512;  // entries
constexpr uint64_t kTscTolerancePpm = 250;

constexpr uint32_t kMsrTsc = 0x10;           // Intel SDM vol. 4: IA32_TIME_STAMP_COUNTER
constexpr uint32_t kMsrTscDeadline = 0x6e0;  // IA32_TSC_DEADLINE

// Local APIC (Intel SDM vol. 3A, 11.5): the timer's entry of the vector table.
constexpr size_t kLvtTimer = 0x320;
constexpr uint32_t kLvtMasked = 1u << 16;
constexpr uint32_t kLvtModeMask = 3u << 17;
constexpr uint32_t kLvtDeadline = 2u << 17;

// Memory types (vol. 3A, 12.11), which KVM keeps and does not list.
std::vector<uint32_t> unlisted_msrs() {
  std::vector<uint32_t> all{0x2ff, 0x277, 0x250, 0x258, 0x259};
  for (uint32_t i = 0x268; i <= 0x26f; ++i) all.push_back(i);
  for (uint32_t i = 0x200; i <= 0x20f; ++i) all.push_back(i);
  return all;
}

// What a host may refuse to take back although it has told it, and what is lost with it: nothing that a guest
// would miss. (0x3a: locked features; 0x4b564d02, 0x4b564d04: asynchronous page faults, on KVMs without.)
constexpr std::array<uint32_t, 3> kMayBeRefused{0x3a, 0x4b564d02, 0x4b564d04};

template <class T>
Result<void> get(int fd, unsigned long request, const char* name, T& value) {
  if (::ioctl(fd, request, &value) != 0) return fail_errno(errno, "{}", name);
  return {};
}

template <class T>
Result<void> set(int fd, unsigned long request, const char* name, const T& value) {
  if (::ioctl(fd, request, &value) != 0) return fail_errno(errno, "{}", name);
  return {};
}

template <class T>
void put(SectionWriter& out, const T& value) {
  out.bytes(std::as_bytes(std::span(&value, 1)));
}

template <class T>
T take(SectionReader& in) {
  T value{};
  in.bytes(std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

// --- model-specific registers ----------------------------------------------------------------------------

using Msrs = std::vector<kvm_msr_entry>;

// A kvm_msrs with room behind it.
struct MsrTable {
  explicit MsrTable(std::span<const kvm_msr_entry> entries)
      : storage(sizeof(kvm_msrs) / sizeof(uint64_t) +
                entries.size() * sizeof(kvm_msr_entry) / sizeof(uint64_t)) {
    head()->nmsrs = static_cast<uint32_t>(entries.size());
    std::copy(entries.begin(), entries.end(), head()->entries);
  }
  kvm_msrs* head() { return reinterpret_cast<kvm_msrs*>(storage.data()); }
  std::vector<uint64_t> storage;
};

Result<std::vector<uint32_t>> listed_msrs(const Kvm& kvm) {
  kvm_msr_list none{};
  // Says E2BIG and how many there are.
  if (::ioctl(kvm.fd(), KVM_GET_MSR_INDEX_LIST, &none) != 0 && errno != E2BIG)
    return fail_errno(errno, "KVM_GET_MSR_INDEX_LIST");
  std::vector<uint32_t> storage(1 + none.nmsrs);
  auto* list = reinterpret_cast<kvm_msr_list*>(storage.data());
  list->nmsrs = none.nmsrs;
  if (::ioctl(kvm.fd(), KVM_GET_MSR_INDEX_LIST, list) != 0)
    return fail_errno(errno, "KVM_GET_MSR_INDEX_LIST");
  std::vector<uint32_t> all(list->indices, list->indices + list->nmsrs);
  for (const uint32_t index : unlisted_msrs())
    if (std::ranges::find(all, index) == all.end()) all.push_back(index);
  return all;
}

// Those of them that this vCPU has.
Result<Msrs> read_msrs(int fd, const std::vector<uint32_t>& indexes) {
  Msrs known;
  for (size_t at = 0; at < indexes.size();) {
    Msrs part;
    for (size_t i = at; i < std::min(indexes.size(), at + kMsrsAtOnce); ++i)
      part.push_back({.index = indexes[i], .reserved = 0, .data = 0});
    MsrTable table(part);
    const int count = ::ioctl(fd, KVM_GET_MSRS, table.head());
    if (count < 0) return fail_errno(errno, "KVM_GET_MSRS");
    known.insert(known.end(), table.head()->entries, table.head()->entries + count);
    // It stops at the first that there is not.
    at += static_cast<size_t>(count) + (static_cast<size_t>(count) < part.size() ? 1 : 0);
  }
  return known;
}

Result<uint64_t> read_msr(int fd, uint32_t index) {
  const auto values = SNUG_TRY(read_msrs(fd, {index}));
  if (values.empty()) return fail("MSR {:#x} is not there", index);
  return values.front().data;
}

Result<void> write_msrs(int fd, const Msrs& msrs) {
  for (size_t at = 0; at < msrs.size();) {
    const auto part = std::span(msrs).subspan(at, std::min(kMsrsAtOnce, msrs.size() - at));
    MsrTable table(part);
    const int count = ::ioctl(fd, KVM_SET_MSRS, table.head());
    if (count < 0) return fail_errno(errno, "KVM_SET_MSRS");
    at += static_cast<size_t>(count);
    if (static_cast<size_t>(count) == part.size()) continue;
    // One that cannot be written, and has the value that it should have, is as good as written.
    const kvm_msr_entry& refused = msrs[at++];
    const auto there = read_msr(fd, refused.index);
    const uint64_t wanted = refused.data;
    if (there && *there == wanted) continue;
    if (std::ranges::count(kMayBeRefused, refused.index) == 0)
      return fail_with_hint(
          fmt::format("this host's KVM does not take {:#x} for MSR {:#x}", wanted, uint32_t{refused.index}),
          "restore it on the host, and with the kernel, that it was made on");
    log_debug("MSR {:#x}: not restored", uint32_t{refused.index});
  }
  return {};
}

// --- the time-stamp counter ------------------------------------------------------------------------------

kvm_device_attr tsc_offset_attribute(uint64_t& offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  return attribute;
}

// From the host's counter to the guest's. False: this KVM does not tell.
bool read_tsc_offset(int fd, uint64_t& offset) {
  const kvm_device_attr attribute = tsc_offset_attribute(offset);
  return ::ioctl(fd, KVM_GET_DEVICE_ATTR, &attribute) == 0;
}

bool write_tsc_offset(int fd, uint64_t offset) {
  const kvm_device_attr attribute = tsc_offset_attribute(offset);
  return ::ioctl(fd, KVM_SET_DEVICE_ATTR, &attribute) == 0;
}

// --- a vCPU ----------------------------------------------------------------------------------------------

struct VcpuState {
  kvm_mp_state mp_state{};
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_debugregs debug{};
  kvm_xcrs xcrs{};
  kvm_lapic_state lapic{};
  kvm_vcpu_events events{};
  std::vector<std::byte> xsave;
  Msrs msrs;  // but for the counter and its deadline
  uint32_t tsc_khz = 0;
  uint64_t tsc = 0;
  bool has_offset = false;
  uint64_t tsc_offset = 0;
  bool has_deadline = false;
  uint64_t tsc_deadline = 0;
  std::vector<kvm_cpuid_entry2> cpuid;
};

size_t xsave_size(const Vm& vm) {
  const int size = ::ioctl(vm.fd(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  return std::max(kXsaveMin, size > 0 ? static_cast<size_t>(size) : 0);
}

// A timer that has fired, whose interrupt the local APIC does not have yet, shows no more than that it is not
// armed: it fires once more after the restore. A guest that had no timer armed has one interrupt too many.
void keep_expired_timer(VcpuState& state) {
  uint32_t entry = 0;
  std::memcpy(&entry, state.lapic.regs + kLvtTimer, sizeof entry);
  const bool armed_by_deadline = (entry & kLvtModeMask) == kLvtDeadline && (entry & kLvtMasked) == 0;
  if (state.has_deadline && armed_by_deadline && state.tsc_deadline == 0) state.tsc_deadline = state.tsc;
}

Result<VcpuState> read_vcpu(const Vm& vm, const Vcpu& vcpu, const std::vector<uint32_t>& listed) {
  const int fd = vcpu.fd();
  VcpuState state;
  // First: to tell it, KVM may change what the local APIC has pending.
  SNUG_TRY(get(fd, KVM_GET_MP_STATE, "KVM_GET_MP_STATE", state.mp_state));
  SNUG_TRY(get(fd, KVM_GET_REGS, "KVM_GET_REGS", state.regs));
  SNUG_TRY(get(fd, KVM_GET_SREGS, "KVM_GET_SREGS", state.sregs));
  state.xsave.resize(xsave_size(vm));
  if (state.xsave.size() > kXsaveMin) {
    SNUG_TRY(get(fd, KVM_GET_XSAVE2, "KVM_GET_XSAVE2", *state.xsave.data()));
  } else {
    SNUG_TRY(get(fd, KVM_GET_XSAVE, "KVM_GET_XSAVE", *state.xsave.data()));
  }
  SNUG_TRY(get(fd, KVM_GET_XCRS, "KVM_GET_XCRS", state.xcrs));
  SNUG_TRY(get(fd, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", state.debug));
  SNUG_TRY(get(fd, KVM_GET_LAPIC, "KVM_GET_LAPIC", state.lapic));
  state.tsc_khz = vcpu.tsc_khz();
  state.has_offset = read_tsc_offset(fd, state.tsc_offset);
  for (const kvm_msr_entry& msr : SNUG_TRY(read_msrs(fd, listed))) {
    if (msr.index == kMsrTsc) {
      state.tsc = msr.data;
    } else if (msr.index == kMsrTscDeadline) {
      state.has_deadline = true;
      state.tsc_deadline = msr.data;
    } else {
      state.msrs.push_back(msr);
    }
  }
  keep_expired_timer(state);
  SNUG_TRY(get(fd, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", state.events));
  const auto cpuid = vcpu.cpuid();
  state.cpuid.assign(cpuid.begin(), cpuid.end());
  return state;
}

void write_section(const VcpuState& state, SectionWriter& out) {
  put(out, state.mp_state);
  put(out, state.regs);
  put(out, state.sregs);
  put(out, state.debug);
  put(out, state.xcrs);
  put(out, state.lapic);
  put(out, state.events);
  out.blob(state.xsave);
  out.number(static_cast<uint32_t>(state.msrs.size()));
  for (const kvm_msr_entry& msr : state.msrs) {
    out.number(uint32_t{msr.index});
    out.number(uint64_t{msr.data});
  }
  out.number(state.tsc_khz);
  out.number(state.tsc);
  out.flag(state.has_offset);
  out.number(state.tsc_offset);
  out.flag(state.has_deadline);
  out.number(state.tsc_deadline);
  out.number(static_cast<uint32_t>(state.cpuid.size()));
  for (const kvm_cpuid_entry2& entry : state.cpuid) put(out, entry);
}

Result<VcpuState> read_section(SectionReader& in) {
  VcpuState state;
  state.mp_state = take<kvm_mp_state>(in);
  state.regs = take<kvm_regs>(in);
  state.sregs = take<kvm_sregs>(in);
  state.debug = take<kvm_debugregs>(in);
  state.xcrs = take<kvm_xcrs>(in);
  state.lapic = take<kvm_lapic_state>(in);
  state.events = take<kvm_vcpu_events>(in);
  const auto xsave = in.blob(kXsaveMax);
  state.xsave.assign(xsave.begin(), xsave.end());
  state.msrs.resize(in.number_to<uint32_t>(kMsrsMax));
  for (kvm_msr_entry& msr : state.msrs) {
    msr.index = in.number<uint32_t>();
    msr.data = in.number<uint64_t>();
  }
  state.tsc_khz = in.number<uint32_t>();
  state.tsc = in.number<uint64_t>();
  state.has_offset = in.flag();
  state.tsc_offset = in.number<uint64_t>();
  state.has_deadline = in.flag();
  state.tsc_deadline = in.number<uint64_t>();
  state.cpuid.resize(in.number_to<uint32_t>(kCpuidMax));
  for (kvm_cpuid_entry2& entry : state.cpuid) entry = take<kvm_cpuid_entry2>(in);
  SNUG_TRY(in.finish());
  return state;
}

// --- what this host can have -------------------------------------------------------------------------------

// The guest goes on with what it has found out about its CPU.
Result<void> check_cpuid(const VcpuState& state, const Vcpu& vcpu) {
  const kvm_cpuid_entry2* entry = first_difference(state.cpuid, vcpu.cpuid());
  if (entry == nullptr) return {};
  return fail_with_hint(
      fmt::format("this host gives its guests another CPU than the machine had (CPUID {:#x}, {:#x})",
                  uint32_t{entry->function}, uint32_t{entry->index}),
      "restore it on a host with the same CPU and kernel");
}

Result<void> restore_frequency(const VcpuState& state, const Vcpu& vcpu) {
  const uint64_t here = vcpu.tsc_khz();
  const uint64_t there = state.tsc_khz;
  const uint64_t difference = here > there ? here - there : there - here;
  if (there == 0 || difference * 1'000'000 <= there * kTscTolerancePpm) return {};
  if (::ioctl(vcpu.fd(), KVM_SET_TSC_KHZ, there) == 0) return {};
  return fail_with_hint(
      fmt::format("the machine's time-stamp counter has {} kHz, this host's {}, and it cannot "
                  "be scaled here",
                  there, here),
      "restore it on the host that it was made on");
}

// All but time, and events, which come last.
Result<void> restore_registers(const Vm& vm, VcpuState& state, Vcpu& vcpu) {
  const int fd = vcpu.fd();
  SNUG_TRY(check_cpuid(state, vcpu));
  SNUG_TRY(vcpu.set_cpuid(state.cpuid));
  SNUG_TRY(restore_frequency(state, vcpu));
  SNUG_TRY(set(fd, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", state.mp_state));
  SNUG_TRY(set(fd, KVM_SET_REGS, "KVM_SET_REGS", state.regs));
  SNUG_TRY(set(fd, KVM_SET_SREGS, "KVM_SET_SREGS", state.sregs));
  const size_t size = xsave_size(vm);
  if (state.xsave.size() < kXsaveMin || state.xsave.size() > size)
    return fail("the machine's registers have {} bytes, this host's {}", state.xsave.size(), size);
  state.xsave.resize(size);
  SNUG_TRY(set(fd, KVM_SET_XSAVE, "KVM_SET_XSAVE", *state.xsave.data()));
  // A CPU without XSAVE has none, and does not take so many.
  if (state.xcrs.nr_xcrs > 0) SNUG_TRY(set(fd, KVM_SET_XCRS, "KVM_SET_XCRS", state.xcrs));
  SNUG_TRY(set(fd, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", state.debug));
  SNUG_TRY(set(fd, KVM_SET_LAPIC, "KVM_SET_LAPIC", state.lapic));
  return write_msrs(fd, state.msrs);
}

Result<void> write_tsc(int fd, uint64_t tsc) {
  return write_msrs(fd, {{.index = kMsrTsc, .reserved = 0, .data = tsc}});
}

// The first one's counter goes on from where it was; the others keep their distance to it, to the tick: one
// after the other, each would be late by the time that it took.
Result<void> restore_time(const std::vector<VcpuState>& states,
                          const std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  const VcpuState& first = states.front();
  uint64_t offset = 0;
  for (size_t i = 0; i < vcpus.size(); ++i) {
    const int fd = vcpus[i]->fd();
    const bool exact = i > 0 && first.has_offset && states[i].has_offset &&
                       read_tsc_offset(vcpus.front()->fd(), offset) &&
                       write_tsc_offset(fd, offset + (states[i].tsc_offset - first.tsc_offset));
    if (!exact) SNUG_TRY(write_tsc(fd, states[i].tsc));
  }
  return {};
}

}  // namespace

Result<void> save_vcpus(const Vm& vm, const std::vector<const Vcpu*>& vcpus, StateWriter& state) {
  const auto listed = SNUG_TRY(listed_msrs(vm.kvm()));
  for (const Vcpu* vcpu : vcpus) {
    const std::string name = fmt::format("vcpu{}", vcpu->id());
    write_section(SNUG_TRY(with_context(read_vcpu(vm, *vcpu, listed), name)),
                  state.section(name, kVcpuVersion));
  }
  return {};
}

Result<void> restore_vcpus(const Vm& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus,
                           StateReader& state) {
  std::vector<VcpuState> states;
  for (const auto& vcpu : vcpus) {
    const std::string name = fmt::format("vcpu{}", vcpu->id());
    auto section = SNUG_TRY(state.section(name, kVcpuVersion));
    states.push_back(SNUG_TRY(read_section(section)));
    SNUG_TRY(with_context(restore_registers(vm, states.back(), *vcpu), name));
  }
  SNUG_TRY(restore_time(states, vcpus));
  for (size_t i = 0; i < vcpus.size(); ++i) {
    const int fd = vcpus[i]->fd();
    const std::string name = fmt::format("vcpu{}", i);
    // Behind the counter that it is compared with, and the local APIC, without which it is dropped.
    if (states[i].has_deadline)
      SNUG_TRY(with_context(
          write_msrs(fd, {{.index = kMsrTscDeadline, .reserved = 0, .data = states[i].tsc_deadline}}), name));
    SNUG_TRY(with_context(set(fd, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", states[i].events), name));
    // In time for the guest's watchdogs, which look as soon as it runs.
    vcpus[i]->forgive_pause();
  }
  return {};
}

// --- the VM
// --------------------------------------------------------------------------------------------------

Result<void> save_vm(const Vm& vm, StateWriter& state) {
  SectionWriter& chips = state.section("interrupts", kVmVersion);
  for (const uint32_t id : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC}) {
    kvm_irqchip chip{};
    chip.chip_id = id;
    SNUG_TRY(get(vm.fd(), KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP", chip));
    put(chips, chip.chip);
  }
  kvm_clock_data clock{};
  SNUG_TRY(get(vm.fd(), KVM_GET_CLOCK, "KVM_GET_CLOCK", clock));
  state.section("clock", kVmVersion).number(uint64_t{clock.clock});
  return {};
}

Result<void> restore_vm(const Vm& vm, StateReader& state) {
  auto chips = SNUG_TRY(state.section("interrupts", kVmVersion));
  std::array<kvm_irqchip, 3> all{};
  uint32_t id = 0;
  for (kvm_irqchip& chip : all) {
    chip.chip_id = id++;
    chip.chip = take<decltype(chip.chip)>(chips);
  }
  SNUG_TRY(chips.finish());
  for (const kvm_irqchip& chip : all) SNUG_TRY(set(vm.fd(), KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP", chip));
  auto saved = SNUG_TRY(state.section("clock", kVmVersion));
  kvm_clock_data clock{};
  clock.clock = saved.number<uint64_t>();
  SNUG_TRY(saved.finish());
  // Without the host's time of day: the guest's clock would leap by the time that it lay on a disk.
  return set(vm.fd(), KVM_SET_CLOCK, "KVM_SET_CLOCK", clock);
}

}  // namespace snug::kvm
