#include "vmm/images/erofs_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "vmm/base/checked.h"
#include "vmm/images/crc32c.h"
#include "vmm/images/erofs_folder.h"
#include "vmm/images/erofs_format.h"
#include "vmm/images/erofs_xattrs.h"
#include "vmm/images/image_fault.h"

namespace snug::images {

namespace {

using erofs::kBlock;

constexpr size_t kTablePiece = 64 * 1024;

template <class T>
std::string_view text_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// As the kernel keeps device numbers: 12 bits of major in the middle of 20 bits of minor.
uint32_t device_number(const Inode& inode) {
  return (inode.minor & 0xff) | inode.major << 8 | (inode.minor & ~0xffu) << 12;
}

uint32_t where_of(const Inode& inode, const ErofsPlace& place) {
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) return device_number(inode);
  if (place.layout == erofs::kChunks) return place.chunks.bits;
  return static_cast<uint32_t>(place.first_block);
}

erofs::Inode inode_of(const Inode& inode, const ErofsPlace& place, uint32_t number) {
  erofs::Inode out{};
  out.format = erofs::format_of(place.layout);
  if (place.xattr_bytes > 0)
    out.xattr_count = static_cast<uint16_t>(1 + (place.xattr_bytes - sizeof(erofs::XattrHeader)) / 4);
  out.mode = static_cast<uint16_t>(inode.mode);
  out.size = place.size;
  out.where = where_of(inode, place);
  out.number = number;
  out.uid = inode.uid;
  out.gid = inode.gid;
  out.mtime = static_cast<uint64_t>(inode.mtime);
  out.mtime_ns = inode.mtime_ns;
  out.links = place.links;
  return out;
}

std::string contents_of(const FileTree& tree, const ErofsLayout& layout, InodeId id) {
  const Inode& inode = tree.inode(id);
  if (inode.is_link()) return inode.target;
  return inode.is_folder() ? erofs_folder_of(tree, id, &layout).bytes() : std::string();
}

}  // namespace

ErofsWriter::ErofsWriter(const FileTree& tree, int spool, const ImageLimits& limits,
                         ProgressCallback progress)
    : tree_(tree), spool_(spool), limits_(limits), progress_(std::move(progress)) {}

