// How an inode that has given its descriptor up gets another: from the nearest folder above it that has one,
// name by name. Whatever is found there now, only the same file will do.
#include <algorithm>

#include "vmm/shares/inode_table.h"

namespace snug {
namespace {

// Folders between an inode and one that is open. Deeper ones are found as the guest looks them up anew.
constexpr size_t kMaxSteps = 2048;

}  // namespace

Outcome<InodeRef> InodeTable::find(uint64_t id) {
  InodeRef found;
  {
    const std::lock_guard lock(mutex_);
    Inode* inode = known(id);
    if (inode == nullptr || inode->lookups == 0) return refuse(ESTALE);
    pin(*inode);
    found = InodeRef(this, inode);
    if (inode->fd >= 0) return found;
  }
  SNUG_TRY(bring_back(*found));
  return found;
}

// The names that lead to an inode, the last one first, and the number of the open folder they begin in.
Outcome<uint64_t> InodeTable::path_to(Inode& inode, std::vector<Step>& path) {
  const std::lock_guard lock(mutex_);
  for (Inode* step = &inode; step->fd < 0;) {
    if (path.size() == kMaxSteps) return refuse(ESTALE);
    path.push_back({step->id, step->name});
    step = known(step->parent);
    if (step == nullptr) return refuse(ESTALE);
    if (step->fd >= 0) return step->id;
  }
  // Another thread has been here.
  return inode.id;
}

Outcome<> InodeTable::bring_back(Inode& inode) {
  std::vector<Step> path;
  const uint64_t start = SNUG_TRY(path_to(inode, path));
  InodeRef folder;
  {
    const std::lock_guard lock(mutex_);
    Inode* first = known(start);
    if (first == nullptr || first->fd < 0) return refuse(ESTALE);
    pin(*first);
    folder = InodeRef(this, first);
  }
  for (; !path.empty(); path.pop_back()) folder = SNUG_TRY(open_step(folder, path.back()));
  return {};
}

Outcome<InodeRef> InodeTable::open_step(const InodeRef& folder, const Step& step) {
  auto found = host_.look_up(folder.fd(), step.name);
  if (!found && (found.error() == EMFILE || found.error() == ENFILE)) {
    shed();
    found = host_.look_up(folder.fd(), step.name);
  }
  if (!found) {
    const int error = found.error();
    return refuse(error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO ? error : ESTALE);
  }
  Closing closing;
  const std::lock_guard lock(mutex_);
  Inode* inode = known(step.id);
  if (inode == nullptr || !is_same(*inode, found->status)) return refuse(ESTALE);
  pin(*inode);
  if (inode->fd < 0) {
    inode->fd = found->fd.release();
    ++descriptors_;
    trim(budget_.for_inodes(), closing);
  }
  return InodeRef(this, inode);
}

}  // namespace snug
