// EROFS on disk, as Linux has it (Documentation/filesystems/erofs.rst): the parts that an image without
// compression uses. All numbers are little-endian. Blocks are 4096 bytes here, addresses of blocks count from
// the start of the image.
#pragma once

#include <cstdint>

#include "vmm/base/endian.h"

namespace snug::images::erofs {

constexpr uint64_t kBlock = 4096;
constexpr unsigned kBlockBits = 12;
constexpr uint64_t kSuperblockOffset = 1024;
constexpr uint32_t kMagic = 0xe0f5e1e2;
// The superblock's checksum begins with all ones and covers its block from the superblock on.
constexpr uint32_t kChecksumStart = 0xffffffff;

constexpr uint32_t kCompatChecksum = 1 << 0;
constexpr uint32_t kCompatModified = 1 << 1;  // times are those of files, not of their change of state
constexpr uint32_t kIncompatChunks = 1 << 2;  // Linux 5.15

struct Superblock {
  le32 magic;
  le32 checksum;
  le32 feature_compat;
  uint8_t block_bits;
  uint8_t extension_slots;
  le16 root_nid;
  le64 inodes;
  le64 build_time;
  le32 build_time_ns;
  le32 blocks;
  le32 meta_block;
  le32 xattr_block;
  uint8_t uuid[16];
  uint8_t volume_name[16];
  le32 feature_incompat;
  uint8_t unused[44];
};
static_assert(sizeof(Superblock) == 128);

// An inode's number is its place behind the start of the metadata, in these units.
constexpr uint64_t kInodeUnit = 32;

// Where the contents are: in one piece of blocks, or the same with the last part behind the inode, or in
// chunks.
constexpr uint16_t kFlatPlain = 0;
constexpr uint16_t kFlatInline = 2;
constexpr uint16_t kChunks = 4;
constexpr uint16_t format_of(uint16_t layout) {
  return static_cast<uint16_t>(layout << 1 | 1);
}  // 1: 64 bytes

struct Inode {
  le16 format;
  le16 xattr_count;  // 0: none; else 1 for the header and 1 for every 4 bytes behind it
  le16 mode;
  le16 reserved;
  le64 size;
  // The first block of what is in one piece; a device's number; of chunks: bits of their size beyond a
  // block's.
  le32 where;
  le32 number;  // for 32-bit programs
  le32 uid;
  le32 gid;
  le64 mtime;
  le32 mtime_ns;
  le32 links;
  uint8_t unused[16];
};
static_assert(sizeof(Inode) == 64);

constexpr uint32_t kNoBlock = 0xffffffff;  // a chunk that is a hole
constexpr uint64_t kChunkEntry = 4;        // behind the inode: the first block of each chunk

struct XattrHeader {
  le32 name_filter;
  uint8_t shared;
  uint8_t unused[7];
};
static_assert(sizeof(XattrHeader) == 12);

struct XattrEntry {
  uint8_t name_bytes;
  uint8_t name_index;
  le16 value_bytes;
};
static_assert(sizeof(XattrEntry) == 4);

struct FolderEntry {
  le64 nid;
  le16 name_offset;  // in its block
  uint8_t type;
  uint8_t unused;
};
static_assert(sizeof(FolderEntry) == 12);

// Types of files in folders.
enum : uint8_t { kTypeFile = 1, kTypeFolder, kTypeCharacter, kTypeBlock, kTypeFifo, kTypeSocket, kTypeLink };

}  // namespace snug::images::erofs
