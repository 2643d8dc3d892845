// What a thread of the monitor is there for, and so what it may ask of the kernel (vmm/jail).
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

enum class ThreadKind : uint8_t {
  kVcpu,     // runs the guest
  kLoop,     // the event loop's own
  kDevice,   // the loop of a disk or network interface that has one, or a worker of a disk's thread pool
  kShare,    // in a process of its own: serves files to the guest
  kBuilder,  // makes the machine anew after the guest's reset
};
constexpr size_t kThreadKinds = 5;

// For people: "the monitor's ... thread".
constexpr const char* name(ThreadKind kind) {
  switch (kind) {
    case ThreadKind::kVcpu:
      return "vCPU";
    case ThreadKind::kLoop:
      return "event loop";
    case ThreadKind::kDevice:
      return "device";
    case ThreadKind::kShare:
      return "share";
    case ThreadKind::kBuilder:
      break;
  }
  return "builder";
}

}  // namespace snug
