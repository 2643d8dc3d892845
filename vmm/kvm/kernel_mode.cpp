#include "vmm/kvm/kernel_mode.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "vmm/base/checked.h"
#include "vmm/core/guest_memory.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace snug::kvm {
namespace {

// Native passes take well under a nanosecond (a few in a nested or translated host), emulated ones over a
// microsecond.
constexpr double kEmulatedAboveNs = 100;
constexpr uint32_t kPasses = 2000;
constexpr uint64_t kCode = 0x1000;

// 32-bit flat protected mode:  mov ecx, passes; 1: dec ecx; jnz 1b; out 0x80, al; hlt
std::array<uint8_t, 12> loop_code(uint32_t passes) {
  return {0xb9,
          static_cast<uint8_t>(passes),
          static_cast<uint8_t>(passes >> 8),
          0,
          0,
          0x49,
          0x75,
          0xfd,
          0xe6,
          0x80,
          0xf4,
          0xf4};
}

CpuState flat_protected_mode() {
  CpuState state;
  state.rip = kCode;
  state.cr0 = 0x11;  // PE, ET
  state.code = {.selector = 0x8, .base = 0, .limit = 0xffffffff, .type_attributes = 0xc09b};
  state.data = {.selector = 0x10, .base = 0, .limit = 0xffffffff, .type_attributes = 0xc093};
  state.task = {.selector = 0x18, .base = 0, .limit = 0x67, .type_attributes = 0x008b};
  return state;
}

using Nanoseconds = std::chrono::duration<double, std::nano>;

// The time that `passes` of the loop take, exit to user space included.
Result<Nanoseconds> time_loop(Vcpu& vcpu, const GuestMemory& memory, uint32_t passes) {
  const auto code = loop_code(passes);
  if (!memory.write(kCode, std::as_bytes(std::span(code)))) return fail("no memory for the code");
  SNUG_TRY(vcpu.set_state(flat_protected_mode()));
  const auto start = std::chrono::steady_clock::now();
  Exit exit = vcpu.run();
  while (std::holds_alternative<InterruptedExit>(exit)) exit = vcpu.run();
  const Nanoseconds elapsed = std::chrono::steady_clock::now() - start;
  if (!std::holds_alternative<PortExit>(exit))
    return fail("a short loop in kernel mode does not run on this KVM");
  vcpu.complete_access();
  return elapsed;
}

}  // namespace

Result<KernelModeProbe> probe_kernel_mode(const Kvm& kvm) {
  auto vm = SNUG_TRY(Vm::create(kvm));
  auto memory = SNUG_TRY(GuestMemory::create(kMiB));
  SNUG_TRY(vm->add_memory(memory));
  auto vcpu = SNUG_TRY(Vcpu::create(*vm, 0));
  // The first try pays for page faults and a busy machine spoils others: the best of each counts. The exit
  // itself is in both and falls out of the difference.
  Nanoseconds shortest{1e18};
  Nanoseconds longest{1e18};
  for (int attempt = 0; attempt < 3; ++attempt) {
    shortest = std::min(shortest, SNUG_TRY(time_loop(*vcpu, memory, 1)));
    longest = std::min(longest, SNUG_TRY(time_loop(*vcpu, memory, kPasses)));
  }
  const double ns = std::max(0.0, (longest - shortest).count() / kPasses);
  return KernelModeProbe{ns > kEmulatedAboveNs ? KernelMode::kEmulated : KernelMode::kNative, ns};
}

}  // namespace snug::kvm
