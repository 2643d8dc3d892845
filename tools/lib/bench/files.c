// What programs do with many files, without the programs.
//   files random FILE SIZE COUNT    reads of SIZE bytes, at places that are the same each time
//   files compile FOLDER COUNT      of FOLDER/src/N.c, each with ten headers that are looked for in three folders:
//                                   opened, looked at and read; each written as FOLDER/out/N.o under another name first
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kHeaders = 10, kObject = 4096 };

static char buffer[65536];

static int fail(const char* what) {
  perror(what);
  return 1;
}

static int read_at_random(const char* path, size_t size, long count) {
  const int fd = open(path, O_RDONLY);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) return fail(path);
  const uint64_t places = (uint64_t)status.st_size / size;
  uint64_t number = 1;
  for (long i = 0; i < count; ++i) {
    number = number * 6364136223846793005u + 1442695040888963407u;
    if (pread(fd, buffer, size, (off_t)((number >> 33) % places * size)) != (ssize_t)size) return fail(path);
  }
  return 0;
}

// Whether it is there.
static int look_into(const char* path) {
  const int fd = open(path, O_RDONLY | O_NOCTTY);
  if (fd < 0) return 0;
  struct stat status;
  fstat(fd, &status);
  while (read(fd, buffer, sizeof buffer) > 0) continue;
  close(fd);
  return 1;
}

static int compile(long number) {
  char path[64], done[64];
  struct stat status;
  snprintf(path, sizeof path, "src/%ld.c", number);
  if (stat(path, &status) != 0 || !look_into(path)) return fail(path);
  for (int header = 0; header < kHeaders; ++header) {
    int found = 0;
    for (const char* folder = "abc"; *folder != '\0' && !found; ++folder) {
      snprintf(path, sizeof path, "include/%c/%d.h", *folder, header);
      found = look_into(path);
    }
    if (!found) return fail(path);
  }
  snprintf(path, sizeof path, "out/%ld.o.new", number);
  snprintf(done, sizeof done, "out/%ld.o", number);
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0 || write(fd, buffer, kObject) != kObject || close(fd) != 0) return fail(path);
  return rename(path, done) == 0 ? 0 : fail(done);
}

int main(int count, char** words) {
  if (count == 5 && strcmp(words[1], "random") == 0)
    return read_at_random(words[2], (size_t)atol(words[3]), atol(words[4]));
  if (count != 4 || strcmp(words[1], "compile") != 0) return 2;
  if (chdir(words[2]) != 0) return fail(words[2]);
  for (long i = 0; i < atol(words[3]); ++i)
    if (compile(i) != 0) return 1;
  return 0;
}
