// Operations on what is open, and what is in it.
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "posix.h"

enum { kMost = 4 << 20 };

int slots[kSlots];
static struct {
  unsigned char* at;
  size_t size;
} maps[kSlots];
static unsigned char room[kMost] __attribute__((aligned(4096)));

int* slot_of(const char* number) { return &slots[number_of(number) % kSlots]; }
// None is open as 0, which is none of ours.
int open_in(const char* number) { return *slot_of(number) > 0 ? *slot_of(number) : -1; }

void forget_names(void);
void forget_files(void) {
  forget_names();
  for (int i = 0; i < kSlots; ++i) {
    if (maps[i].at) munmap(maps[i].at, maps[i].size);
    maps[i].at = NULL;
    if (slots[i] > 0) close(slots[i]);
    slots[i] = 0;
  }
}

void say_bytes(const unsigned char* bytes, size_t size) {
  say("%zu:", size);
  for (size_t at = 0; at < size && strlen(said) < kText - 64;) {
    size_t run = 1;
    while (at + run < size && bytes[at + run] == bytes[at]) ++run;
    if (run > 4)
      say(bytes[at] > ' ' && bytes[at] < 127 ? "{%c*%zu}" : "{\\%o*%zu}", bytes[at], run);
    else
      for (size_t i = 0; i < run; ++i) say(bytes[at] > ' ' && bytes[at] < 127 ? "%c" : "\\%o", bytes[at]);
    at += run;
  }
}

static void say_count(ssize_t count) {
  if (count < 0)
    say_errno();
  else
    say("%zd", count);
}

static void do_open(char** a) {
  static const struct Word kFlags[] = {{"r", O_RDONLY},
                                       {"w", O_WRONLY},
                                       {"rw", O_RDWR},
                                       {"creat", O_CREAT},
                                       {"excl", O_EXCL},
                                       {"trunc", O_TRUNC},
                                       {"append", O_APPEND},
                                       {"nofollow", O_NOFOLLOW},
                                       {"directory", O_DIRECTORY},
                                       {"tmpfile", O_TMPFILE},
                                       {"direct", O_DIRECT},
                                       {"path", O_PATH},
                                       {"nonblock", O_NONBLOCK},
                                       {"sync", O_SYNC},
                                       {"dsync", O_DSYNC},
                                       {"noatime", O_NOATIME},
                                       {0}};
  int* const slot = slot_of(a[0]);
  if (*slot > 0) close(*slot);
  *slot = open(a[1], (int)words_of(kFlags, a[2]) | O_CLOEXEC, a[3] ? mode_of(a[3]) : 0644);
  say_result(*slot);
  if (*slot < 0) *slot = 0;
}

static void do_close(char** a) {
  say_result(close(open_in(a[0])));
  *slot_of(a[0]) = 0;
}

static void do_dup(char** a) {
  *slot_of(a[1]) = dup(open_in(a[0]));
  say_result(open_in(a[1]));
}

static size_t fitting(const char* text) {
  const long size = number_of(text);
  return size < 0 || size > kMost ? kMost : (size_t)size;
}

static void do_read(char** a) {
  const ssize_t count = a[2] ? pread(open_in(a[0]), room, fitting(a[1]), number_of(a[2]))
                             : read(open_in(a[0]), room, fitting(a[1]));
  if (count < 0)
    say_errno();
  else
    say_bytes(room, (size_t)count);
}

static void do_write(char** a) {
  say_count(a[2] ? pwrite(open_in(a[0]), a[1], strlen(a[1]), number_of(a[2]))
                 : write(open_in(a[0]), a[1], strlen(a[1])));
}

// Of memory that is aligned, as O_DIRECT wants it: SIZE bytes of a letter.
static void do_write_aligned(char** a) {
  memset(room, a[1][0], fitting(a[2]));
  say_count(pwrite(open_in(a[0]), room, fitting(a[2]), number_of(a[3])));
}

// A file of that text, made or written anew.
static void do_put(char** a) {
  const int fd = open(a[0], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, a[2] ? mode_of(a[2]) : 0644);
  if (fd < 0) {
    say_errno();
    return;
  }
  say_count(write(fd, a[1], strlen(a[1])));
  close(fd);
}

static void do_cat(char** a) {
  const int fd = open(a[0], O_RDONLY | O_CLOEXEC);
  const ssize_t count = fd < 0 ? -1 : read(fd, room, sizeof room);
  if (count < 0)
    say_errno();
  else
    say_bytes(room, (size_t)count);
  if (fd >= 0) close(fd);
}

static void do_seek(char** a) {
  static const struct Word kWhence[] = {{"set", SEEK_SET},
                                        {"cur", SEEK_CUR},
                                        {"end", SEEK_END},
                                        {"data", SEEK_DATA},
                                        {"hole", SEEK_HOLE},
                                        {"other", 77},
                                        {0}};
  say_count(lseek(open_in(a[0]), number_of(a[1]), (int)words_of(kWhence, a[2])));
}

