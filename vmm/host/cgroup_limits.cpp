#include "vmm/host/cgroup_limits.h"

#include <fmt/format.h>

#include "vmm/spec/limits.h"

namespace snug {
namespace {

// The kernel's own choice: the shorter, the smoother and the dearer.
constexpr uint64_t kPeriodUs = 100'000;

CgroupLimit cpu_limit(uint32_t thousandths) {
  return {.key = "cpu",
          .controller = "cpu",
          .file = "cpu.max",
          .value = fmt::format("{} {}", thousandths * kPeriodUs / 1000, kPeriodUs),
          .property = "CPUQuotaPerSecUSec",
          .property_value = uint64_t{thousandths} * 1000};
}

// No memory.high below it: what is beyond that is slowed down rather than ended, and guest memory cannot be
// given back but to swap: a guest that stands still tells nobody why.
CgroupLimit memory_limit(uint64_t bytes) {
  return {.key = "memory",
          .controller = "memory",
          .file = "memory.max",
          .value = std::to_string(bytes),
          .property = "MemoryMax",
          .property_value = bytes};
}

CgroupLimit io_weight(uint32_t weight) {
  return {.key = "io_weight",
          .controller = "io",
          .file = "io.weight",
          .value = fmt::format("default {}", weight),
          .property = "IOWeight",
          .property_value = weight};
}

}  // namespace

CgroupLimits cgroup_limits(const Spec& spec) {
  return {.cpu = spec.limits.cpu, .memory = memory_max(spec), .io_weight = spec.limits.io_weight};
}

std::vector<CgroupLimit> list_limits(const CgroupLimits& limits) {
  std::vector<CgroupLimit> list;
  if (limits.cpu) list.push_back(cpu_limit(*limits.cpu));
  if (limits.memory) list.push_back(memory_limit(*limits.memory));
  if (limits.io_weight) list.push_back(io_weight(*limits.io_weight));
  return list;
}

std::vector<CgroupLimit> all_limits() { return list_limits({.cpu = 0, .memory = 0, .io_weight = 0}); }

}  // namespace snug
