// Lets a device read from, and write to, memory that is a file's own (DAX): dax_direct FILE DISK. The first
// MiB of FILE, at least 2 MiB long, goes to DISK past every cache, and comes back from there into FILE's
// second MiB.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char** argv) {
  enum { kBytes = 1 << 20 };
  if (argc != 3) errx(2, "dax_direct FILE DISK");
  const int file = open(argv[1], O_RDWR);
  const int disk = open(argv[2], O_RDWR | O_DIRECT);
  if (file < 0 || disk < 0) err(1, "open");
  char* memory = mmap(NULL, 2 * kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) err(1, "mmap");
  if (pwrite(disk, memory, kBytes, 0) != kBytes) err(1, "write to the disk");
  if (pread(disk, memory + kBytes, kBytes, 0) != kBytes) err(1, "read from the disk");
  if (msync(memory, 2 * kBytes, MS_SYNC) != 0) err(1, "msync");
  return 0;
}
