#include "vmm/jail/share_rules.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdio>

namespace snug::jail {
namespace {

constexpr long kOpenat2 = 437;

ArgumentTest has(uint8_t argument, uint64_t bit) {
  return {.argument = argument, .kind = ArgumentTest::Kind::kMasked64, .value = bit, .mask = bit};
}
ArgumentTest type_is(uint8_t argument, mode_t type) {
  return {.argument = argument, .kind = ArgumentTest::Kind::kMasked64, .value = type, .mask = S_IFMT};
}

constexpr uint64_t kFlagsOfFound = O_ACCMODE | O_CLOEXEC | O_NOCTTY | O_PATH | O_NOFOLLOW | O_DIRECTORY |
                                   O_TRUNC | O_SYNC | O_DSYNC | O_TMPFILE | O_LARGEFILE | O_APPEND;
constexpr uint64_t kNew = O_CREAT | O_EXCL | O_NOFOLLOW;

ArgumentTest makes_new(uint8_t argument) {
  return {.argument = argument,
          .kind = ArgumentTest::Kind::kMasked64,
          .value = kNew,
          .mask = kNew | ~(kFlagsOfFound | kNew)};
}

Arguments no_code(uint8_t protection) { return {without(protection, ~uint64_t{PROT_READ | PROT_WRITE})}; }

}  // namespace

// What a name leads to is for the root of the process and openat2 to say: a filter sees no names.
std::vector<CallRule> share_rules() {
  return {
      // The guest's requests.
      {SYS_epoll_wait, "doorbells", {}},
      {SYS_write, "interrupts, log lines", {}},
      {SYS_futex, "locks, joins", {}},
      {kOpenat2, "a name in a folder", {}},
      {SYS_openat,
       "a file that was found; a new one, which nobody else has made",
       {{without(2, ~kFlagsOfFound)}, {makes_new(2)}}},
      {SYS_close, "files", {}},
      {SYS_statx, "what a file is", {{has(2, AT_EMPTY_PATH)}}},
      {SYS_newfstatat, "guest memory", {{has(3, AT_EMPTY_PATH)}}},
      {SYS_fstat, "guest memory", {}},
      {SYS_preadv2, "files to guest memory", {{is(5, 0)}}},
      {SYS_pwritev2, "guest memory to files", {{without(5, ~uint64_t{RWF_APPEND | RWF_SYNC | RWF_DSYNC})}}},
      {SYS_getdents64, "folders", {}},
      {SYS_lseek, "holes; places in folders", {{one_of(2, {SEEK_SET, SEEK_DATA, SEEK_HOLE})}}},
      {SYS_readlinkat, "symbolic links", {}},
      {SYS_mkdirat, "changes", {}},
      // Nothing that leads to a device.
      {SYS_mknodat, "pipes, sockets", {{type_is(2, S_IFIFO)}, {type_is(2, S_IFSOCK)}}},
      {SYS_unlinkat, "changes", {{one_of(2, {0, AT_REMOVEDIR})}}},
      {SYS_renameat2, "changes", {{one_of(4, {0, RENAME_NOREPLACE, RENAME_EXCHANGE})}}},
      {SYS_linkat, "changes", {{is(4, AT_SYMLINK_FOLLOW)}}},
      {SYS_symlinkat, "changes", {}},
      {SYS_fchmodat, "changes", {{without(2, S_ISUID)}}},
      {SYS_fchownat, "changes", {{has(4, AT_EMPTY_PATH)}}},
      {SYS_utimensat, "changes", {{has(3, AT_EMPTY_PATH)}}},
      {SYS_ftruncate, "changes", {}},
      {SYS_fallocate, "changes", {{without(1, ~uint64_t{0x7f})}}},
      {SYS_copy_file_range, "changes", {{is(5, 0)}}},
      {SYS_fsetxattr, "changes", {}},
      {SYS_fremovexattr, "changes", {}},
      {SYS_fgetxattr, "the guest's own", {}},
      {SYS_getxattr, "the guest's own; owners that the host refuses", {}},
      {SYS_flistxattr, "the guest's own", {}},
      {SYS_fsync, "what is to be on the medium", {}},
      {SYS_fdatasync, "what is to be on the medium", {}},
      {SYS_syncfs, "what is to be on the medium", {}},
      {SYS_fstatfs, "room", {}},
      {SYS_flock, "locks between machines and programs", {{has(1, LOCK_NB)}}},
      {SYS_fcntl,
       "locks between machines and programs; whether guest memory can shrink; how files of a guest that is "
       "saved are open",
       {{one_of(1, {static_cast<uint32_t>(F_OFD_GETLK), static_cast<uint32_t>(F_OFD_SETLK),
                    static_cast<uint32_t>(F_GET_SEALS), static_cast<uint32_t>(F_GETFL)})}}},
      // The device: guests come and go, each with its memory.
      {SYS_recvmsg, "calls of the device", {}},
      {SYS_sendmsg, "answers to it", {}},
      {SYS_poll, "whether it has gone; locks that are waited for", {}},
      {SYS_read, "the loop is told", {}},
      {SYS_epoll_ctl, "doorbells come and go", {}},
      {SYS_timerfd_settime, "locks that are waited for", {}},
      // Any thread.
      {SYS_mmap, "malloc; guest memory", {no_code(2)}},
      {SYS_munmap, "malloc; guest memory", {}},
      {SYS_mprotect, "malloc's arenas", {no_code(2)}},
      {SYS_madvise,
       "malloc; guest memory",
       {{one_of(2, {MADV_DONTNEED, MADV_HUGEPAGE, MADV_DONTFORK, MADV_DONTDUMP})}}},
      {SYS_brk, "malloc", {}},
      {SYS_mremap, "malloc can do without", {}, ENOMEM},
      {SYS_sched_getaffinity, "malloc can do without", {}, EPERM},
      {SYS_clock_gettime, "time, where the kernel's page for it has none", {}},
      {SYS_rt_sigprocmask, "to end, to abort", {}},
      {SYS_exit, "a thread ends", {}},
      {SYS_exit_group, "the end of the process", {}},
      {SYS_restart_syscall, "after SIGSTOP and SIGCONT", {}, EINTR},
  };
}

}  // namespace snug::jail
