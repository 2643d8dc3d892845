// All that the operations of one share work on.
//
// Thread: requests, any number at a time; what resets it, alone.
#pragma once

#include <string>

#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/handle_table.h"
#include "vmm/shares/host_files.h"
#include "vmm/shares/inode_table.h"
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
  Share(UniqueFd root_fd, UniqueFd proc_self_fd, ShareOptions share_options)
      : options(std::move(share_options)),
        root(std::move(root_fd)),
        host(std::move(proc_self_fd), options),
        owners(host, options),
        budget(options.descriptors),
        inodes(host, budget),
        handles(budget) {}

  const ShareOptions options;
  const UniqueFd root;
  FileStatus root_status{};
  HostFiles host;
  const Owners owners;
  DescriptorBudget budget;
  InodeTable inodes;
  HandleTable handles;  // before the inodes that it keeps
  Agreed agreed;

  // Forgets what a guest has; what comes next is FUSE_INIT.
  void forget_all();
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
