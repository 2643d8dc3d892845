#include "vmm/cli/manual/pages.h"

namespace snug::cli {

// Each file is one string literal.
// clang-format off
const std::string_view kSnugPage =
#include "vmm/cli/manual/snug.1.roff"
;
const std::string_view kSnugYamlPage =
#include "vmm/cli/manual/snug.yaml.5.roff"
;
// clang-format on

}  // namespace snug::cli
