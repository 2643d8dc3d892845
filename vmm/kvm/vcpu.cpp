#include "vmm/kvm/vcpu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <vector>

#include "vmm/base/checked.h"

namespace snug::kvm {
namespace {

constexpr uint32_t kMsrMiscEnable = 0x1a0;  // Intel SDM vol. 4: IA32_MISC_ENABLE
constexpr uint64_t kMiscEnableFastStrings = 1;
constexpr uint32_t kMsrMtrrDefType = 0x2ff;  // Intel SDM vol. 3A 12.11.2.1: IA32_MTRR_DEF_TYPE
constexpr uint64_t kMtrrEnableWriteBack = 1u << 11 | 6;

kvm_segment to_kvm(const SegmentState& state) {
  kvm_segment segment{};
  segment.base = state.base;
  segment.limit = state.limit;
  segment.selector = state.selector;
  const auto bits = [&state](int shift, int mask) {
    return static_cast<uint8_t>(state.type_attributes >> shift & mask);
  };
  segment.type = bits(0, 0xf);
  segment.s = bits(4, 1);
  segment.dpl = bits(5, 3);
  segment.present = bits(7, 1);
  segment.avl = bits(12, 1);
  segment.l = bits(13, 1);
  segment.db = bits(14, 1);
  segment.g = bits(15, 1);
  segment.unusable = segment.present == 0 ? 1 : 0;
  return segment;
}

}  // namespace

Result<std::unique_ptr<Vcpu>> Vcpu::create(const Vm& vm, uint32_t id) {
  UniqueFd fd(::ioctl(vm.fd(), KVM_CREATE_VCPU, id));
  if (!fd) return fail_errno(errno, "KVM_CREATE_VCPU {}", id);
  auto run = SNUG_TRY(
      with_context(Mapping::create(vm.kvm().run_area_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get()),
                   "vCPU run area"));
  std::unique_ptr<Vcpu> vcpu(new Vcpu(id, std::move(fd), std::move(run)));
  const size_t ring = vm.kvm().coalesced_ring_page() * kPageSize;
  if (vm.kvm().coalesces_writes() && range_within(ring, kPageSize, vcpu->run_.size()))
    vcpu->coalesced_ring_ = reinterpret_cast<kvm_coalesced_mmio_ring*>(vcpu->run_.data() + ring);
  return vcpu;
}

Result<void> Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) {
  std::vector<kvm_cpuid_entry2> buffer(entries.size() + 1);
  auto* table = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  table->nent = static_cast<uint32_t>(entries.size());
  std::copy(entries.begin(), entries.end(), table->entries);
  if (::ioctl(fd_.get(), KVM_SET_CPUID2, table) != 0) return fail_errno(errno, "KVM_SET_CPUID2");
  if (entries.data() != cpuid_.data()) cpuid_.assign(entries.begin(), entries.end());
  return {};
}

Result<void> Vcpu::set_boot_msrs() {
  struct Table {
    kvm_msrs head;
    kvm_msr_entry entry;
  };
  static_assert(offsetof(Table, entry) == offsetof(kvm_msrs, entries));
  for (const auto& [index, value] : {std::pair{kMsrMiscEnable, kMiscEnableFastStrings},
                                     std::pair{kMsrMtrrDefType, kMtrrEnableWriteBack}}) {
    Table table{};
    table.head.nmsrs = 1;
    table.entry = {.index = index, .reserved = 0, .data = value};
    // 0 entries set: this CPU has no such MSR, and its guests do without.
    if (::ioctl(fd_.get(), KVM_SET_MSRS, &table) < 0) return fail_errno(errno, "KVM_SET_MSRS");
  }
  return {};
}

Result<void> Vcpu::set_state(const CpuState& state) {
  kvm_sregs sregs{};
  if (::ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0) return fail_errno(errno, "KVM_GET_SREGS");
  sregs.cs = to_kvm(state.code);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = to_kvm(state.data);
  sregs.tr = to_kvm(state.task);
  sregs.gdt = {.base = state.gdt_base, .limit = state.gdt_limit, .padding = {}};
  sregs.idt = {.base = state.idt_base, .limit = state.idt_limit, .padding = {}};
  sregs.cr0 = state.cr0;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  if (::ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0) return fail_errno(errno, "KVM_SET_SREGS");
  kvm_regs regs{};
  regs.rip = state.rip;
  regs.rsp = state.rsp;
  regs.rbp = state.rsp;
  regs.rsi = state.rsi;
  regs.rbx = state.rbx;
  regs.rflags = state.rflags;
  if (::ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) return fail_errno(errno, "KVM_SET_REGS");
  return {};
}

Result<void> Vcpu::enable_local_apic() {
  constexpr size_t kSpuriousVector = 0xf0;
  constexpr uint32_t kEnabled = 0x1ff;
  kvm_lapic_state lapic{};
  if (::ioctl(fd_.get(), KVM_GET_LAPIC, &lapic) != 0) return fail_errno(errno, "KVM_GET_LAPIC");
  std::memcpy(lapic.regs + kSpuriousVector, &kEnabled, sizeof kEnabled);
  if (::ioctl(fd_.get(), KVM_SET_LAPIC, &lapic) != 0) return fail_errno(errno, "KVM_SET_LAPIC");
  return {};
}

void Vcpu::request_exit() { std::atomic_ref(run_area().immediate_exit).store(1); }
void Vcpu::clear_exit_request() { std::atomic_ref(run_area().immediate_exit).store(0); }

void Vcpu::forgive_pause() { ::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0); }

void Vcpu::complete_access() {
  request_exit();
  ::ioctl(fd_.get(), KVM_RUN, 0);
  clear_exit_request();
}

