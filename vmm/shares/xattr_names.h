// Extended attributes of the guest and what they are called on the host: its users' are the host's users',
// and what only its kernel or root may set lies below a name of ours. Nothing of the host's own security is
// seen.
//
// Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vmm/shares/outcome.h"

namespace snug {

inline constexpr char kCapability[] = "security.capability";
inline constexpr char kCapabilityOnHost[] = "user.snug.x.security.capability";

// ENODATA: one of ours, which the guest does not see. EOPNOTSUPP: a kind that is not kept. EINVAL: a
// kind and no name. ERANGE: too long.
Outcome<std::string> xattr_on_host(std::string_view guest_name);
// Nothing: not for the guest.
std::optional<std::string_view> xattr_in_guest(std::string_view host_name);

}  // namespace snug
