// The first program of a guest whose root is persistent memory: prints how the root is mounted, and switches
// off.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(void) {
  char line[512];
  mount("proc", "/proc", "proc", 0, NULL);
  FILE* mounts = fopen("/proc/mounts", "r");
  while (mounts != NULL && fgets(line, sizeof line, mounts) != NULL)
    if (strstr(line, " / ") != NULL) printf("root: %s", line);
  fflush(stdout);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}
