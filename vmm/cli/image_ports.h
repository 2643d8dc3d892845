// The ports that an image exposes, as ones to be published. Any thread.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/spec/spec.h"

namespace snug::cli {

// Into `ports` of the spec: each of those that an image exposes ("80/tcp", "53/udp", "8080") that the spec
// does not publish. Others are left out, with a warning. Errors: too many.
Result<void> publish_exposed(const std::vector<std::string>& exposed, Spec& spec);

}  // namespace snug::cli
