// skopeo(1), which brings images from registries and from everything else that keeps some.
//
// Main thread.
#pragma once

#include <string>

#include "vmm/base/result.h"

namespace snug::oci {

// Copies an image into a layout (of its own, which is made), and its blobs into a folder of those of all.
// What it shows goes to stderr. Errors: it is not installed; what it said.
Result<void> copy_image(const std::string& source, const std::string& layout, const std::string& blobs);

// What skopeo has logged last, for a person: its lines are time="..." level=fatal msg="...".
std::string last_message(const std::string& log);

}  // namespace snug::oci
