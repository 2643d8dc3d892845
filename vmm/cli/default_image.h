// The guest image that guest-images/build has prepared, used when a spec names no kernel.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/result.h"

namespace snug::cli {

struct DefaultImage {
  std::string kernel;
  std::vector<std::string> initrds;  // one behind the other
};

// ${XDG_CACHE_HOME:-~/.cache}/snug/default, links resolved. Errors: not prepared, with the command that does
// it.
Result<DefaultImage> find_default_image();

}  // namespace snug::cli
