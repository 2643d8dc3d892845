// For the tests of shares: one of several that take turns with a file, each somewhere else, and all of it is
// to be exact.
//
// Usage: file-actor FILE
// Reads lines "SEED COUNT CHECKSUM". For each it opens the file, whose length and content must be of that
// checksum ("-": of any), does COUNT operations that follow from SEED, in the file and in memory, and answers
// "ok CHECKSUM SIZE" as the file is then. What the file has is compared with what memory has as it goes.
// Anything else is an answer that says what is wrong, and the end.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kMost = 768 << 10, kPage = 4096, kLongest = 96 << 10, kTraced = 16 };

static unsigned char model[kMost], room[kMost] __attribute__((aligned(kPage)));
static size_t size;
static int plain, appending, direct;  // the same file
static uint64_t state;
static char traces[kTraced][96];
static unsigned traced;

static void trace(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(traces[traced++ % kTraced], sizeof *traces, format, arguments);
  va_end(arguments);
}

static void give_up(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("; before, the latest last:");
  for (unsigned i = traced > kTraced ? traced - kTraced : 0; i < traced; ++i)
    printf(" %s;", traces[i % kTraced]);
  printf("\n");
  exit(1);
}

static void must(int good, const char* what) {
  if (!good) give_up("%s: %s", what, strerrorname_np(errno));
}

// xorshift64*
static uint64_t random_number(void) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dULL;
}
static size_t below(size_t bound) { return bound ? (size_t)(random_number() >> 16) % bound : 0; }

// Small ones more often than large ones.
static size_t length_below(size_t most) {
  size_t length = below(4) ? below(9000) : below(kLongest);
  return length < most ? length : most;
}

static void fill(unsigned char* bytes, size_t count) {
  const uint64_t pattern = random_number() | 0x0101010101010101ULL;
  for (size_t i = 0; i < count; ++i) bytes[i] = (unsigned char)((pattern >> (i % 8 * 8)) + i / 8);
}

static uint64_t checksum(void) {
  uint64_t sum = 0xcbf29ce484222325ULL ^ size;
  for (size_t i = 0; i < size; ++i) sum = (sum ^ model[i]) * 0x100000001b3ULL;
  return sum;
}

static void compare(const unsigned char* found, size_t at, size_t count, const char* how) {
  if (memcmp(found, model + at, count) == 0) return;
  size_t first = 0;
  while (found[first] == model[at + first]) ++first;
  size_t wrong = 0;
  for (size_t i = 0; i < count; ++i) wrong += found[i] != model[at + i];
  give_up("%s of %zu at %zu: %zu bytes are wrong, the first at %zu is %02x, not %02x; the file has %zu", how,
          count, at, wrong, at + first, found[first], model[at + first], size);
}

// Memory gets as long as a file that is written to there.
static void grow_to(size_t end) {
  if (end <= size) return;
  memset(model + size, 0, end - size);
  size = end;
}

static void expect_size(const char* after) {
  struct stat status;
  must(fstat(plain, &status) == 0, "fstat");
  if ((size_t)status.st_size != size)
    give_up("after %s it has %zu bytes, not %zu", after, (size_t)status.st_size, size);
}

// --- operations ------------------------------------------------------------------------------------------
static void read_some(void) {
  const size_t at = below(size + 1), count = length_below(kLongest);
  const size_t wanted = count < size - at ? count : size - at;
  trace("read %zu at %zu", count, at);
  const ssize_t found = pread(plain, room, count, (off_t)at);
  if (found != (ssize_t)wanted) give_up("read of %zu at %zu: %zd bytes, not %zu", count, at, found, wanted);
  compare(room, at, wanted, "read");
}

static void write_some(void) {
  const size_t at = below(8) ? below(size + 1) : below(kMost), count = length_below(kMost - at);
  trace("write %zu at %zu", count, at);
  fill(room, count);
  must(pwrite(plain, room, count, (off_t)at) == (ssize_t)count, "write");
  if (count) grow_to(at + count);
  memcpy(model + at, room, count);
}

static void append_some(void) {
  const size_t count = length_below(kMost - size);
  trace("append %zu at %zu", count, size);
  fill(room, count);
  must(write(appending, room, count) == (ssize_t)count, "append");
  memcpy(model + size, room, count);
  size += count;
}

// Whole pages of the file in memory: behind its end there are only zeros.
static void map_some(int writes) {
  if (size == 0) return;
  const size_t at = below(size) / kPage * kPage;
  size_t count = length_below(kLongest) + 1;
  if (at + count > size) count = size - at;
  trace("%s mapped %zu at %zu", writes ? "write" : "read", count, at);
  unsigned char* const map =
      mmap(NULL, count, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, plain, (off_t)at);
  must(map != MAP_FAILED, "mmap");
  compare(map, at, count, "mapped read");
  if (at + count == size)
    for (size_t i = count; i % kPage; ++i)
      if (map[i]) give_up("mapped, behind the end at %zu: %02x at %zu", size, map[i], at + i);
  if (writes) {
    const size_t from = below(count), some = below(count - from) + 1;
    fill(model + at + from, some);
    memcpy(map + from, model + at + from, some);
    if (below(2)) must(msync(map, count, MS_SYNC) == 0, "msync");
  }
  must(munmap(map, count) == 0, "munmap");
}

