#include "vmm/images/erofs_layout.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/images/erofs_folder.h"
#include "vmm/images/erofs_format.h"
#include "vmm/images/erofs_xattrs.h"
#include "vmm/images/image_fault.h"

namespace snug::images {

namespace {

using erofs::kBlock;

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }

uint8_t type_of(const Inode& inode) {
  switch (inode.mode & S_IFMT) {
    case S_IFDIR:
      return erofs::kTypeFolder;
    case S_IFLNK:
      return erofs::kTypeLink;
    case S_IFCHR:
      return erofs::kTypeCharacter;
    case S_IFBLK:
      return erofs::kTypeBlock;
    case S_IFIFO:
      return erofs::kTypeFifo;
    case S_IFSOCK:
      return erofs::kTypeSocket;
    default:
      return erofs::kTypeFile;
  }
}

// Whether a file's contents have holes; the end of a file may be one, too.
bool has_holes(const Inode& inode) {
  if (inode.size == 0) return false;
  return inode.extents.size() != 1 || inode.extents[0].file_offset != 0 ||
         align_up(inode.extents[0].length, kBlock) < align_up(inode.size, kBlock);
}

Result<bool> same_contents(int spool, const Inode& a, const Inode& b) {
  if (a.size != b.size || a.extents.size() != b.extents.size()) return false;
  std::vector<char> one(256 * kKiB);
  std::vector<char> other(one.size());
  for (size_t i = 0; i < a.extents.size(); ++i) {
    const Extent& x = a.extents[i];
    const Extent& y = b.extents[i];
    if (x.file_offset != y.file_offset || x.length != y.length) return false;
    for (uint64_t done = 0; done < x.length;) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(one.size(), x.length - done));
      const ssize_t got = ::pread(spool, one.data(), count, static_cast<off_t>(x.spool_offset + done));
      const ssize_t got_too = ::pread(spool, other.data(), count, static_cast<off_t>(y.spool_offset + done));
      if (got <= 0 || got_too <= 0) return fail_errno(errno, "reading the contents of the image");
      const size_t both = static_cast<size_t>(std::min(got, got_too));
      if (std::memcmp(one.data(), other.data(), both) != 0) return false;
      done += both;
    }
  }
  return true;
}

}  // namespace

ErofsFolder erofs_folder_of(const FileTree& tree, InodeId id, const ErofsLayout* layout) {
  const Folder& folder = *tree.inode(id).folder;
  const auto nid = [&](InodeId inode) { return layout == nullptr ? 0 : layout->nid(inode); };
  ErofsFolder out;
  // Some names are smaller than the folder's own and its parent's.
  const std::array<std::pair<std::string_view, InodeId>, 2> own{{{".", id}, {"..", folder.parent}}};
  auto next = own.begin();
  for (const auto& [name, child] : folder.children) {
    for (; next != own.end() && next->first < name; ++next)
      out.add(next->first, nid(next->second), erofs::kTypeFolder);
    out.add(name, nid(child.inode), type_of(tree.inode(child.inode)));
  }
  for (; next != own.end(); ++next) out.add(next->first, nid(next->second), erofs::kTypeFolder);
  return out;
}

Result<ErofsLayout> ErofsLayout::plan(const FileTree& tree, int spool, const ImageLimits& limits) {
  ErofsLayout layout(tree);
  layout.collect(tree);
  uint64_t offset = kBlock;
  for (const InodeId id : layout.order_) {
    layout.place_inode(tree, id, offset);
    if (offset > limits.image_metadata_bytes) return tl::unexpected(refused(Fault::kTooMuchMetadata, {}));
  }
  layout.metadata_end_ = align_up(offset, kBlock);
  SNUG_TRY(layout.share_contents(tree, spool));
  uint64_t block = layout.metadata_end_ / kBlock;
  // Folders and links first, where a guest reads them in one go with the inodes.
  for (const bool files : {false, true}) {
    for (const InodeId id : layout.order_) {
      ErofsPlace& place = layout.places_[id];
      if (tree.inode(id).is_file() != files || place.stored_by != id || place.blocks == 0) continue;
      place.first_block = block;
      block += place.blocks;
      if (block > std::min<uint64_t>(limits.image_bytes / kBlock, erofs::kNoBlock))
        return tl::unexpected(refused(Fault::kTooManyBytes, {}));
    }
  }
  for (const InodeId id : layout.order_) {
    ErofsPlace& place = layout.places_[id];
    if (place.stored_by != id) place.first_block = layout.places_[place.stored_by].first_block;
  }
  layout.blocks_ = block;
  return layout;
}

