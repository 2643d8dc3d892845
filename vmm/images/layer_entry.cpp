#include "vmm/images/layer_entry.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>

#include "vmm/images/erofs_xattrs.h"

namespace snug::images {

namespace {

// EROFS keeps 32 bits, of which Linux does not know the last.
bool is_owner(int64_t id) { return id >= 0 && id < int64_t{UINT32_MAX}; }

// Of the storage of whoever made the image, not of its files: in a lower layer of overlayfs they would mean
// something.
bool is_of_a_driver(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

Result<std::vector<Xattr>> xattrs_of(::archive_entry* entry, const Place& place, const ImageLimits& limits) {
  std::vector<Xattr> xattrs;
  size_t total = 0;
  ::archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (::archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    const std::string_view text(name);
    if (!erofs_knows_xattr(text) || is_of_a_driver(text)) continue;
    total += text.size() + size;
    // Tools that note each attribute in two ways: the limit holds for what is kept, and twice that for what
    // comes.
    if (text.size() > kXattrNameBytes || size > kXattrValueBytes || total > 2 * limits.xattr_bytes)
      return tl::unexpected(refused(Fault::kXattrTooLarge, place));
    xattrs.push_back({std::string(text), std::string(static_cast<const char*>(value), size)});
  }
  // The list is told from its end: of two alike the first one here is the last one of the tar.
  std::stable_sort(xattrs.begin(), xattrs.end(),
                   [](const Xattr& a, const Xattr& b) { return a.name < b.name; });
  const auto same = [](const Xattr& a, const Xattr& b) { return a.name == b.name; };
  xattrs.erase(std::unique(xattrs.begin(), xattrs.end(), same), xattrs.end());
  total = 0;
  for (const Xattr& xattr : xattrs) total += xattr.name.size() + xattr.value.size();
  if (total > limits.xattr_bytes) return tl::unexpected(refused(Fault::kXattrTooLarge, place));
  return xattrs;
}

Result<void> take_device(::archive_entry* entry, const Place& place, Inode& inode) {
  const uint64_t major = ::archive_entry_rdevmajor(entry);
  const uint64_t minor = ::archive_entry_rdevminor(entry);
  if (major >= 1 << 12 || minor >= 1 << 20) return tl::unexpected(refused(Fault::kBadDevice, place));
  inode.major = static_cast<uint32_t>(major);
  inode.minor = static_cast<uint32_t>(minor);
  return {};
}

Result<void> take_size(::archive_entry* entry, const Place& place, const ImageLimits& limits, Inode& inode) {
  const int64_t size = ::archive_entry_size(entry);
  if (size < 0) return tl::unexpected(refused(Fault::kBadSize, place));
  if (static_cast<uint64_t>(size) > limits.file_bytes)
    return tl::unexpected(refused(Fault::kTooManyBytes, place, "the file is too large"));
  inode.size = static_cast<uint64_t>(size);
  return {};
}

Result<void> take_target(::archive_entry* entry, const Place& place, Inode& inode) {
  const char* target = ::archive_entry_symlink(entry);
  if (target == nullptr || *target == '\0') return tl::unexpected(refused(Fault::kBadLink, place));
  inode.target = target;
  if (inode.target.size() > kPathBytes)
    return tl::unexpected(
        refused(Fault::kPathTooLong, place, "the link's target is longer than Linux can follow"));
  return {};
}

}  // namespace

std::string_view base_name(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool is_whiteout(std::string_view path) { return base_name(path).starts_with(".wh."); }

Result<LayerEntry> layer_entry_from(::archive_entry* from, size_t layer, const ImageLimits& limits) {
  LayerEntry entry;
  const char* path = ::archive_entry_pathname(from);
  if (path == nullptr) return tl::unexpected(refused(Fault::kBadName, {layer, {}}));
  entry.path = path;
  const Place place{layer, entry.path};
  if (entry.path.size() > kPathBytes) return tl::unexpected(refused(Fault::kPathTooLong, place));
  if (is_whiteout(entry.path)) return entry;
  if (const char* link = ::archive_entry_hardlink(from); link != nullptr) {
    entry.hard_link = true;
    entry.link_path = link;
    if (entry.link_path.size() > kPathBytes) return tl::unexpected(refused(Fault::kPathTooLong, place));
    return entry;
  }
  Inode& inode = entry.inode;
  const uint32_t type = ::archive_entry_filetype(from) & S_IFMT;
  // A hard link to nothing, the rest of a file from another volume.
  if (type == 0) return tl::unexpected(refused(Fault::kBadLink, place, "the entry is no kind of file"));
  inode.mode = type | (::archive_entry_perm(from) & 07777);
  if (!is_owner(::archive_entry_uid(from)) || !is_owner(::archive_entry_gid(from)))
    return tl::unexpected(refused(Fault::kBadOwner, place));
  inode.uid = static_cast<uint32_t>(::archive_entry_uid(from));
  inode.gid = static_cast<uint32_t>(::archive_entry_gid(from));
  inode.mtime = ::archive_entry_mtime(from);
  inode.mtime_ns = static_cast<uint32_t>(std::clamp(::archive_entry_mtime_nsec(from), 0L, 999'999'999L));
  if (S_ISCHR(type) || S_ISBLK(type)) SNUG_TRY(take_device(from, place, inode));
  if (S_ISREG(type)) SNUG_TRY(take_size(from, place, limits, inode));
  if (S_ISLNK(type)) SNUG_TRY(take_target(from, place, inode));
  inode.xattrs = SNUG_TRY(xattrs_of(from, place, limits));
  return entry;
}

}  // namespace snug::images
