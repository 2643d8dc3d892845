// What the guest knows by a number: inodes of the host, each with the count of lookups that the guest has not
// given back. Most hold an O_PATH descriptor; when there are too many, those that were not used for longest
// give theirs up and are opened again by their folder and name, and compared to what they were. A number is
// never that of another file: it has a place in the table and how many numbers were given out before.
//
// Thread: any number at a time, but clear() alone. One lock, never held over a system call.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "vmm/core/state.h"
#include "vmm/shares/descriptor_budget.h"
#include "vmm/shares/host_files.h"
#include "vmm/shares/outcome.h"
#include "vmm/shares/recent.h"

namespace snug {

struct Inode {
  // Of the host; set once.
  uint64_t device = 0;
  uint64_t number = 0;
  uint64_t born = 0;
  uint64_t mount = 0;
  uint32_t type = 0;  // S_IFMT

  // What requests remember of it, each for itself.
  std::atomic<uint8_t> privileges = 0;  // Privileges
  std::atomic<bool> is_device = false;  // the guest takes it for a device node
  std::atomic<uint32_t> open_files = 0;
  std::atomic<uint64_t> plain_as_of =
      0;  // time of the last change up to which it is known to have no override
  std::atomic<uint64_t> opened_as_of = 0;  // the same, when it was opened last
  Recent plain;                            // it has no override
  Recent hands_nothing_down;               // a folder: neither a group nor an access control list
  Recent no_capability;

 private:
  friend class InodeTable;
  friend class InodeRef;
  static constexpr uint32_t kNone = UINT32_MAX;

  uint64_t id = 0;  // 0: this place is free
  uint64_t lookups = 0;
  uint64_t parent = 0;  // where it was found last; 0: nowhere
  std::string name;
  int fd = -1;
  uint32_t pins = 0;
  uint32_t next = kNone;   // with the same hash, or free
  uint32_t newer = kNone;  // of those that can give up a descriptor
  uint32_t older = kNone;
  bool replaced = false;  // the host has another file of this number now
};

// A guest may know a million of them.
static_assert(sizeof(Inode) <= 200);

// Whether the host's file is the one that it was.
bool is_same(const Inode& inode, const FileStatus& status);

class InodeTable;

// An inode that stays, with its descriptor, while this lives.
class InodeRef {
 public:
  InodeRef() = default;
  InodeRef(InodeRef&& other) noexcept
      : table_(std::exchange(other.table_, nullptr)), inode_(std::exchange(other.inode_, nullptr)) {}
  InodeRef& operator=(InodeRef&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeRef();

  Inode* operator->() const { return inode_; }
  Inode& operator*() const { return *inode_; }
  uint64_t id() const { return inode_->id; }
  int fd() const { return inode_->fd; }
  bool is_folder() const { return S_ISDIR(inode_->type); }
  bool is_file() const { return S_ISREG(inode_->type); }

 private:
  friend InodeTable;
  InodeRef(InodeTable* table, Inode* inode) : table_(table), inode_(inode) {}
  InodeTable* table_ = nullptr;
  Inode* inode_ = nullptr;
};

class InodeTable {
 public:
  static constexpr size_t kMaxInodes = size_t{1} << 20;

  InodeTable(const HostFiles& host, DescriptorBudget& budget, size_t most);
  ~InodeTable();
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;

  // Forgets everything; the root, whose descriptor the caller keeps open, is number 1 again.
  void clear(int root, const FileStatus& status);
  // ESTALE: no number that the guest has, or the file is not where it was any more.
  Outcome<InodeRef> find(uint64_t id);
  // What has been found as `name` in a folder, one lookup more for the guest. ENOMEM: there are too many.
  // `parent` 0: it has no name.
  Outcome<InodeRef> enter(uint64_t parent, std::string_view name, HostFiles::Found found);
  // The same file under another name now, where the guest knows it.
  void moved(uint64_t parent, std::string_view name, const FileStatus& status);
  // Gives lookups back, at most those that there are. The last one makes the number unknown.
  void forget(uint64_t id, uint64_t lookups);
  // Gives up descriptors that nobody uses: the host has none left.
  void shed();

  // For a snapshot, while nothing is served. Names are the share's, numbers the host's.
  void save(SectionWriter& out) const;
  // After clear(). `find_name`: what is called so in a folder. Returns those whose name leads to another file
  // now, which is theirs from now on, or to none: they are ESTALE.
  using Find = std::function<Outcome<HostFiles::Found>(const InodeRef& folder, const std::string& name)>;
  std::unordered_set<uint64_t> restore(SectionReader& in, const Find& find_name);

  // For tests.
  size_t inodes() const;
  size_t descriptors() const;

 private:
  friend InodeRef;
  static constexpr uint32_t kPlaceBits = 20;
  static constexpr size_t kChunk = 256;
  using Chunk = std::array<Inode, kChunk>;
  using Closing = std::vector<UniqueFd>;
  struct Step {
    uint64_t id;
    std::string name;
  };

  Inode& at(uint32_t place) const { return (*chunks_[place / kChunk])[place % kChunk]; }
  uint32_t place_of(const Inode& inode) const { return inode.id & (kMaxInodes - 1); }
  Inode* known(uint64_t id) const;
  uint32_t* bucket(uint64_t device, uint64_t number);
  Inode* find_same(const FileStatus& status);
  Inode* make(const FileStatus& status);
  void grow_buckets();
  void unlink_hash(Inode& inode);
  void release(Inode& inode, Closing& closing);
  void pin(Inode& inode);
  void unpin(Inode& inode);
  void link_newest(Inode& inode);
  void unlink_used(Inode& inode);
  void trim(size_t most, Closing& closing);
  Outcome<> bring_back(Inode& inode);
  Outcome<uint64_t> path_to(Inode& inode, std::vector<Step>& path);
  bool read_one(SectionReader& in);
  void link_free_places();
  bool find_again(uint64_t id, const Find& find_name);
  Outcome<InodeRef> open_step(const InodeRef& folder, const Step& step);

  const HostFiles& host_;
  DescriptorBudget& budget_;
  const size_t most_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<uint32_t> buckets_;
  uint32_t free_ = Inode::kNone;
  uint32_t used_places_ = 0;
  uint32_t newest_ = Inode::kNone;
  uint32_t oldest_ = Inode::kNone;
  size_t count_ = 0;
  size_t descriptors_ = 0;  // but for the root's
  uint64_t given_ = 0;      // numbers given out, over all resets
};

}  // namespace snug
