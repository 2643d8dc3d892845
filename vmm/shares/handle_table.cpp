#include "vmm/shares/handle_table.h"

#include <mutex>

namespace snug {

Outcome<DescriptorBudget::Share> HandleTable::reserve() {
  auto descriptor = budget_.take();
  if (!descriptor) return refuse(ENFILE);
  return descriptor;
}

Outcome<uint64_t> HandleTable::add(DescriptorBudget::Share reserved, InodeRef inode, UniqueFd fd) {
  auto handle = std::make_shared<Handle>();
  handle->descriptor = std::move(reserved);
  handle->inode = std::move(inode);
  handle->fd = std::move(fd);
  const std::lock_guard lock(mutex_);
  if (handles_.size() >= kMaxHandles) return refuse(ENFILE);
  ++handle->inode->open_files;
  handles_.emplace(++given_, std::move(handle));
  return given_;
}

Outcome<std::shared_ptr<Handle>> HandleTable::find(uint64_t number, uint64_t inode) const {
  const std::shared_lock lock(mutex_);
  const auto found = handles_.find(number);
  if (found == handles_.end() || found->second->inode.id() != inode) return refuse(EBADF);
  return found->second;
}

Outcome<std::shared_ptr<Handle>> HandleTable::remove(uint64_t number, uint64_t inode) {
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(number);
  if (found == handles_.end() || found->second->inode.id() != inode) return refuse(EBADF);
  auto handle = std::move(found->second);
  handles_.erase(found);
  --handle->inode->open_files;
  return handle;
}

void HandleTable::clear() {
  std::unordered_map<uint64_t, std::shared_ptr<Handle>> closing;
  const std::lock_guard lock(mutex_);
  closing.swap(handles_);
}

}  // namespace snug
