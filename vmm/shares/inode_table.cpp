#include "vmm/shares/inode_table.h"

#include <linux/fuse.h>

#include "vmm/base/assertion.h"

namespace snug {
namespace {

constexpr size_t kFirstBuckets = 1024;
// Of one call: a table that has far too many gets rid of them over several.
constexpr size_t kClosedAtOnce = 8;
constexpr size_t kShed = 64;

bool same_numbers(const Inode& inode, const FileStatus& status) {
  return inode.number == status.stx_ino && inode.device == device_of(status) &&
         inode.mount == status.stx_mnt_id;
}

}  // namespace

bool is_same(const Inode& inode, const FileStatus& status) {
  return same_numbers(inode, status) && inode.born == birth_of(status) &&
         inode.type == (status.stx_mode & S_IFMT);
}

InodeRef::~InodeRef() {
  if (table_ != nullptr) table_->unpin(*inode_);
}

InodeTable::InodeTable(const HostFiles& host, DescriptorBudget& budget, size_t most)
    : host_(host), budget_(budget), most_(std::min(most, kMaxInodes)) {}

InodeTable::~InodeTable() {
  for (uint32_t place = 0; place < used_places_; ++place)
    if (at(place).fd >= 0 && at(place).id != FUSE_ROOT_ID) ::close(at(place).fd);
}

void InodeTable::clear(int root, const FileStatus& status) {
  for (uint32_t place = 0; place < used_places_; ++place) {
    Inode& inode = at(place);
    SNUG_ASSERT(inode.pins == (inode.id == FUSE_ROOT_ID ? 1 : 0));
    if (inode.fd >= 0 && inode.id != FUSE_ROOT_ID) ::close(inode.fd);
  }
  chunks_.clear();
  buckets_.assign(kFirstBuckets, Inode::kNone);
  free_ = newest_ = oldest_ = Inode::kNone;
  descriptors_ = 0;
  chunks_.push_back(std::make_unique<Chunk>());
  used_places_ = FUSE_ROOT_ID;
  Inode& inode = *make(status);
  inode.id = FUSE_ROOT_ID;
  inode.fd = root;
  inode.pins = 1;
  inode.lookups = 1;
  count_ = 1;
}

// A place with the file's numbers, in the hash. Null: there is none left.
Inode* InodeTable::make(const FileStatus& status) {
  uint32_t place = free_;
  if (place != Inode::kNone) {
    free_ = at(place).next;
  } else {
    if (used_places_ >= most_) return nullptr;
    place = used_places_++;
    if (place / kChunk == chunks_.size()) chunks_.push_back(std::make_unique<Chunk>());
  }
  if (++count_ > buckets_.size()) grow_buckets();
  Inode& inode = at(place);
  inode.id = ++given_ << kPlaceBits | place;
  inode.device = device_of(status);
  inode.number = status.stx_ino;
  inode.born = birth_of(status);
  inode.mount = status.stx_mnt_id;
  inode.type = status.stx_mode & S_IFMT;
  uint32_t* const first = bucket(inode.device, inode.number);
  inode.next = std::exchange(*first, place);
  return &inode;
}

uint32_t* InodeTable::bucket(uint64_t device, uint64_t number) {
  uint64_t hash = (number ^ device * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
  hash ^= hash >> 29;
  return &buckets_[hash & (buckets_.size() - 1)];
}

void InodeTable::grow_buckets() {
  std::vector<uint32_t> before(buckets_.size() * 2, Inode::kNone);
  before.swap(buckets_);
  for (uint32_t place : before) {
    while (place != Inode::kNone) {
      Inode& inode = at(place);
      const uint32_t next = inode.next;
      inode.next = std::exchange(*bucket(inode.device, inode.number), place);
      place = next;
    }
  }
}

void InodeTable::unlink_hash(Inode& inode) {
  uint32_t* place = bucket(inode.device, inode.number);
  while (*place != place_of(inode)) place = &at(*place).next;
  *place = std::exchange(inode.next, Inode::kNone);
}

// One that has its numbers but was made at another time is another file: the number was given away anew.
Inode* InodeTable::find_same(const FileStatus& status) {
  for (uint32_t place = *bucket(device_of(status), status.stx_ino); place != Inode::kNone;) {
    Inode& inode = at(place);
    if (is_same(inode, status)) return &inode;
    if (same_numbers(inode, status) && inode.id != FUSE_ROOT_ID) {
      unlink_hash(inode);
      inode.replaced = true;
      return nullptr;
    }
    place = inode.next;
  }
  return nullptr;
}

Inode* InodeTable::known(uint64_t id) const {
  const uint32_t place = id & (kMaxInodes - 1);
  if (id == 0 || place >= used_places_ || at(place).id != id) return nullptr;
  return &at(place);
}

Outcome<InodeRef> InodeTable::enter(uint64_t parent, std::string_view name, HostFiles::Found found) {
  Closing closing;
  const std::lock_guard lock(mutex_);
  Inode* inode = find_same(found.status);
  if (inode == nullptr) inode = make(found.status);
  if (inode == nullptr) return refuse(ENOMEM);
  pin(*inode);
  ++inode->lookups;
  if (inode->id != FUSE_ROOT_ID && parent != 0) {
    inode->parent = parent;
    if (inode->name != name) inode->name = name;
  }
  if (inode->fd < 0) {
    inode->fd = found.fd.release();
    ++descriptors_;
    trim(budget_.for_inodes(), closing);
  }
  return InodeRef(this, inode);
}

void InodeTable::moved(uint64_t parent, std::string_view name, const FileStatus& status) {
  const std::lock_guard lock(mutex_);
  Inode* inode = find_same(status);
  if (inode == nullptr || inode->id == FUSE_ROOT_ID) return;
  inode->parent = parent;
  inode->name = name;
}

void InodeTable::forget(uint64_t id, uint64_t lookups) {
  Closing closing;
  const std::lock_guard lock(mutex_);
  Inode* inode = known(id);
  if (inode == nullptr || id == FUSE_ROOT_ID) return;
  inode->lookups -= std::min(lookups, inode->lookups);
  if (inode->lookups > 0 || inode->pins > 0) return;
  if (inode->fd >= 0) unlink_used(*inode);
  release(*inode, closing);
}

void InodeTable::release(Inode& inode, Closing& closing) {
  if (!inode.replaced) unlink_hash(inode);
  if (inode.fd >= 0) {
    closing.emplace_back(std::exchange(inode.fd, -1));
    --descriptors_;
  }
  const uint32_t place = place_of(inode);
  inode.id = inode.parent = 0;
  inode.name = {};
  inode.replaced = false;
  inode.privileges = 0;
  inode.is_device = false;
  inode.open_files = 0;
  inode.plain_as_of = inode.opened_as_of = 0;
  for (Recent* const recent : {&inode.plain, &inode.hands_nothing_down, &inode.no_capability})
    recent->reset();
  inode.next = std::exchange(free_, place);
  --count_;
}

void InodeTable::pin(Inode& inode) {
  if (inode.pins++ == 0 && inode.fd >= 0) unlink_used(inode);
}

void InodeTable::unpin(Inode& inode) {
  Closing closing;
  const std::lock_guard lock(mutex_);
  if (--inode.pins > 0) return;
  if (inode.lookups == 0) return release(inode, closing);
  if (inode.fd < 0) return;
  link_newest(inode);
  trim(budget_.for_inodes(), closing);
}

void InodeTable::link_newest(Inode& inode) {
  const uint32_t place = place_of(inode);
  inode.older = newest_;
  inode.newer = Inode::kNone;
  (newest_ == Inode::kNone ? oldest_ : at(newest_).newer) = place;
  newest_ = place;
}

void InodeTable::unlink_used(Inode& inode) {
  (inode.newer == Inode::kNone ? newest_ : at(inode.newer).older) = inode.older;
  (inode.older == Inode::kNone ? oldest_ : at(inode.older).newer) = inode.newer;
}

void InodeTable::trim(size_t most, Closing& closing) {
  for (size_t i = 0; i < kClosedAtOnce && descriptors_ > most && oldest_ != Inode::kNone; ++i) {
    Inode& inode = at(oldest_);
    unlink_used(inode);
    closing.emplace_back(std::exchange(inode.fd, -1));
    --descriptors_;
  }
}

void InodeTable::shed() {
  Closing closing;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < kShed / kClosedAtOnce; ++i) trim(0, closing);
}

size_t InodeTable::inodes() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

size_t InodeTable::descriptors() const {
  const std::lock_guard lock(mutex_);
  return descriptors_;
}

}  // namespace snug
