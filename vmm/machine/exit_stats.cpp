#include "vmm/machine/exit_stats.h"

#include <numeric>

namespace snug {

uint64_t ExitStats::total() const { return std::accumulate(by_reason.begin(), by_reason.end(), interrupted); }

void ExitStats::add(const ExitStats& other) {
  const auto merge = [](auto& into, const auto& from) {
    for (const auto& [key, count] : from) into[key] += count;
  };
  for (size_t i = 0; i < by_reason.size(); ++i) by_reason[i] += other.by_reason[i];
  merge(port_reads, other.port_reads);
  merge(port_writes, other.port_writes);
  merge(mmio_reads, other.mmio_reads);
  merge(mmio_writes, other.mmio_writes);
  interrupted += other.interrupted;
  coalesced_writes += other.coalesced_writes;
}

}  // namespace snug
