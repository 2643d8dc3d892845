// Whose a file is to the guest, and which mode it has. The host's user owns what the guest makes; what the
// host would refuse that user (other owners, device nodes) and what would be a danger there (setuid and
// setgid bits) lies in an extended attribute of regular files and folders:
//
//   user.snug.stat = UID:GID:MODE, UID:GID:MODE:MAJOR:MINOR or UID:GID:MODE:gRIGHTS   (MODE in octal, with
//   the file's type)
//
// It is believed only of files that belong to the user who serves, for others could write it as well. The
// bits for reading, writing and executing are those of the file itself, but for device nodes, and those of
// the group where an access control list is noted (acls.h): they are its mask, and RIGHTS are the group's.
//
// Thread: any number at a time; nothing changes.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "vmm/shares/host_files.h"
#include "vmm/shares/inode_table.h"
#include "vmm/shares/outcome.h"
#include "vmm/shares/share_options.h"

namespace snug {

inline constexpr char kOverrideName[] = "user.snug.stat";

struct Override {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t mode = 0;
  uint32_t device = 0;                   // as device_number() has it
  std::optional<uint32_t> group_rights;  // as a Look has them

  // Nothing unless it is exactly of that form.
  static std::optional<Override> parse(std::string_view text);
  std::string text() const;
};

// What the guest sees.
struct Look {
  uint32_t mode = 0;  // with the type
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t device = 0;
  bool overridden = false;
  // Of the group itself, three bits, where an access control list is noted: the mode has its mask.
  std::optional<uint32_t> group_rights;

  bool operator==(const Look&) const = default;
  bool is_device() const { return S_ISCHR(mode) || S_ISBLK(mode); }
  // The mode of what is made on the host for it: setgid is for folders only, setuid for nothing; the group
  // has no more than it has by itself.
  uint32_t host_mode() const;
};

class Owners {
 public:
  // The process's user now is the one who serves.
  Owners(const HostFiles& host, const ShareOptions& options);

  // Ids are what they are on the host.
  bool real_ids() const { return real_ids_; }
  // Whether what is noted of a file is believed.
  bool may_override(const FileStatus& status) const;
  // It has been made this moment: nothing is noted.
  void note_new(Inode& inode) const;
  // Of a file that has nothing noted.
  Look plain(const FileStatus& status) const;
  // EMFILE and the like: it cannot be told now.
  Outcome<Look> look(const InodeRef& inode, const FileStatus& status) const;
  // Makes a file look as wanted, whose type stays. `opened`: a descriptor of it for more than its path, or
  // -1. EPERM: the host does not let it be, and nothing has changed.
  Outcome<> change(const InodeRef& inode, int opened, const FileStatus& status, const Look& now,
                   const Look& wanted) const;
  // Whether it was made by this process, after `moment` (of now()): not something that has been put in its
  // place.
  bool is_ours(const FileStatus& status, uint64_t moment) const;
  // The clock that files get their times of.
  static uint64_t now();

 private:
  static constexpr uint64_t kNoDevice = ~uint64_t{0};
  Look with_override(Look look, const FileStatus& status, const Override& override) const;
  Outcome<> set_override(int fd, int opened, const Override* override) const;
  Outcome<> keep_override(int fd, int opened, FileStatus& status, const Override* override) const;
  Outcome<> set_mode(int fd, uint32_t mode) const;
  Outcome<> give_away(int fd, FileStatus& status, const Look& wanted) const;

  const HostFiles& host_;
  const bool real_ids_;
  const uint32_t user_;
  const uint32_t group_;
  const uint32_t guest_uid_;
  const uint32_t guest_gid_;
  const uint32_t foreign_uid_;
  const uint32_t foreign_gid_;
  const uint64_t moment_;
  mutable std::atomic<uint64_t> bare_device_ = kNoDevice;  // keeps no attributes
};

}  // namespace snug
