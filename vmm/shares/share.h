// All that the operations of one share work on.
//
// Thread: requests, any number at a time; what resets it, alone.
#pragma once

#include <functional>
#include <string>

#include "vmm/shares/file_locks.h"
#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/handle_table.h"
#include "vmm/shares/host_files.h"
#include "vmm/shares/inode_table.h"
#include "vmm/shares/lock_waits.h"
#include "vmm/shares/outcome.h"
#include "vmm/shares/owner.h"
#include "vmm/shares/share_options.h"

namespace snug {

// What has been agreed on by FUSE_INIT.
struct Agreed {
  bool initialized = false;
  uint32_t minor = 0;
  uint64_t flags = 0;

  bool has(uint64_t flag) const { return (flags & flag) != 0; }
};

struct Share {
  Share(UniqueFd root_fd, UniqueFd proc_self_fd, ShareOptions share_options,
        std::function<void(uint64_t ticket, uint32_t written)> answered)
      : options(std::move(share_options)),
        root(std::move(root_fd)),
        host(std::move(proc_self_fd), options),
        owners(host, options),
        budget(options.descriptors),
        inodes(host, budget, options.inodes),
        handles(budget),
        locks(host, budget, options.readonly),
        waits(locks, std::move(answered)) {}

  const ShareOptions options;
  const UniqueFd root;
  FileStatus root_status{};  // of the folder
  bool is_file = false;
  HostFiles host;
  const Owners owners;
  DescriptorBudget budget;
  InodeTable inodes;
  // Each keeps what stands before it.
  HandleTable handles;
  FileLocks locks;
  LockWaits waits;
  Agreed agreed;

  // Notes what is shared, which `status` is of.
  void set_root(const FileStatus& status);
  // Forgets what a guest has; what comes next is FUSE_INIT.
  void forget_all();
  // A file is shared, and this is the folder that it is shown in, which is nowhere on the host.
  bool is_made_up(const InodeRef& inode) const { return is_file && inode.id() == FUSE_ROOT_ID; }
  // How long the guest may believe in names and attributes, seconds.
  uint64_t validity() const;
  // The inode's number for the guest: unique among all devices that it takes for one.
  uint64_t number(uint64_t device, uint64_t number) const;
  // Host descriptors have run out for a moment: whoever has been refused tries once more.
  template <class Call>
  auto with_descriptors(Call call) {
    auto outcome = call();
    if (outcome || (outcome.error() != EMFILE && outcome.error() != ENFILE)) return outcome;
    inodes.shed();
    return call();
  }
};

}  // namespace snug
