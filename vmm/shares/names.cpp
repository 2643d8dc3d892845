#include "vmm/shares/names.h"

#include <climits>

namespace snug {

Outcome<> check_name(std::string_view name) {
  if (name.empty() || name == "." || name == "..") return refuse(EINVAL);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return refuse(EINVAL);
  if (name.size() > NAME_MAX) return refuse(ENAMETOOLONG);
  return {};
}

}  // namespace snug
