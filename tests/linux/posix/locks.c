// Operations with locks of all three kinds.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "posix.h"

// flock SLOT sh|ex|un [wait]
static void do_flock(char** a) {
  static const struct Word kKinds[] = {{"sh", LOCK_SH}, {"ex", LOCK_EX}, {"un", LOCK_UN}, {0}};
  say_result(flock(open_in(a[0]), (int)words_of(kKinds, a[1]) | (a[2] ? 0 : LOCK_NB)));
}

static struct flock lock_of(char** a) {
  static const struct Word kKinds[] = {{"r", F_RDLCK}, {"w", F_WRLCK}, {"u", F_UNLCK}, {0}};
  const int at_end = strncmp(a[2], "end", 3) == 0;
  return (struct flock){.l_type = (short)words_of(kKinds, a[1]),
                        .l_whence = at_end ? SEEK_END : SEEK_SET,
                        .l_start = number_of(at_end ? a[2] + 3 : a[2]),
                        .l_len = number_of(a[3])};
}

// lock SLOT r|w|u START LENGTH [wait]: of the process. START may be end+N or end-N.
static void do_lock(char** a) {
  struct flock lock = lock_of(a);
  say_result(fcntl(open_in(a[0]), a[4] ? F_SETLKW : F_SETLK, &lock));
}
// The same of what is open.
static void do_open_lock(char** a) {
  struct flock lock = lock_of(a);
  say_result(fcntl(open_in(a[0]), a[4] ? F_OFD_SETLKW : F_OFD_SETLK, &lock));
}

static void test(int command, char** a) {
  struct flock lock = lock_of(a);
  if (fcntl(open_in(a[0]), command, &lock) != 0)
    say_errno();
  else if (lock.l_type == F_UNLCK)
    say("free");
  else
    say("%s from %ld for %ld, whose %s", lock.l_type == F_RDLCK ? "r" : "w", (long)lock.l_start,
        (long)lock.l_len,
        lock.l_pid > 0     ? "is a process"
        : lock.l_pid == -1 ? "is open"
                           : "nobody says");
}
static void do_test_lock(char** a) { test(F_GETLK, a); }
static void do_test_open_lock(char** a) { test(F_OFD_GETLK, a); }

const struct Step lock_steps[] = {
    {"flock", 2, 3, do_flock},
    {"lock", 4, 5, do_lock},
    {"open-lock", 4, 5, do_open_lock},
    {"test-lock", 4, 4, do_test_lock},
    {"test-open-lock", 4, 4, do_test_open_lock},
    {0},
};