uint64_t ErofsLayout::nid(InodeId id) const { return places_[id].offset / erofs::kInodeUnit; }

// Every inode once, a folder before what is in it; links of folders are counted on the way.
void ErofsLayout::collect(const FileTree& tree) {
  std::vector<bool> seen(tree.inode_count());
  std::vector<InodeId> left{kRoot};
  while (!left.empty()) {
    const InodeId id = left.back();
    left.pop_back();
    if (seen[id]) continue;
    seen[id] = true;
    order_.push_back(id);
    const Inode& inode = tree.inode(id);
    places_[id].stored_by = id;
    places_[id].links = inode.links;
    if (!inode.folder) continue;
    places_[id].links = 2;
    const auto& children = inode.folder->children;
    for (auto child = children.rbegin(); child != children.rend(); ++child) {
      left.push_back(child->second.inode);
      if (tree.inode(child->second.inode).is_folder()) ++places_[id].links;
    }
  }
}

void ErofsLayout::place_inode(const FileTree& tree, InodeId id, uint64_t& offset) {
  const Inode& inode = tree.inode(id);
  ErofsPlace& place = places_[id];
  place.xattr_bytes = static_cast<uint32_t>(erofs_xattr_size(inode.xattrs));
  uint64_t size = sizeof(erofs::Inode) + place.xattr_bytes;
  place.layout = erofs::kFlatPlain;
  if (inode.is_file()) {
    place.size = inode.size;
    place.blocks = (inode.size + kBlock - 1) / kBlock;
    if (has_holes(inode)) {
      place.layout = erofs::kChunks;
      place.chunks = plan_chunks(inode.extents, inode.size);
      place.blocks = place.chunks.blocks;
      size += place.chunks.chunks * erofs::kChunkEntry;
    }
  } else if (inode.is_folder() || inode.is_link()) {
    place.size = inode.is_link() ? inode.target.size() : erofs_folder_of(tree, id, nullptr).size();
    place.blocks = (place.size + kBlock - 1) / kBlock;
    const uint64_t tail = place.size % kBlock;
    if (tail > 0 && size + tail <= kBlock) {
      place.layout = erofs::kFlatInline;
      place.inline_bytes = static_cast<uint32_t>(tail);
      place.blocks = place.size / kBlock;
      size += tail;
    }
  }
  // What is behind the inode may not cross into the next block; neither does the inode, for readers older
  // than that.
  const uint64_t together = place.layout == erofs::kFlatInline ? size : sizeof(erofs::Inode);
  if (offset % kBlock + together > kBlock) offset = align_up(offset, kBlock);
  place.offset = offset;
  offset = align_up(offset + size, erofs::kInodeUnit);
}

// Files that are alike are stored once. Hashes that are alike do not make files alike.
Result<void> ErofsLayout::share_contents(const FileTree& tree, int spool) {
  std::map<ContentHash::Value, InodeId> known;
  for (const InodeId id : order_) {
    const Inode& inode = tree.inode(id);
    if (!inode.is_file() || places_[id].blocks == 0) continue;
    const auto [first, added] = known.emplace(inode.hash, id);
    if (added) continue;
    if (SNUG_TRY(same_contents(spool, tree.inode(first->second), inode)))
      places_[id].stored_by = first->second;
  }
  return {};
}

}  // namespace snug::images
