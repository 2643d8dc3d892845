// For the network tests: answers every datagram to a port with "echo " and what it held.
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char** arguments) {
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(arguments[1]) : 7)};
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr*)&own, sizeof own) != 0) return 1;
  for (;;) {
    char data[2048] = "echo ";
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    const ssize_t length = recvfrom(fd, data + 5, sizeof data - 5, 0, (struct sockaddr*)&peer, &size);
    if (length >= 0) sendto(fd, data, 5 + length, 0, (struct sockaddr*)&peer, size);
  }
}
