// Operations with locks of all three kinds.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "posix.h"

// How a lock is waited for: "wait"; "signals", of which the first to come ends it; "restart", signals that do
// not. They come again and again: one could come before the waiting begins.
static void on_signal(int number) { (void)number; }

static void begin_to_wait(const char* how) {
  const int ends = strcmp(how, "signals") == 0;
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = ends ? 0 : SA_RESTART};
  const struct itimerval soon = {{0, 150000}, {0, 150000}};
  if (!ends && strcmp(how, "restart") != 0) return;
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &soon, NULL);
}

static void end_to_wait(void) {
  const int error = errno;
  const struct itimerval never = {{0}, {0}};
  setitimer(ITIMER_REAL, &never, NULL);
  errno = error;
}

// flock SLOT sh|ex|un [wait|signals|restart]
static void do_flock(char** a) {
  static const struct Word kKinds[] = {{"sh", LOCK_SH}, {"ex", LOCK_EX}, {"un", LOCK_UN}, {0}};
  if (a[2]) begin_to_wait(a[2]);
  const int result = flock(open_in(a[0]), (int)words_of(kKinds, a[1]) | (a[2] ? 0 : LOCK_NB));
  end_to_wait();
  say_result(result);
}

static struct flock lock_of(char** a) {
  static const struct Word kKinds[] = {{"r", F_RDLCK}, {"w", F_WRLCK}, {"u", F_UNLCK}, {0}};
  const int at_end = strncmp(a[2], "end", 3) == 0;
  return (struct flock){.l_type = (short)words_of(kKinds, a[1]),
                        .l_whence = at_end ? SEEK_END : SEEK_SET,
                        .l_start = number_of(at_end ? a[2] + 3 : a[2]),
                        .l_len = number_of(a[3])};
}

static void set(int command, int waiting, char** a) {
  struct flock lock = lock_of(a);
  if (a[4]) begin_to_wait(a[4]);
  const int result = fcntl(open_in(a[0]), a[4] ? waiting : command, &lock);
  end_to_wait();
  say_result(result);
}
// lock SLOT r|w|u START LENGTH [wait|signals|restart]: of the process. START may be end+N or end-N.
static void do_lock(char** a) { set(F_SETLK, F_SETLKW, a); }
// The same of what is open.
static void do_open_lock(char** a) { set(F_OFD_SETLK, F_OFD_SETLKW, a); }

// killed-lock SLOT r|w START LENGTH: a child waits for it, and is killed by who waits for its end.
static void do_killed_lock(char** a) {
  struct flock lock = lock_of(a);
  const int file = open_in(a[0]);
  const pid_t child = fork();
  if (child == 0) _exit(fcntl(file, F_SETLKW, &lock) == 0 ? 0 : 1);
  usleep(300000);
  kill(child, SIGKILL);
  int status = 0;
  if (waitpid(child, &status, 0) != child)
    say_errno();
  else
    say("%s", WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) == 0 ? "locked" : "refused");
}

// crowd-lock SLOT COUNT: so many children wait for what their parent has locked, and then gives back. Whether
// so many may wait is not said, but that all of them end.
static void do_crowd_lock(char** a) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  const int file = open_in(a[0]);
  const long count = number_of(a[1]);
  int ready[2];
  if (fcntl(file, F_SETLK, &lock) != 0 || pipe(ready) != 0) {
    say_errno();
    return;
  }
  for (long i = 0; i < count; ++i) {
    if (fork() != 0) continue;
    if (write(ready[1], "", 1) != 1) _exit(2);
    _exit(fcntl(file, F_SETLKW, &lock) == 0 || errno == ENOLCK ? 0 : 1);
  }
  close(ready[1]);
  char one;
  for (long i = 0; i < count; ++i)
    if (read(ready[0], &one, 1) != 1) break;
  close(ready[0]);
  usleep(300000);
  lock.l_type = F_UNLCK;
  fcntl(file, F_SETLK, &lock);
  long ended = 0;
  int status = 0;
  while (wait(&status) > 0) ended += WIFEXITED(status) && WEXITSTATUS(status) == 0;
  say("%ld of %ld", ended, count);
}

// pass MILLISECONDS
static void do_pass(char** a) {
  usleep((unsigned)number_of(a[0]) * 1000);
  say("ok");
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
    {"killed-lock", 4, 4, do_killed_lock},
    {"crowd-lock", 2, 2, do_crowd_lock},
    {"pass", 1, 1, do_pass},
    {"test-lock", 4, 4, do_test_lock},
    {"test-open-lock", 4, 4, do_test_open_lock},
    {0},
};
