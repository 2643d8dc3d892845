// The state in which a boot protocol wants the first vCPU: plain values, no hypervisor's structures.
#pragma once

#include <cstdint>

namespace snug {

// A segment register with its hidden part. `type_attributes`: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L,
// 14 D/B, 15 G (the layout of AR bytes in the descriptor's upper half, shifted right by 8).
struct SegmentState {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;  // bytes, after granularity
  uint16_t type_attributes = 0;
};

struct CpuState {
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rsi = 0;  // Linux 64-bit: gpa of the zero page
  uint64_t rbx = 0;  // PVH: gpa of hvm_start_info
  uint64_t rflags = 2;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;
  uint64_t idt_base = 0;
  uint16_t idt_limit = 0;
  SegmentState code;
  SegmentState data;  // ds, es, fs, gs, ss
  SegmentState task;
};

}  // namespace snug
