#include "vmm/shares/xattr_names.h"

#include <climits>

namespace snug {
namespace {

constexpr std::string_view kUser = "user.";
constexpr std::string_view kSecurity = "security.";
constexpr std::string_view kTrusted = "trusted.";
constexpr std::string_view kOurs = "user.snug.";
constexpr std::string_view kKept = "user.snug.x.";
constexpr size_t kLongest = 255;  // XATTR_NAME_MAX

bool is_kept(std::string_view name) { return name.starts_with(kSecurity) || name.starts_with(kTrusted); }

}  // namespace

Outcome<std::string> xattr_on_host(std::string_view name) {
  if (name.empty() || name.size() > kLongest) return refuse(ERANGE);
  if (name == kUser || name == kSecurity || name == kTrusted) return refuse(EINVAL);
  if (name.starts_with(kOurs)) return refuse(ENODATA);
  if (name.starts_with(kUser)) return std::string(name);
  if (!is_kept(name)) return refuse(EOPNOTSUPP);
  if (name.size() + kKept.size() > kLongest) return refuse(ERANGE);
  return std::string(kKept).append(name);
}

std::optional<std::string_view> xattr_in_guest(std::string_view name) {
  if (name.starts_with(kKept)) {
    const auto kept = name.substr(kKept.size());
    if (is_kept(kept)) return kept;
    return std::nullopt;
  }
  if (name.starts_with(kOurs) || !name.starts_with(kUser)) return std::nullopt;
  return name;
}

}  // namespace snug
