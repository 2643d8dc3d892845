// Gives back what comes in on each connection to a TCP port, for as long as it is open.
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void echo(int connection) {
  char buffer[65536];
  for (;;) {
    const ssize_t count = read(connection, buffer, sizeof buffer);
    if (count <= 0) exit(count < 0);
    for (ssize_t at = 0; at < count;) {
      const ssize_t written = write(connection, buffer + at, (size_t)(count - at));
      if (written < 0) exit(1);
      at += written;
    }
  }
}

int main(int argc, char** argv) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "7"));
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 || listen(listener, 8) != 0) return 1;
  for (;;) {
    const int connection = accept(listener, 0, 0);
    if (connection < 0) return 1;
    if (fork() == 0) echo(connection);
    close(connection);
  }
}
