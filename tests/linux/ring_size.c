// For the tests of virtio queues: sets how many buffers an interface's queues have (ethtool -G NAME rx N tx N).
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int count, char** arguments) {
  if (count != 3) return 2;
  struct ethtool_ringparam ring = {.cmd = ETHTOOL_GRINGPARAM};
  struct ifreq request = {.ifr_data = (void*)&ring};
  strncpy(request.ifr_name, arguments[1], IFNAMSIZ - 1);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request) != 0) return perror("ETHTOOL_GRINGPARAM"), 1;
  ring.cmd = ETHTOOL_SRINGPARAM;
  ring.rx_pending = ring.tx_pending = (unsigned)atoi(arguments[2]);
  if (ioctl(fd, SIOCETHTOOL, &request) != 0) return perror("ETHTOOL_SRINGPARAM"), 1;
  ring.cmd = ETHTOOL_GRINGPARAM;
  if (ioctl(fd, SIOCETHTOOL, &request) != 0) return perror("ETHTOOL_GRINGPARAM"), 1;
  printf("rx %u tx %u\n", ring.rx_pending, ring.tx_pending);
  return 0;
}
