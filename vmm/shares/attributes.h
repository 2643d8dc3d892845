// What the guest is told about files. Any thread.
#pragma once

#include "vmm/shares/request.h"
#include "vmm/shares/share.h"

namespace snug {

fuse_attr attributes_of(const Share& share, const FileStatus& status, const Look& look);

// The same as the host has them now.
struct Seen {
  FileStatus status;
  Look look;
};
Outcome<Seen> see(const Share& share, const InodeRef& inode);
// Of an inode that has been looked at; notes what later requests want to know of it.
Outcome<Seen> seen_as(const Share& share, const InodeRef& inode, const FileStatus& status);

void put_attributes(const Share& share, Reply& reply, const Seen& seen);

// What was found as `name` in a folder, known to the guest once more from now on. `is_new`: it has been made
// by this request, and nobody has noted anything yet.
struct Entered {
  InodeRef inode;
  fuse_entry_out out;
};
Outcome<Entered> enter(Share& share, const InodeRef& folder, std::string_view name, HostFiles::Found found,
                       bool is_new = false);
// What is called so in a folder.
Outcome<HostFiles::Found> find_name(Share& share, const InodeRef& folder, const std::string& name);
// Looks it up first.
Outcome<Entered> look_up(Share& share, const InodeRef& folder, std::string_view name);

}  // namespace snug
