#include "vmm/base/result.h"

#include <system_error>

namespace snug {

std::string errno_text(int error_number) { return std::generic_category().message(error_number); }

}  // namespace snug
