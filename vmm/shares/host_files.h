// How files of the host are named: by an open folder and one name in it, or by a descriptor of ours. Nothing
// here ever follows a link of the shared tree, or takes a step up.
//
// Thread: any number at a time; nothing changes after set_root().
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/unique_fd.h"
#include "vmm/shares/outcome.h"
#include "vmm/shares/share_options.h"

namespace snug {

using FileStatus = struct statx;

inline uint64_t device_of(const FileStatus& status) {
  return uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor;
}
// Nanoseconds, 0 where the file system has none.
uint64_t birth_of(const FileStatus& status);
uint64_t nanoseconds(const statx_timestamp& time);
bool is_same_file(const FileStatus& one, const FileStatus& other);
// The numbers of a device node as the protocol has them.
uint32_t device_number(uint32_t major, uint32_t minor);

// A descriptor as a name below proc_self_fd.
class FdName {
 public:
  explicit FdName(int fd);
  const char* text() const { return text_; }

 private:
  char text_[12];
};

class HostFiles {
 public:
  struct Found {
    UniqueFd fd;  // O_PATH
    FileStatus status;
  };

  // proc_self_fd: this process's /proc/self/fd, open. A process that is in it has attributes quicker.
  HostFiles(UniqueFd proc_self_fd, const ShareOptions& options);
  // Mounts are told apart from the root's.
  void set_root(const FileStatus& root);

  int proc_self_fd() const { return proc_self_fd_.get(); }
  Outcome<FileStatus> status(int fd) const;
  // What `name` (checked: one component) is in a folder: a link is itself. A mount point that is not to be
  // crossed is an empty folder with a number of its own, or EXDEV where there is none.
  Outcome<Found> look_up(int folder, const std::string& name) const;
  // Opens what an O_PATH descriptor leads to, which is known to be a regular file or a folder. Flags that
  // would make or follow something have no place in here.
  Outcome<UniqueFd> reopen(int fd, int flags) const;
  // An extended attribute of the same: how long it is, which is in `value` then.
  Outcome<size_t> xattr(int fd, const char* name, std::span<char> value) const;

 private:
  UniqueFd open_below(int folder, const char* name) const;
  bool is_elsewhere(const FileStatus& status) const;
  Outcome<Found> closed_mount(int folder, const std::string& name) const;

  UniqueFd proc_self_fd_;
  const bool submounts_;
  const int closed_folder_;
  bool openat2_ = false;
  bool openat_ = false;           // as a way out
  bool is_at_own_files_ = false;  // they are the process's working folder
  uint64_t root_device_ = 0;
  uint64_t root_mount_ = 0;
};

}  // namespace snug
