// skopeo(1), which brings images from registries and from everything else that keeps some.
//
// Main thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/oci/held_signals.h"

namespace snug::oci {

// How far an image is on its way.
struct PullProgress {
  size_t begun = 0;    // layers of which skopeo has said that it brings them
  size_t done = 0;     // blobs that are here now and were not: layers, and at last what describes them
  uint64_t bytes = 0;  // of those, and of the ones that are still coming
};
// A few times a second. May be empty.
using PullCallback = std::function<void(const PullProgress&)>;

struct CopyRequest {
  std::string source;
  std::string layout;  // of its own, which is made
  std::string blobs;   // the folder of those of all images
  // Nothing has come for so long: it is given up.
  std::chrono::milliseconds patience = std::chrono::minutes(5);
};

// Copies an image into a layout, and its blobs where those of all are. skopeo ends when we do, however that
// is. Errors: it is not installed; what it said; nothing comes; a signal of `signals` has come.
Result<void> copy_image(const CopyRequest& request, HeldSignals& signals, const PullCallback& progress);

// The configuration of an image as it is where it comes from: a copy is one of the OCI specification, which
// has no place for all that docker's has. Errors: as copy_image().
Result<std::string> original_config(const std::string& source, HeldSignals& signals);

// What skopeo has logged last, for a person: its lines are time="..." level=fatal msg="...".
std::string last_message(const std::string& log);

}  // namespace snug::oci
