// What a guest has of a share, saved for a server that goes on with it: inodes by folder and name, and what
// is open. All of it is told in the guest's numbers. What is read may be anybody's work.
#include <fcntl.h>
#include <linux/fuse.h>

#include <deque>
#include <mutex>
#include <unordered_map>

#include "vmm/shares/attributes.h"
#include "vmm/shares/names.h"
#include "vmm/shares/session.h"
#include "vmm/shares/share.h"

namespace snug {
namespace {

constexpr size_t kNameMax = 255;  // bytes
// What a handle was opened with, as far as it matters later.
constexpr int kKeptFlags = O_ACCMODE | O_SYNC | O_DSYNC | O_DIRECTORY;

// A file is known again by its number, and the time it was made, where file systems tell that. Devices may be
// numbered anew by the host at each boot.
bool is_the_same(const Inode& inode, const FileStatus& status) {
  const uint64_t born = birth_of(status);
  return inode.number == status.stx_ino && inode.born == born &&
         (born != 0 || inode.device == device_of(status));
}

}  // namespace

// --- inodes -----------------------------------------------------------------------------------------------

void InodeTable::save(SectionWriter& out) const {
  const std::lock_guard lock(mutex_);
  std::vector<const Inode*> all;
  for (uint32_t place = 0; place < used_places_; ++place) {
    const Inode& inode = at(place);
    if (inode.id != 0 && inode.id != FUSE_ROOT_ID && inode.lookups > 0) all.push_back(&inode);
  }
  out.number(given_);
  out.number(static_cast<uint32_t>(all.size()));
  for (const Inode* const inode : all) {
    out.number(inode->id);
    out.number(inode->lookups);
    out.number(inode->parent);
    out.text(inode->name);
    out.number(inode->device);
    out.number(inode->number);
    out.number(inode->born);
    out.number(inode->type);
    out.flag(inode->is_device);
  }
}

// Nothing of the host is open afterwards, and it is in no hash.
bool InodeTable::read_one(SectionReader& in) {
  const auto id = in.number<uint64_t>();
  const uint32_t place = id & (kMaxInodes - 1);
  if (!in.good()) return false;
  const bool fits =
      place > FUSE_ROOT_ID && place < most_ && id >> kPlaceBits != 0 && id >> kPlaceBits <= given_;
  while (fits && place / kChunk >= chunks_.size()) chunks_.push_back(std::make_unique<Chunk>());
  if (!fits || at(place).id != 0) {
    in.refuse("a number that the guest cannot have");
    return false;
  }
  Inode& inode = at(place);
  inode.id = id;
  inode.lookups = in.number<uint64_t>();
  inode.parent = in.number<uint64_t>();
  inode.name = in.text(kNameMax);
  inode.device = in.number<uint64_t>();
  inode.number = in.number<uint64_t>();
  inode.born = in.number<uint64_t>();
  inode.type = in.number<uint32_t>();
  inode.is_device = in.flag();
  inode.replaced = true;
  used_places_ = std::max(used_places_, place + 1);
  ++count_;
  if (inode.lookups == 0 || (inode.type & ~uint32_t{S_IFMT}) != 0)
    in.refuse("an inode that the guest cannot have");
  return in.good();
}

void InodeTable::link_free_places() {
  for (uint32_t place = used_places_; place-- > FUSE_ROOT_ID + 1;)
    if (at(place).id == 0) at(place).next = std::exchange(free_, place);
}

std::unordered_set<uint64_t> InodeTable::restore(SectionReader& in, const Find& find_name) {
  std::unordered_map<uint64_t, std::vector<uint64_t>> below;
  std::unordered_set<uint64_t> others;
  {
    const std::lock_guard lock(mutex_);
    given_ = in.number_to<uint64_t>(UINT64_MAX >> kPlaceBits);
    const auto count = in.number_to<uint32_t>(static_cast<uint32_t>(most_));
    for (uint32_t i = 0; i < count && read_one(in); ++i) continue;
    for (uint32_t place = FUSE_ROOT_ID + 1; place < used_places_; ++place) {
      const Inode& inode = at(place);
      if (inode.id == 0) continue;
      below[inode.parent].push_back(inode.id);
      others.insert(inode.id);
    }
    link_free_places();
  }
  if (!in.good()) return others;
  // A folder before what is in it.
  std::deque<uint64_t> folders{FUSE_ROOT_ID};
  for (; !folders.empty(); folders.pop_front()) {
    const auto found = below.find(folders.front());
    if (found == below.end()) continue;
    for (const uint64_t id : found->second) {
      if (find_again(id, find_name)) others.erase(id);
      folders.push_back(id);
    }
    // Numbers that lead in a circle lead nowhere.
    below.erase(found);
  }
  return others;
}

// Whether it is the file that it was. Another folder of that name takes its place for the guest; another file
// does not, since the guest may have pages of it, which are read without asking.
bool InodeTable::find_again(uint64_t id, const Find& find_name) {
  std::string name;
  uint64_t parent = 0;
  {
    const std::lock_guard lock(mutex_);
    name = known(id)->name;
    parent = known(id)->parent;
  }
  const auto folder = find(parent);
  if (!folder || !folder->is_folder() || !check_name(name)) return false;
  auto found = find_name(*folder, name);
  if (!found) return false;
  Closing closing;
  const std::lock_guard lock(mutex_);
  Inode& inode = *known(id);
  if (inode.type != (found->status.stx_mode & S_IFMT) || find_same(found->status) != nullptr) return false;
  const bool same = is_the_same(inode, found->status);
  if (!same && inode.type != S_IFDIR) return false;
  inode.device = device_of(found->status);
  inode.number = found->status.stx_ino;
  inode.born = birth_of(found->status);
  inode.mount = found->status.stx_mnt_id;
  if (count_ > buckets_.size()) grow_buckets();
  inode.next = std::exchange(*bucket(inode.device, inode.number), place_of(inode));
  inode.replaced = false;
  inode.fd = found->fd.release();
  ++descriptors_;
  link_newest(inode);
  trim(budget_.for_inodes(), closing);
  return same;
}

// --- what is open -----------------------------------------------------------------------------------------

void HandleTable::save(SectionWriter& out) const {
  const std::shared_lock lock(mutex_);
  out.number(given_);
  out.number(static_cast<uint32_t>(handles_.size()));
  for (const auto& [number, handle] : handles_) {
    const int flags = handle->fd ? ::fcntl(handle->fd.get(), F_GETFL) : 0;
    out.number(number);
    out.number(handle->inode.id());
    out.number(static_cast<uint32_t>(flags & kKeptFlags));
  }
}

void HandleTable::restore(SectionReader& in, InodeTable& inodes, const std::unordered_set<uint64_t>& others,
                          const Open& open) {
  given_ = in.number<uint64_t>();
  const auto count = in.number_to<uint32_t>(kMaxHandles);
  for (uint32_t i = 0; i < count && in.good(); ++i) {
    const auto number = in.number<uint64_t>();
    const auto id = in.number<uint64_t>();
    const auto flags = static_cast<int>(in.number<uint32_t>());
    if (number == 0 || number > given_ || (flags & ~kKeptFlags) != 0)
      in.refuse("an open file that cannot be");
    if (!in.good() || others.contains(id)) continue;
    auto reserved = reserve();
    auto inode = inodes.find(id);
    if (!reserved || !inode) continue;
    auto fd = open(*inode, flags);
    if (!fd) continue;
    auto handle = std::make_shared<Handle>();
    handle->descriptor = std::move(*reserved);
    handle->inode = std::move(*inode);
    handle->fd = std::move(*fd);
    ++handle->inode->open_files;
    const std::lock_guard lock(mutex_);
    handles_.emplace(number, std::move(handle));
  }
}

bool HandleTable::any_locked() const {
  const std::shared_lock lock(mutex_);
  return std::ranges::any_of(handles_, [](const auto& each) { return each.second->locked.load(); });
}

// --- all of it --------------------------------------------------------------------------------------------

std::string ShareSession::save(SectionWriter& out) {
  const std::lock_guard alone(running_);
  if (share_->waits.any()) return "a program in the guest waits for the lock of a file";
  if (share_->locks.any() || share_->handles.any_locked()) return "the guest has files locked";
  out.flag(share_->agreed.initialized);
  out.number(share_->agreed.minor);
  out.number(share_->agreed.flags);
  share_->inodes.save(out);
  share_->handles.save(out);
  return {};
}

void ShareSession::restore(SectionReader& in) {
  const std::lock_guard alone(running_);
  Share& share = *share_;
  share.forget_all();
  share.agreed.initialized = in.flag();
  share.agreed.minor = in.number<uint32_t>();
  share.agreed.flags = in.number<uint64_t>();
  const auto others = share.inodes.restore(in, [&share](const InodeRef& folder, const std::string& name) {
    return find_name(share, folder, name);
  });
  share.handles.restore(in, share.inodes, others,
                        [&share](const InodeRef& inode, int flags) -> Outcome<UniqueFd> {
                          if (share.is_made_up(inode)) return UniqueFd();
                          if (!inode.is_folder() && !inode.is_file()) return refuse(EBADF);
                          if (share.options.readonly && (flags & O_ACCMODE) != O_RDONLY) return refuse(EROFS);
                          const int kind = inode.is_folder() ? O_RDONLY | O_DIRECTORY : flags & ~O_DIRECTORY;
                          return share.with_descriptors([&] { return share.host.reopen(inode.fd(), kind); });
                        });
}

}  // namespace snug
