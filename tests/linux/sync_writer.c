// For the disk tests, as a guest's first program: writes numbered records to a disk without end and says of
// each that is on the medium, "synced NUMBER", on the console. `base=N` on the kernel command line is where
// the numbers begin.
//
// Record n has four pages in slot n % 64, each full of the number and of its own place: a reader can tell
// which record any page is from, and whether it is whole.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kPage = 4096, kPages = 4, kSlots = 64 };

int main(void) {
  static uint64_t record[kPages * kPage / sizeof(uint64_t)];
  mkdir("/dev", 0755);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  const int disk = open("/dev/vda", O_RDWR);
  const int console = open("/dev/console", O_WRONLY);
  const char* base = getenv("base");
  if (disk < 0 || base == NULL) {
    dprintf(console, "no disk or no base\n");
    return 1;
  }
  for (uint64_t number = strtoull(base, NULL, 10);; ++number) {
    for (uint64_t i = 0; i < sizeof record / sizeof record[0]; ++i) record[i] = number << 16 | i;
    const off_t place = (off_t)(number % kSlots) * sizeof record;
    if (pwrite(disk, record, sizeof record, place) != sizeof record || fsync(disk) != 0) {
      dprintf(console, "record %llu failed\n", (unsigned long long)number);
      return 1;
    }
    dprintf(console, "synced %llu\n", (unsigned long long)number);
  }
}