Exit Vcpu::run() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return decode_exit();
  switch (errno) {
    case EINTR:
    case EAGAIN:
      return InterruptedExit{};
    case EFAULT:
      return FailureExit{
          "the guest reached memory that the host cannot provide (out of memory, or a file that shrank)"};
    default:
      return FailureExit{"KVM_RUN: " + errno_text(errno)};
  }
}

Exit Vcpu::decode_exit() {
  kvm_run& run = run_area();
  switch (run.exit_reason) {
    case KVM_EXIT_IO: {
      const auto direction = run.io.direction == KVM_EXIT_IO_OUT ? Direction::kWrite : Direction::kRead;
      return PortExit{direction, run.io.port, run.io.size,
                      run_.bytes().subspan(run.io.data_offset, size_t{run.io.size} * run.io.count)};
    }
    case KVM_EXIT_MMIO: {
      const auto length = std::min<uint32_t>(run.mmio.len, sizeof run.mmio.data);
      return MmioExit{run.mmio.is_write ? Direction::kWrite : Direction::kRead, run.mmio.phys_addr,
                      std::as_writable_bytes(std::span(run.mmio.data)).first(length)};
    }
    case KVM_EXIT_INTR:
      return InterruptedExit{};
    case KVM_EXIT_HLT:
      return HaltExit{};
    case KVM_EXIT_SHUTDOWN:
      return ShutdownExit{};
    case KVM_EXIT_SYSTEM_EVENT:
      switch (run.system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
          return PowerOffExit{};
        case KVM_SYSTEM_EVENT_RESET:
          return ResetExit{};
        default:
          return FailureExit{fmt::format("KVM system event {}", run.system_event.type)};
      }
    case KVM_EXIT_FAIL_ENTRY:
      return FailureExit{fmt::format("the CPU refused to enter the guest (hardware reason {:#x})",
                                     static_cast<uint64_t>(run.fail_entry.hardware_entry_failure_reason))};
    case KVM_EXIT_INTERNAL_ERROR:
      return decode_internal_error();
    default:
      return FailureExit{fmt::format("KVM exit {} ({})", run.exit_reason, exit_reason_name(run.exit_reason))};
  }
}

FailureExit Vcpu::decode_internal_error() const {
  const kvm_run& run = run_area();
  std::string what;
  switch (run.internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      what = "KVM cannot emulate the guest's instruction";
      break;
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      what = "exceptions at the same time";
      break;
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      what = "an exit while an event was delivered";
      break;
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      what = "an exit that KVM does not know";
      break;
    default:
      what = fmt::format("internal error {}", run.internal.suberror);
      break;
  }
  const uint32_t count = std::min(run.internal.ndata, static_cast<uint32_t>(std::size(run.internal.data)));
  for (uint32_t i = 0; i < count; ++i)
    what += fmt::format("{}{:#x}", i == 0 ? " (data " : " ", static_cast<uint64_t>(run.internal.data[i]));
  if (count > 0) what += ")";
  return FailureExit{what};
}

std::optional<uint64_t> Vcpu::instruction_pointer() const {
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (::ioctl(fd_.get(), KVM_GET_REGS, &regs) != 0 || ::ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0)
    return std::nullopt;
  return sregs.cs.base + regs.rip;
}

std::optional<uint64_t> Vcpu::translate(uint64_t guest_virtual) const {
  kvm_translation translation{};
  translation.linear_address = guest_virtual;
  if (::ioctl(fd_.get(), KVM_TRANSLATE, &translation) != 0 || translation.valid == 0) return std::nullopt;
  return translation.physical_address;
}

uint32_t Vcpu::tsc_khz() const {
  const int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
  return khz > 0 ? static_cast<uint32_t>(khz) : 0;
}

std::string Vcpu::describe_registers() const {
  kvm_regs r{};
  kvm_sregs s{};
  if (::ioctl(fd_.get(), KVM_GET_REGS, &r) != 0 || ::ioctl(fd_.get(), KVM_GET_SREGS, &s) != 0) return {};
  const auto hex = [](uint64_t value) { return fmt::format("{:016x}", value); };
  return fmt::format(
      "rip {} rsp {} rbp {} rflags {:x}\nrax {} rbx {} rcx {} rdx {}\nrsi {} rdi {} r8  {} r9  {}\n"
      "r10 {} r11 {} r12 {} r13 {}\nr14 {} r15 {} efer {:x} apic_base {:x}\n"
      "cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x}\ncs {:x} base {:x} dpl {} {} ss {:x} gdt {:x}/{:x} idt {:x}/{:x}",
      hex(r.rip), hex(r.rsp), hex(r.rbp), static_cast<uint64_t>(r.rflags), hex(r.rax), hex(r.rbx), hex(r.rcx),
      hex(r.rdx), hex(r.rsi), hex(r.rdi), hex(r.r8), hex(r.r9), hex(r.r10), hex(r.r11), hex(r.r12),
      hex(r.r13), hex(r.r14), hex(r.r15), static_cast<uint64_t>(s.efer), static_cast<uint64_t>(s.apic_base),
      static_cast<uint64_t>(s.cr0), static_cast<uint64_t>(s.cr2), static_cast<uint64_t>(s.cr3),
      static_cast<uint64_t>(s.cr4), static_cast<unsigned>(s.cs.selector), static_cast<uint64_t>(s.cs.base),
      static_cast<unsigned>(s.cs.dpl),
      s.cs.l    ? "64-bit"
      : s.cs.db ? "32-bit"
                : "16-bit",
      static_cast<unsigned>(s.ss.selector), static_cast<uint64_t>(s.gdt.base),
      static_cast<unsigned>(s.gdt.limit), static_cast<uint64_t>(s.idt.base),
      static_cast<unsigned>(s.idt.limit));
}

}  // namespace snug::kvm