static void do_truncate(char** a) { say_result(truncate(a[0], number_of(a[1]))); }
static void do_ftruncate(char** a) { say_result(ftruncate(open_in(a[0]), number_of(a[1]))); }
static void do_fsync(char** a) { say_result(fsync(open_in(a[0]))); }
static void do_fdatasync(char** a) { say_result(fdatasync(open_in(a[0]))); }
static void do_syncfs(char** a) { say_result(syncfs(open_in(a[0]))); }

static void do_fallocate(char** a) {
  static const struct Word kModes[] = {{"plain", 0},
                                       {"keep", FALLOC_FL_KEEP_SIZE},
                                       {"punch", FALLOC_FL_PUNCH_HOLE},
                                       {"zero", FALLOC_FL_ZERO_RANGE},
                                       {"collapse", FALLOC_FL_COLLAPSE_RANGE},
                                       {"insert", FALLOC_FL_INSERT_RANGE},
                                       {0}};
  say_result(fallocate(open_in(a[0]), (int)words_of(kModes, a[1]), number_of(a[2]), number_of(a[3])));
}

static void do_copy(char** a) {
  off_t from = number_of(a[1]), to = number_of(a[3]);
  say_count(copy_file_range(open_in(a[0]), &from, open_in(a[2]), &to, (size_t)number_of(a[4]), 0));
}

// Whether it takes any room on its disk.
static void do_blocks(char** a) {
  struct stat status;
  if (stat(a[0], &status) != 0)
    say_errno();
  else
    say(status.st_blocks == 0                     ? "none"
        : status.st_blocks * 512 < status.st_size ? "fewer than its size"
                                                  : "as many as its size");
}

static void do_map(char** a) {
  const long slot = number_of(a[0]) % kSlots;
  const int shared = strcmp(a[1], "shared") == 0;
  const int rights = a[3] ? PROT_READ : PROT_READ | PROT_WRITE;
  maps[slot].size = (size_t)number_of(a[2]);
  maps[slot].at = mmap(NULL, maps[slot].size, rights, shared ? MAP_SHARED : MAP_PRIVATE, open_in(a[0]), 0);
  if (maps[slot].at == MAP_FAILED) maps[slot].at = NULL;
  say_result(maps[slot].at ? 0 : -1);
}
// Memory at an offset of what is mapped, or null.
static unsigned char* mapped(const char* slot, const char* offset) {
  unsigned char* const at = maps[number_of(slot) % kSlots].at;
  if (!at) say("nothing is mapped");
  return at ? at + number_of(offset) : NULL;
}
static void do_map_read(char** a) {
  const unsigned char* const at = mapped(a[0], a[2]);
  if (at) say_bytes(at, (size_t)number_of(a[1]));
}
static void do_map_write(char** a) {
  unsigned char* const at = mapped(a[0], a[2]);
  if (!at) return;
  memcpy(at, a[1], strlen(a[1]));
  say("ok");
}
static void do_map_sync(char** a) {
  unsigned char* const at = mapped(a[0], "0");
  if (at) say_result(msync(at, maps[number_of(a[0]) % kSlots].size, MS_SYNC));
}
static void do_unmap(char** a) {
  const long slot = number_of(a[0]) % kSlots;
  say_result(munmap(maps[slot].at, maps[slot].size));
  maps[slot].at = NULL;
}

// A socket under a name: listening in a slot, or a connection to it.
static void do_socket(char** a) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", a[2]);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int listens = strcmp(a[1], "listen") == 0;
  *slot_of(a[0]) = fd;
  if ((listens ? bind : connect)(fd, (struct sockaddr*)&address, sizeof address) != 0 ||
      (listens && listen(fd, 4) != 0))
    say_errno();
  else
    say("ok");
}

const struct Step file_steps[] = {
    {"open", 3, 4, do_open},
    {"close", 1, 1, do_close},
    {"dup", 2, 2, do_dup},
    {"read", 2, 3, do_read},
    {"write", 2, 3, do_write},
    {"write-aligned", 4, 4, do_write_aligned},
    {"put", 2, 3, do_put},
    {"cat", 1, 1, do_cat},
    {"seek", 3, 3, do_seek},
    {"truncate", 2, 2, do_truncate},
    {"ftruncate", 2, 2, do_ftruncate},
    {"fsync", 1, 1, do_fsync},
    {"fdatasync", 1, 1, do_fdatasync},
    {"syncfs", 1, 1, do_syncfs},
    {"fallocate", 4, 4, do_fallocate},
    {"copy", 5, 5, do_copy},
    {"blocks", 1, 1, do_blocks},
    {"map", 3, 4, do_map},
    {"map-read", 3, 3, do_map_read},
    {"map-write", 3, 3, do_map_write},
    {"map-sync", 1, 1, do_map_sync},
    {"unmap", 1, 1, do_unmap},
    {"socket", 3, 3, do_socket},
    {0},
};
