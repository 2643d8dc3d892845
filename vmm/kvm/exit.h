// Why a vCPU came back from the guest, as values. The spans point into the vCPU's shared run area and are
// valid until the next Vcpu::run().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

namespace snug::kvm {

enum class Direction { kRead, kWrite };

// IN, OUT, INS, OUTS: `count` items of `size` bytes (1, 2, 4) one behind the other in `data`.
struct PortExit {
  Direction direction;
  uint16_t port;
  uint32_t size;
  std::span<std::byte> data;
};

// A load or store of 1 to 8 bytes that no memory slot took.
struct MmioExit {
  Direction direction;
  uint64_t gpa;
  std::span<std::byte> data;
};

struct InterruptedExit {};  // a kick or a signal
struct HaltExit {};         // HLT without an in-kernel interrupt chip
struct ShutdownExit {};     // triple fault
struct ResetExit {};        // a system event that asks for a reset
struct PowerOffExit {};     // a system event that asks for power-off

// KVM could not go on, or gave a reason that snug has no use for.
struct FailureExit {
  std::string what;
};

using Exit = std::variant<PortExit, MmioExit, InterruptedExit, HaltExit, ShutdownExit, ResetExit,
                          PowerOffExit, FailureExit>;

// The name of a KVM_EXIT_ reason for statistics: "IO", "MMIO", "HLT", ...; "UNKNOWN" for others.
const char* exit_reason_name(uint32_t reason);
constexpr uint32_t kExitReasons = 64;  // reasons are below this; higher ones are counted as the last

}  // namespace snug::kvm
