// Requests and responses over TCP, a byte each way, one after the other.
//   rr serve PORT             answers for ever, one client at a time
//   rr ask ADDRESS PORT COUNT prints how many, and the nanoseconds that they took together
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(const char* what) {
  perror(what);
  return 1;
}

static int serve(int listener, const struct sockaddr_in* address) {
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (const struct sockaddr*)address, sizeof *address) != 0) return fail("bind");
  if (listen(listener, 8) != 0) return fail("listen");
  for (;;) {
    const int client = accept(listener, NULL, NULL);
    if (client < 0) return fail("accept");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char byte;
    while (read(client, &byte, 1) == 1 && write(client, &byte, 1) == 1) {
    }
    close(client);
  }
}

static int ask(int server, const struct sockaddr_in* address, long count) {
  const int on = 1;
  if (connect(server, (const struct sockaddr*)address, sizeof *address) != 0) return fail("connect");
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < count; ++i) {
    char byte = 'x';
    if (write(server, &byte, 1) != 1 || read(server, &byte, 1) != 1) return fail("no answer");
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("rr: %ld %lld\n", count, (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec);
  return 0;
}

int main(int count, char** words) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  const int asks = count == 5 && strcmp(words[1], "ask") == 0;
  if (!asks && !(count == 3 && strcmp(words[1], "serve") == 0)) return 2;
  if (asks && inet_pton(AF_INET, words[2], &address.sin_addr) != 1) return 2;
  address.sin_port = htons((unsigned short)atoi(words[asks ? 3 : 2]));
  const int socket_ = socket(AF_INET, SOCK_STREAM, 0);
  if (socket_ < 0) return fail("socket");
  return asks ? ask(socket_, &address, atol(words[4])) : serve(socket_, &address);
}
