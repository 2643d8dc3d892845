// Operations on modes, owners, times and extended attributes.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "posix.h"

static uid_t user_of(const char* text) { return (uid_t)number_of(text); }

static void do_chmod(char** a) { say_result(chmod(a[0], (mode_t)mode_of(a[1]))); }
static void do_fchmod(char** a) { say_result(fchmod(open_in(a[0]), (mode_t)mode_of(a[1]))); }
static void do_chown(char** a) { say_result(chown(a[0], user_of(a[1]), user_of(a[2]))); }
static void do_lchown(char** a) { say_result(lchown(a[0], user_of(a[1]), user_of(a[2]))); }
static void do_fchown(char** a) { say_result(fchown(open_in(a[0]), user_of(a[1]), user_of(a[2]))); }

// --- times -----------------------------------------------------------------------------------------------
static struct stat marked[2];

// Longer than a tick of any clock that files get their times of.
static void pass_time(void) { usleep(24000); }

// Remembers a path's times; those of what happens afterwards are others.
static void do_mark(char** a) {
  const int result = lstat(a[0], &marked[a[1] != NULL]);
  say_result(result);
  pass_time();
}

// Some times are of the guest's clock and some of the host's: which is later is nobody's to say.
static const char* since(struct timespec now, struct timespec before) {
  return now.tv_sec == before.tv_sec && now.tv_nsec == before.tv_nsec ? "same" : "new";
}

static void do_since(char** a) {
  struct stat now;
  const struct stat* const before = &marked[a[1] != NULL];
  if (lstat(a[0], &now) != 0)
    say_errno();
  else
    say("data %s, status %s", since(now.st_mtim, before->st_mtim), since(now.st_ctim, before->st_ctim));
}

static void do_times(char** a) {
  struct stat now;
  if (lstat(a[0], &now) != 0)
    say_errno();
  else
    say("read %ld.%09ld written %ld.%09ld", now.st_atim.tv_sec, now.st_atim.tv_nsec, now.st_mtim.tv_sec,
        now.st_mtim.tv_nsec);
}

static struct timespec time_of(const char* text) {
  if (strcmp(text, "now") == 0) return (struct timespec){0, UTIME_NOW};
  if (strcmp(text, "omit") == 0) return (struct timespec){0, UTIME_OMIT};
  char* end;
  struct timespec time = {.tv_sec = strtol(text, &end, 10)};
  if (*end == '.') time.tv_nsec = strtol(end + 1, NULL, 10);
  return time;
}

static void do_utimens(char** a) {
  const struct timespec times[] = {time_of(a[1]), time_of(a[2])};
  say_result(utimensat(AT_FDCWD, a[0], times, a[3] ? AT_SYMLINK_NOFOLLOW : 0));
}
static void do_futimens(char** a) {
  const struct timespec times[] = {time_of(a[1]), time_of(a[2])};
  say_result(futimens(open_in(a[0]), times));
}

// --- extended attributes ---------------------------------------------------------------------------------
static void do_setx(char** a) {
  static const struct Word kFlags[] = {{"create", XATTR_CREATE}, {"replace", XATTR_REPLACE}, {0}};
  const char* const value = strcmp(a[2], "-") == 0 ? "" : a[2];
  say_result(lsetxattr(a[0], a[1], value, strlen(value), a[3] ? (int)words_of(kFlags, a[3]) : 0));
}

static void do_getx(char** a) {
  static unsigned char value[1 << 16];
  const ssize_t size = lgetxattr(a[0], a[1], value, a[2] ? (size_t)number_of(a[2]) : sizeof value);
  if (size < 0)
    say_errno();
  else if (a[2] && number_of(a[2]) == 0)
    say("%zd bytes", size);
  else
    say_bytes(value, (size_t)size);
}

static void do_fgetx(char** a) {
  static unsigned char value[1 << 16];
  const ssize_t size = fgetxattr(open_in(a[0]), a[1], value, sizeof value);
  if (size < 0)
    say_errno();
  else
    say_bytes(value, (size_t)size);
}

static int compare(const void* one, const void* other) {
  return strcmp(*(char* const*)one, *(char* const*)other);
}

static void do_listx(char** a) {
  static char names[1 << 16];
  const ssize_t size = llistxattr(a[0], names, a[1] ? (size_t)number_of(a[1]) : sizeof names);
  if (size < 0) {
    say_errno();
    return;
  }
  if (a[1] && number_of(a[1]) == 0) {
    say("%zd bytes", size);
    return;
  }
  char* sorted[256];
  size_t count = 0;
  for (char* at = names; at < names + size && count < 256; at += strlen(at) + 1) sorted[count++] = at;
  qsort(sorted, count, sizeof *sorted, compare);
  for (size_t i = 0; i < count; ++i) say("%s%s", i ? ", " : "", sorted[i]);
  if (count == 0) say("none");
}

static void do_rmx(char** a) { say_result(lremovexattr(a[0], a[1])); }

const struct Step attribute_steps[] = {
    {"chmod", 2, 2, do_chmod},     {"fchmod", 2, 2, do_fchmod},
    {"chown", 3, 3, do_chown},     {"lchown", 3, 3, do_lchown},
    {"fchown", 3, 3, do_fchown},   {"mark", 1, 2, do_mark},
    {"since", 1, 2, do_since},     {"times", 1, 1, do_times},
    {"utimens", 3, 4, do_utimens}, {"futimens", 3, 3, do_futimens},
    {"setx", 3, 4, do_setx},       {"getx", 2, 3, do_getx},
    {"fgetx", 2, 2, do_fgetx},     {"listx", 1, 2, do_listx},
    {"rmx", 2, 2, do_rmx},         {0},
};
