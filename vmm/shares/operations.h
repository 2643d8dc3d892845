// What a guest can ask for, each by its opcode. An operation takes its arguments from the request, works on
// the share and puts what it answers into the reply, or returns the errno value that is the answer.
//
// Thread: any number at a time, but those marked as alone.
#pragma once

#include <cstdint>
#include <span>

#include "vmm/shares/request.h"
#include "vmm/shares/share.h"

namespace snug {

struct Operation {
  // What the table says of it; several.
  enum Trait : uint8_t {
    kChanges = 1,    // not where the share is read-only
    kAlone = 2,      // while no other operation runs
    kSilent = 4,     // has no reply
    kData = 8,       // data follows the arguments
    kUnstarted = 16  // before FUSE_INIT as well
  };

  uint32_t opcode;
  Outcome<> (*run)(Share&, Request&, Reply&);
  uint32_t arguments;  // bytes behind the header, at most, but for data
  uint32_t answer;     // bytes behind the reply's header that there must be room for
  uint8_t traits;
};

// Null: none that is known.
const Operation* find_operation(uint32_t opcode);

namespace operations {

using Result = Outcome<>;

// operations_session.cpp
Result init(Share&, Request&, Reply&);
Result destroy(Share&, Request&, Reply&);
Result forget(Share&, Request&, Reply&);
Result batch_forget(Share&, Request&, Reply&);
Result statfs(Share&, Request&, Reply&);
Result syncfs(Share&, Request&, Reply&);
Result not_an_ioctl(Share&, Request&, Reply&);
// operations_inode.cpp
Result lookup(Share&, Request&, Reply&);
Result getattr(Share&, Request&, Reply&);
Result setattr(Share&, Request&, Reply&);
Result readlink(Share&, Request&, Reply&);
Result access(Share&, Request&, Reply&);
// operations_make.cpp
Result symlink(Share&, Request&, Reply&);
Result mknod(Share&, Request&, Reply&);
Result mkdir(Share&, Request&, Reply&);
Result link(Share&, Request&, Reply&);
Result create(Share&, Request&, Reply&);
Result tmpfile(Share&, Request&, Reply&);
// operations_names.cpp
Result unlink(Share&, Request&, Reply&);
Result rmdir(Share&, Request&, Reply&);
Result rename(Share&, Request&, Reply&);
Result rename2(Share&, Request&, Reply&);
// operations_open.cpp
Result open(Share&, Request&, Reply&);
Result release(Share&, Request&, Reply&);
Result flush(Share&, Request&, Reply&);
Result fsync(Share&, Request&, Reply&);
Result opendir(Share&, Request&, Reply&);
Result readdir(Share&, Request&, Reply&);
Result readdirplus(Share&, Request&, Reply&);
// operations_xattrs.cpp
Result setxattr(Share&, Request&, Reply&);
Result getxattr(Share&, Request&, Reply&);
Result listxattr(Share&, Request&, Reply&);
Result removexattr(Share&, Request&, Reply&);
// operations_locks.cpp
Result getlk(Share&, Request&, Reply&);
Result setlk(Share&, Request&, Reply&);
Result setlkw(Share&, Request&, Reply&);
Result interrupt(Share&, Request&, Reply&);
// operations_data.cpp
Result read(Share&, Request&, Reply&);
Result write(Share&, Request&, Reply&);
Result fallocate(Share&, Request&, Reply&);
Result lseek(Share&, Request&, Reply&);
Result copy_file_range(Share&, Request&, Reply&);

}  // namespace operations
}  // namespace snug
