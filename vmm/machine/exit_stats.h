// Counts of exits to user space. Each vCPU thread has its own and writes it alone; read after the join.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "vmm/kvm/exit.h"

namespace snug {

struct ExitStats {
  // A guest can choose among more addresses than there is memory to count them: those beyond this many, for
  // each map, count under kElsewhere.
  static constexpr size_t kMaxAddresses = 1024;
  static constexpr uint64_t kElsewhere = ~uint64_t{0};

  std::array<uint64_t, kvm::kExitReasons> by_reason{};
  std::map<uint32_t, uint64_t> port_reads;  // by port
  std::map<uint32_t, uint64_t> port_writes;
  std::map<uint64_t, uint64_t> mmio_reads;  // by gpa
  std::map<uint64_t, uint64_t> mmio_writes;
  uint64_t interrupted = 0;       // kicks and signals
  uint64_t coalesced_writes = 0;  // writes that needed no exit of their own: not in total()

  template <class Address>
  static void count(std::map<Address, uint64_t>& counts, uint64_t address) {
    const bool known = counts.size() < kMaxAddresses || counts.contains(static_cast<Address>(address));
    ++counts[static_cast<Address>(known ? address : kElsewhere)];
  }

  uint64_t total() const;
  void add(const ExitStats& other);
};

}  // namespace snug
