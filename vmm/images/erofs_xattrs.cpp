#include "vmm/images/erofs_xattrs.h"

#include <array>

#include "vmm/base/assertion.h"
#include "vmm/images/erofs_format.h"

namespace snug::images {

namespace {

struct Prefix {
  std::string_view text;
  uint8_t index;
  bool whole;  // nothing follows
};
constexpr std::array kPrefixes = {
    Prefix{"user.", 1, false},
    Prefix{"system.posix_acl_access", 2, true},
    Prefix{"system.posix_acl_default", 3, true},
    Prefix{"trusted.", 4, false},
    Prefix{"security.", 6, false},
};

const Prefix* prefix_of(std::string_view name) {
  for (const Prefix& prefix : kPrefixes)
    if (prefix.whole ? name == prefix.text
                     : name.size() > prefix.text.size() && name.starts_with(prefix.text))
      return &prefix;
  return nullptr;
}

size_t aligned(size_t size) { return (size + 3) & ~size_t{3}; }

}  // namespace

bool erofs_knows_xattr(std::string_view name) { return prefix_of(name) != nullptr; }

size_t erofs_xattr_size(const std::vector<Xattr>& xattrs) {
  if (xattrs.empty()) return 0;
  size_t size = sizeof(erofs::XattrHeader);
  for (const Xattr& xattr : xattrs)
    size += aligned(sizeof(erofs::XattrEntry) + xattr.name.size() - prefix_of(xattr.name)->text.size() +
                    xattr.value.size());
  return size;
}

void append_erofs_xattrs(const std::vector<Xattr>& xattrs, std::string& out) {
  if (xattrs.empty()) return;
  out.append(sizeof(erofs::XattrHeader), '\0');
  for (const Xattr& xattr : xattrs) {
    const Prefix* prefix = prefix_of(xattr.name);
    SNUG_ASSERT(prefix != nullptr);
    const std::string_view rest = std::string_view(xattr.name).substr(prefix->text.size());
    erofs::XattrEntry entry;
    entry.name_bytes = static_cast<uint8_t>(rest.size());
    entry.name_index = prefix->index;
    entry.value_bytes = static_cast<uint16_t>(xattr.value.size());
    out.append(reinterpret_cast<const char*>(&entry), sizeof entry);
    out.append(rest);
    out.append(xattr.value);
    out.resize(aligned(out.size()), '\0');
  }
}

}  // namespace snug::images
