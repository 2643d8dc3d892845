// Access control lists as Linux has them in the attributes system.posix_acl_access and
// system.posix_acl_default (linux/posix_acl_xattr.h): who besides a file's user, group and all others may do
// what. Their owner, mask and others are the nine bits of the file's mode.
//
// Thread: any; a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/shares/outcome.h"

namespace snug {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
inline bool is_acl_name(std::string_view name) { return name == kAccessAcl || name == kDefaultAcl; }

class PosixAcl {
 public:
  // What Linux's driver may have one of be at most: a page.
  static constexpr size_t kMaxBytes = 4096;

  // EOPNOTSUPP: another version. E2BIG: too long. EINVAL: no list, or one that Linux would not take: an entry
  // that is no known one or not where it belongs, rights that there are not, names without a mask.
  static Outcome<PosixAcl> parse(std::span<const std::byte> bytes);
  std::string bytes() const;

  // The nine bits that a file with this list has.
  uint32_t mode() const;
  // Whether it says more than those.
  bool is_more_than_mode() const;
  // Of the file's group itself, three bits; the mode has the mask's in their place where there is one.
  uint32_t group_rights() const;
  // As chmod does it.
  void set_mode(uint32_t mode);
  // A folder's default list becomes that of a file made in it with these nine bits, which become those that
  // it then has.
  void inherit(uint32_t& mode);

 private:
  struct Entry {
    uint16_t tag = 0;
    uint16_t rights = 0;
    uint32_t id = 0;
  };
  const Entry* find(uint16_t tag) const;
  Entry* find(uint16_t tag) { return const_cast<Entry*>(std::as_const(*this).find(tag)); }

  std::vector<Entry> entries_;
};

}  // namespace snug
