// A tree of files in memory: what an image holds. Contents of files lie elsewhere, in a spool (spool.h).
//
// The tree knows names, links and depth; which layer wins is the merge's affair (layer_merge.h).
// Thread: one at a time.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/images/content_hash.h"

namespace snug::images {

using InodeId = uint32_t;
constexpr InodeId kRoot = 0;

// A part of a file that is not a hole. Offsets are multiples of 4096; the part reaches to `length` in the
// file, and what the spool has behind it up to the end of its page is zero.
struct Extent {
  uint64_t file_offset = 0;
  uint64_t spool_offset = 0;
  uint64_t length = 0;
};

struct Xattr {
  std::string name;  // with its namespace: "user.x"
  std::string value;
  bool operator==(const Xattr&) const = default;
};

// The name of a file in its folder.
struct Child {
  InodeId inode = 0;
  uint16_t layer = 0;  // that has put it there; 0 where nobody asks
};

// What only folders have.
struct Folder {
  std::map<std::string, Child, std::less<>> children;
  InodeId parent = kRoot;
  uint16_t depth = 0;          // folders above it
  uint16_t cleared_layer = 0;  // nothing of lower layers than this one is left in it
};

struct Inode {
  uint32_t mode = 0;  // with the type of the file
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t links = 0;  // names of it; of a folder: not counted here
  int64_t mtime = 0;
  uint32_t mtime_ns = 0;
  uint32_t major = 0;  // of devices
  uint32_t minor = 0;
  uint64_t size = 0;               // of regular files
  std::vector<Extent> extents;     // ascending
  ContentHash::Value hash{};       // of the contents without their holes
  std::string target;              // of symbolic links
  std::vector<Xattr> xattrs;       // sorted by name, no two alike
  std::unique_ptr<Folder> folder;  // of folders

  bool is_folder() const { return S_ISDIR(mode); }
  bool is_file() const { return S_ISREG(mode); }
  bool is_link() const { return S_ISLNK(mode); }
};

class FileTree {
 public:
  // A root that nobody has described: 0755, of root, from 1970.
  FileTree();

  Inode& inode(InodeId id) { return inodes_[id]; }
  const Inode& inode(InodeId id) const { return inodes_[id]; }
  // Numbers of inodes are below this; those of removed ones are not used again.
  size_t inode_count() const { return inodes_.size(); }

  // The name in a folder; nullptr when there is none. Until the folder changes.
  Child* find(InodeId folder, std::string_view name);
  const Child* find(InodeId folder, std::string_view name) const;

  // A new inode under a name that is not there yet; folders get what only folders have.
  InodeId add(InodeId folder, std::string_view name, Inode inode, uint16_t layer);
  // Another name of a file that is not a folder.
  void link(InodeId folder, std::string_view name, InodeId to, uint16_t layer);
  // The name, and all that lies below it; an inode without names gives its memory back.
  void remove(InodeId folder, std::string_view name);

 private:
  void forget(InodeId id);
  std::vector<Inode> inodes_;
};

}  // namespace snug::images