static void truncate_it(void) {
  const size_t length = below(3) ? below(size + 1) : below(kMost);
  trace("truncate to %zu from %zu", length, size);
  must(ftruncate(plain, (off_t)length) == 0, "truncate");
  grow_to(length);
  size = length;
  expect_size("truncate");
}

static void allocate(int mode, const char* name) {
  const size_t at = below(kMost - 1), count = length_below(kMost - at - 1) + 1;
  trace("%s %zu at %zu", name, count, at);
  if (fallocate(plain, mode, (off_t)at, (off_t)count) != 0) {
    // Not every file system can.
    if (errno != EOPNOTSUPP) must(0, name);
    return;
  }
  if (!(mode & FALLOC_FL_KEEP_SIZE)) grow_to(at + count);
  if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && at < size)
    memset(model + at, 0, count < size - at ? count : size - at);
  expect_size(name);
}

static void copy_some(void) {
  if (size < 2) return;
  const size_t from = below(size), count = length_below(size - from);
  const size_t to = below(kMost - count);
  if (count == 0 || (to < from + count && from < to + count)) return;
  trace("copy %zu from %zu to %zu", count, from, to);
  off_t in = (off_t)from, out = (off_t)to;
  for (size_t left = count; left > 0;) {
    const ssize_t done = copy_file_range(plain, &in, plain, &out, left, 0);
    must(done > 0, "copy_file_range");
    left -= (size_t)done;
  }
  grow_to(to + count);
  memcpy(model + to, model + from, count);
}

static void write_directly(void) {
  const size_t at = below(kMost / kPage) * kPage;
  size_t count = (below(8) + 1) * kPage;
  if (at + count > kMost) count = kMost - at;
  trace("write directly %zu at %zu", count, at);
  fill(room, count);
  must(pwrite(direct, room, count, (off_t)at) == (ssize_t)count, "direct write");
  grow_to(at + count);
  memcpy(model + at, room, count);
}

static void read_directly(void) {
  const size_t at = below(size / kPage + 1) * kPage, count = (below(8) + 1) * kPage;
  const size_t wanted = at >= size ? 0 : count < size - at ? count : size - at;
  trace("read directly %zu at %zu", count, at);
  const ssize_t found = pread(direct, room, count, (off_t)at);
  if (found != (ssize_t)wanted)
    give_up("direct read of %zu at %zu: %zd bytes, not %zu", count, at, found, wanted);
  compare(room, at, wanted, "direct read");
}

static void open_it(const char* path) {
  must((plain = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) >= 0, "open");
  must((appending = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)) >= 0, "open");
  direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  if (direct < 0 && errno == EINVAL) direct = open(path, O_RDWR | O_CLOEXEC);
  must(direct >= 0, "open");
}

static void close_it(void) {
  must(close(plain) == 0 && close(appending) == 0 && close(direct) == 0, "close");
}

static void operate(const char* path) {
  switch (below(20)) {
    case 0:
    case 1:
    case 2:
      read_some();
      break;
    case 3:
    case 4:
    case 5:
      write_some();
      break;
    case 6:
    case 7:
      append_some();
      break;
    case 8:
      map_some(0);
      break;
    case 9:
    case 10:
      map_some(1);
      break;
    case 11:
      truncate_it();
      break;
    case 12:
      allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch");
      break;
    case 13:
      allocate(below(2) ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero");
      break;
    case 14:
      allocate(below(2) ? 0 : FALLOC_FL_KEEP_SIZE, "allocate");
      break;
    case 15:
      copy_some();
      break;
    case 16:
      write_directly();
      break;
    case 17:
      read_directly();
      break;
    case 18:
      trace("fsync");
      must((below(2) ? fsync(plain) : fdatasync(plain)) == 0, "fsync");
      break;
    default:
      trace("open again");
      close_it();
      open_it(path);
      expect_size("opening");
  }
}

// --- a turn ----------------------------------------------------------------------------------------------
static void read_all(void) {
  struct statx status;
  // What the kernel knew of it is of before another's turn.
  must(statx(plain, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &status) == 0, "statx");
  size = (size_t)status.stx_size;
  if (size > kMost) give_up("it has %zu bytes", size);
  for (size_t at = 0; at < size;) {
    const ssize_t count = pread(plain, model + at, size - at, (off_t)at);
    must(count >= 0, "read");
    if (count == 0) give_up("it ends at %zu and has %zu bytes", at, size);
    at += (size_t)count;
  }
}

static void check_all(const char* when) {
  expect_size(when);
  must(pread(plain, room, size, 0) == (ssize_t)size, "read");
  compare(room, 0, size, when);
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  char line[256], wanted[32];
  while (fgets(line, sizeof line, stdin)) {
    uint64_t seed;
    unsigned operations;
    if (sscanf(line, "%" SCNu64 " %u %31s", &seed, &operations, wanted) != 3) return 2;
    state = seed * 2 + 1;
    traced = 0;
    open_it(arguments[1]);
    read_all();
    if (wanted[0] != '-' && strtoull(wanted, NULL, 16) != checksum())
      give_up("what the last one left is not there: %zu bytes of checksum %016" PRIx64, size, checksum());
    for (unsigned i = 0; i < operations; ++i) operate(arguments[1]);
    check_all("the last operation");
    must(fsync(plain) == 0, "fsync");
    close_it();
    printf("ok %016" PRIx64 " %zu\n", checksum(), size);
    fflush(stdout);
  }
  return 0;
}
