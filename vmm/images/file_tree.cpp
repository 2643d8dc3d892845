#include "vmm/images/file_tree.h"

#include "vmm/base/assertion.h"

namespace snug::images {

FileTree::FileTree() {
  Inode root;
  root.mode = S_IFDIR | 0755;
  root.folder = std::make_unique<Folder>();
  inodes_.push_back(std::move(root));
}

Child* FileTree::find(InodeId folder, std::string_view name) {
  auto& children = inodes_[folder].folder->children;
  const auto found = children.find(name);
  return found == children.end() ? nullptr : &found->second;
}

const Child* FileTree::find(InodeId folder, std::string_view name) const {
  const auto& children = inodes_[folder].folder->children;
  const auto found = children.find(name);
  return found == children.end() ? nullptr : &found->second;
}

InodeId FileTree::add(InodeId folder, std::string_view name, Inode inode, uint16_t layer) {
  const auto id = static_cast<InodeId>(inodes_.size());
  inode.links = 1;
  if (inode.is_folder()) {
    inode.folder = std::make_unique<Folder>();
    inode.folder->parent = folder;
    inode.folder->depth = static_cast<uint16_t>(inodes_[folder].folder->depth + 1);
    inode.folder->cleared_layer = layer;
  }
  inodes_.push_back(std::move(inode));
  const bool added = inodes_[folder].folder->children.emplace(std::string(name), Child{id, layer}).second;
  SNUG_ASSERT(added);
  return id;
}

void FileTree::link(InodeId folder, std::string_view name, InodeId to, uint16_t layer) {
  SNUG_ASSERT(!inodes_[to].is_folder());
  ++inodes_[to].links;
  const bool added = inodes_[folder].folder->children.emplace(std::string(name), Child{to, layer}).second;
  SNUG_ASSERT(added);
}

void FileTree::remove(InodeId folder, std::string_view name) {
  auto& children = inodes_[folder].folder->children;
  const auto found = children.find(name);
  SNUG_ASSERT(found != children.end());
  const InodeId id = found->second.inode;
  children.erase(found);
  forget(id);
}

// Not by calling itself: as deep as folders go, so would the stack.
void FileTree::forget(InodeId first) {
  std::vector<InodeId> left{first};
  while (!left.empty()) {
    Inode& inode = inodes_[left.back()];
    left.pop_back();
    if (--inode.links > 0) continue;
    if (inode.folder)
      for (const auto& [name, child] : inode.folder->children) left.push_back(child.inode);
    inode = Inode{};
  }
}

}  // namespace snug::images
