// Extended attributes as EROFS keeps them behind an inode: the namespace as a number, the rest of the name,
// the value. Thread: any.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/images/file_tree.h"

namespace snug::images {

// Whether EROFS can keep a name, of any length: "user.", "trusted." and "security." with something behind it,
// the two names of POSIX ACLs.
bool erofs_knows_xattr(std::string_view name);

// The bytes behind an inode; none when there are no attributes. All names are known, names and values short
// enough.
size_t erofs_xattr_size(const std::vector<Xattr>& xattrs);
void append_erofs_xattrs(const std::vector<Xattr>& xattrs, std::string& out);

}  // namespace snug::images
