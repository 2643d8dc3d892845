// What the guest has open. A number is never given out twice.
//
// Thread: any number at a time. A handle that is closed while another thread uses it lives on until that is
// done.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>

#include "vmm/base/unique_fd.h"
#include "vmm/shares/descriptor_budget.h"
#include "vmm/shares/directory_reader.h"
#include "vmm/shares/inode_table.h"
#include "vmm/shares/outcome.h"

namespace snug {

struct Handle {
  DescriptorBudget::Share descriptor;
  InodeRef inode;
  UniqueFd fd;
  DirectoryReader reader;                    // of a folder
  mutable std::atomic<bool> locked = false;  // by flock(2)
};

class HandleTable {
 public:
  static constexpr size_t kMaxHandles = size_t{1} << 16;

  explicit HandleTable(DescriptorBudget& budget) : budget_(budget) {}

  // Room for one, before anything is done that would be in vain without. ENFILE: there are too many.
  Outcome<DescriptorBudget::Share> reserve();
  Outcome<uint64_t> add(DescriptorBudget::Share reserved, InodeRef inode, UniqueFd fd);
  // EBADF: nothing that is open, or it is another inode's.
  Outcome<std::shared_ptr<Handle>> find(uint64_t number, uint64_t inode) const;
  // The same, which is no longer in the table.
  Outcome<std::shared_ptr<Handle>> remove(uint64_t number, uint64_t inode);
  void clear();

  // Whether flock(2) holds for one of them.
  bool any_locked() const;
  // For a snapshot, while nothing is served.
  void save(SectionWriter& out) const;
  // After clear(). Each handle but for those of inodes that are `others` now is opened by `open`: of a folder
  // without a file behind it, none.
  using Open = std::function<Outcome<UniqueFd>(const InodeRef& inode, int flags)>;
  void restore(SectionReader& in, InodeTable& inodes, const std::unordered_set<uint64_t>& others,
               const Open& open);

 private:
  DescriptorBudget& budget_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Handle>> handles_;
  uint64_t given_ = 0;
};

}  // namespace snug
