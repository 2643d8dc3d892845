// What a control group can be limited in, by the names of a spec, of the kernel and of systemd.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/spec.h"

namespace snug {

struct CgroupLimits {
  std::optional<uint32_t> cpu;     // thousandths of a processor's time
  std::optional<uint64_t> memory;  // bytes
  std::optional<uint32_t> io_weight;
  bool any() const { return cpu || memory || io_weight; }
};

CgroupLimits cgroup_limits(const Spec& spec);

// One of them, as it is asked for.
struct CgroupLimit {
  std::string_view key;         // of the spec: "io_weight"
  std::string_view controller;  // of the kernel: "io"
  std::string_view file;        // in the group's folder: "io.weight"
  std::string value;            // what the file takes
  std::string_view property;    // of systemd: "IOWeight"
  uint64_t property_value = 0;
};

// Those that are asked for.
std::vector<CgroupLimit> list_limits(const CgroupLimits& limits);

// Each that there is, for its names.
std::vector<CgroupLimit> all_limits();

}  // namespace snug
