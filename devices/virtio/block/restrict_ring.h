// What a ring of io_uring may be used for. seccomp does not see what is asked through one: without a limit of
// its own, whoever takes the process over could open files by it.
#pragma once

#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace snug {

// `ring` was set up with IORING_SETUP_R_DISABLED, and has its files and its eventfd. From here on it takes
// reads, writes, flushes and fallocate of those files only, others fail with EACCES; for good. Returns 0 or
// an errno. Linux 5.10, which is the oldest that snug runs on.
inline int restrict_ring(io_uring& ring) {
  const auto rule = [](unsigned kind, unsigned value) {
    io_uring_restriction made{};
    made.opcode = static_cast<__u16>(kind);
    made.sqe_op = static_cast<__u8>(value);
    return made;
  };
  std::array rules{
      rule(IORING_RESTRICTION_SQE_OP, IORING_OP_READV),
      rule(IORING_RESTRICTION_SQE_OP, IORING_OP_WRITEV),
      rule(IORING_RESTRICTION_SQE_OP, IORING_OP_FSYNC),
      rule(IORING_RESTRICTION_SQE_OP, IORING_OP_FALLOCATE),
      // Other flags are refused then.
      rule(IORING_RESTRICTION_SQE_FLAGS_REQUIRED, IOSQE_FIXED_FILE),
      // One that changes nothing, so that there is a list of what may be registered, and nothing else is.
      rule(IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_PROBE),
  };
  // liburing's own functions for it are missing in the shared library of Debian 12.
  const auto tell = [&ring](unsigned operation, void* what, size_t count) {
    return ::syscall(SYS_io_uring_register, ring.ring_fd, operation, what, count) < 0 ? errno : 0;
  };
  if (const int error = tell(IORING_REGISTER_RESTRICTIONS, rules.data(), rules.size())) return error;
  return tell(IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

}  // namespace snug