Result<ErofsSummary> ErofsWriter::write(int image) {
  const ErofsLayout layout = SNUG_TRY(ErofsLayout::plan(tree_, spool_, limits_));
  const uint64_t bytes = layout.blocks() * kBlock;
  // Everything that is not written below is a hole of the file.
  if (::ftruncate(image, 0) != 0 || ::ftruncate(image, static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "writing the image");
  ErofsOutput out(image, spool_, bytes, progress_);
  SNUG_TRY(write_inodes(layout, out));
  SNUG_TRY(write_folders(layout, out));
  SNUG_TRY(out.flush());
  SNUG_TRY(write_contents(layout, out));
  SNUG_TRY(write_superblock(layout, out));
  return ErofsSummary{bytes, layout.order().size()};
}

Result<void> ErofsWriter::write_inodes(const ErofsLayout& layout, ErofsOutput& out) const {
  uint32_t number = 0;
  for (const InodeId id : layout.order()) {
    const Inode& inode = tree_.inode(id);
    const ErofsPlace& place = layout.place(id);
    uint64_t offset = place.offset;
    std::string bytes(text_of(inode_of(inode, place, ++number)));
    append_erofs_xattrs(inode.xattrs, bytes);
    if (place.inline_bytes > 0) {
      const std::string contents = contents_of(tree_, layout, id);
      bytes.append(contents, contents.size() - place.inline_bytes);
    }
    if (place.layout == erofs::kChunks) {
      ChunkTable table(inode.extents, inode.size, place.chunks);
      while (!table.done()) {
        const uint32_t block = table.next();
        const le32 entry =
            block == erofs::kNoBlock ? block : static_cast<uint32_t>(place.first_block + block);
        bytes.append(text_of(entry));
        // A table may be long.
        if (bytes.size() < kTablePiece) continue;
        SNUG_TRY(out.write(offset, bytes));
        offset += bytes.size();
        bytes.clear();
      }
    }
    SNUG_TRY(out.write(offset, bytes));
  }
  return {};
}

Result<void> ErofsWriter::write_folders(const ErofsLayout& layout, ErofsOutput& out) const {
  for (const InodeId id : layout.order()) {
    const ErofsPlace& place = layout.place(id);
    if (tree_.inode(id).is_file() || place.blocks == 0) continue;
    const std::string contents = contents_of(tree_, layout, id);
    SNUG_TRY(out.write(place.first_block * kBlock,
                       std::string_view(contents).substr(0, contents.size() - place.inline_bytes)));
  }
  return {};
}

Result<void> ErofsWriter::write_contents(const ErofsLayout& layout, ErofsOutput& out) const {
  for (const InodeId id : layout.order()) {
    const Inode& inode = tree_.inode(id);
    const ErofsPlace& place = layout.place(id);
    if (!inode.is_file() || inode.size == 0) continue;
    out.hash().add(inode.hash[0]);
    out.hash().add(inode.hash[1]);
    if (place.stored_by != id) continue;
    if (place.layout != erofs::kChunks) {
      SNUG_TRY(out.copy(place.first_block * kBlock, inode.extents[0].spool_offset, inode.extents[0].length));
      continue;
    }
    // The parts of each chunk, which lie in it as they do in the file.
    ChunkTable table(inode.extents, inode.size, place.chunks);
    const uint64_t chunk = kBlock << place.chunks.bits;
    size_t next = 0;
    for (uint64_t start = 0; !table.done(); start += chunk) {
      const uint32_t block = table.next();
      if (block == erofs::kNoBlock) continue;
      while (inode.extents[next].file_offset + inode.extents[next].length <= start) ++next;
      for (size_t i = next; i < inode.extents.size() && inode.extents[i].file_offset < start + chunk; ++i) {
        const Extent& extent = inode.extents[i];
        const uint64_t from = std::max(start, extent.file_offset);
        const uint64_t to = std::min(start + chunk, extent.file_offset + extent.length);
        SNUG_TRY(out.copy((place.first_block + block) * kBlock + (from - start),
                          extent.spool_offset + (from - extent.file_offset), to - from));
      }
    }
  }
  return {};
}

Result<void> ErofsWriter::write_superblock(const ErofsLayout& layout, ErofsOutput& out) const {
  erofs::Superblock super{};
  super.magic = erofs::kMagic;
  super.feature_compat = erofs::kCompatChecksum | erofs::kCompatModified;
  super.block_bits = erofs::kBlockBits;
  super.root_nid = static_cast<uint16_t>(layout.nid(kRoot));
  super.inodes = layout.order().size();
  super.blocks = static_cast<uint32_t>(layout.blocks());
  int64_t newest = 0;
  for (const InodeId id : layout.order()) {
    newest = std::max(newest, tree_.inode(id).mtime);
    if (layout.place(id).layout == erofs::kChunks) super.feature_incompat = erofs::kIncompatChunks;
  }
  super.build_time = static_cast<uint64_t>(newest);
  const ContentHash::Value hash = out.hash().value();
  std::memcpy(super.uuid, hash.data(), sizeof super.uuid);
  // RFC 9562: version 8, made in a way of our own.
  super.uuid[6] = static_cast<uint8_t>((super.uuid[6] & 0x0f) | 0x80);
  super.uuid[8] = static_cast<uint8_t>((super.uuid[8] & 0x3f) | 0x80);
  std::string block(kBlock, '\0');
  std::memcpy(block.data() + erofs::kSuperblockOffset, &super, sizeof super);
  super.checksum =
      crc32c(erofs::kChecksumStart, std::as_bytes(std::span(block)).subspan(erofs::kSuperblockOffset));
  std::memcpy(block.data() + erofs::kSuperblockOffset, &super, sizeof super);
  return out.put(0, block);
}

}  // namespace snug::images
