// For the tests of sockets between host and guest: the guest's side, which the host drives through it.
//   port 1000  echoes, until the end of the stream
//   port 1001  reads to the end, answers with "BYTES SUM\n"
//   port 1002  reads a line "BYTES\n", sends that many
//   port 1003  reads nothing
//   port 1004  answers to lines:
//     connect PORT COUNT BYTES   COUNT connections at once, each sends BYTES and wants them back:
//                                "GOOD ERRNO\n", ERRNO the last failure's or 0
//     flood PORT                 sends until that fails: "BYTES ERRNO\n"
//     fill PORT                  sends until there is no room for a while, keeps the connection: "BYTES\n"
//     end PORT BYTES             sends BYTES, says that nothing follows, reads to the end: "BYTES SUM\n"
//     die PORT                   a process that is killed in the middle of sending: "0\n"
//     run COMMAND                begins it in a shell: "0\n"
//     quit
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kChunk = 65536 };

// What the byte at a place of a stream is.
static unsigned char pattern(uint64_t at) { return (unsigned char)(at * 31 + (at >> 8) * 7 + (at >> 16)); }

static int reach(unsigned port) {
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
  const int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr*)&address, sizeof address) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// Bytes sent of `count`, which is short when sending fails (errno).
static uint64_t send_pattern(int fd, uint64_t count) {
  unsigned char chunk[kChunk];
  uint64_t done = 0;
  while (done < count) {
    const size_t part = count - done < kChunk ? count - done : kChunk;
    for (size_t i = 0; i < part; ++i) chunk[i] = pattern(done + i);
    for (size_t at = 0; at < part;) {
      const ssize_t sent = send(fd, chunk + at, part - at, MSG_NOSIGNAL);
      if (sent < 0) return done + at;
      at += (size_t)sent;
    }
    done += part;
  }
  return done;
}

// Bytes until the end of the stream; `*wrong` those that are not the pattern's.
static uint64_t read_pattern(int fd, uint64_t most, uint64_t* wrong) {
  unsigned char chunk[kChunk];
  uint64_t done = 0;
  *wrong = 0;
  while (done < most) {
    const ssize_t count = recv(fd, chunk, most - done < kChunk ? most - done : kChunk, 0);
    if (count <= 0) break;
    for (ssize_t i = 0; i < count; ++i) *wrong += chunk[i] != pattern(done + (uint64_t)i);
    done += (uint64_t)count;
  }
  return done;
}

static void* echo(void* argument) {
  const int fd = (int)(intptr_t)argument;
  char chunk[kChunk];
  ssize_t count;
  while ((count = recv(fd, chunk, sizeof chunk, 0)) > 0)
    if (send(fd, chunk, (size_t)count, MSG_NOSIGNAL) != count) break;
  close(fd);
  return NULL;
}

static void* sink(void* argument) {
  const int fd = (int)(intptr_t)argument;
  uint64_t wrong;
  const uint64_t count = read_pattern(fd, UINT64_MAX, &wrong);
  dprintf(fd, "%llu %llu\n", (unsigned long long)count, (unsigned long long)wrong);
  close(fd);
  return NULL;
}

static void* source(void* argument) {
  const int fd = (int)(intptr_t)argument;
  char line[32] = "";
  for (size_t i = 0; i + 1 < sizeof line && recv(fd, line + i, 1, 0) == 1 && line[i] != '\n';) ++i;
  send_pattern(fd, strtoull(line, NULL, 10));
  close(fd);
  return NULL;
}

static void* stall(void* argument) {
  (void)argument;
  return NULL;
}

struct job {
  unsigned port;
  uint64_t bytes;
  int good, error;
};

static void* ping(void* argument) {
  struct job* job = argument;
  const int fd = reach(job->port);
  if (fd < 0) {
    job->error = errno;
    return NULL;
  }
  uint64_t wrong = 1;
  if (send_pattern(fd, job->bytes) == job->bytes) job->good = read_pattern(fd, job->bytes, &wrong) == job->bytes && wrong == 0;
  if (!job->good) job->error = errno;
  close(fd);
  return NULL;
}

static void start(void* (*function)(void*), void* argument, pthread_t* thread) {
  pthread_t own;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 256 << 10);
  if (thread == NULL) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  while (pthread_create(thread ? thread : &own, &attributes, function, argument) != 0) usleep(1000);
}

static void ping_all(int fd, unsigned port, int count, uint64_t bytes) {
  struct job* jobs = calloc((size_t)count, sizeof *jobs);
  pthread_t* threads = calloc((size_t)count, sizeof *threads);
  int good = 0, error = 0;
  for (int i = 0; i < count; ++i) {
    jobs[i] = (struct job){port, bytes, 0, 0};
    start(ping, &jobs[i], &threads[i]);
  }
  for (int i = 0; i < count; ++i) {
    pthread_join(threads[i], NULL);
    good += jobs[i].good;
    if (!jobs[i].good) error = jobs[i].error;
  }
  dprintf(fd, "%d %d\n", good, error);
  free(jobs);
  free(threads);
}

static void fill(int fd, unsigned port) {
  const int stream = reach(port);
  struct timeval patience = {.tv_sec = 2};
  setsockopt(stream, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  dprintf(fd, "%llu\n", (unsigned long long)send_pattern(stream, UINT64_MAX));
}

static void end(int fd, unsigned port, uint64_t bytes) {
  const int stream = reach(port);
  uint64_t wrong;
  send_pattern(stream, bytes);
  shutdown(stream, SHUT_WR);
  const uint64_t count = read_pattern(stream, UINT64_MAX, &wrong);
  dprintf(fd, "%llu %llu\n", (unsigned long long)count, (unsigned long long)wrong);
  close(stream);
}

static void die(int fd, unsigned port) {
  const pid_t child = fork();
  if (child == 0) {
    for (int other = 3; other < 1024; ++other) close(other);
    send_pattern(reach(port), UINT64_MAX);
    _exit(0);
  }
  usleep(300000);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  dprintf(fd, "0\n");
}

static void* control(void* argument) {
  const int fd = (int)(intptr_t)argument;
  FILE* in = fdopen(fd, "r");
  char line[1000], word[16];
  while (fgets(line, sizeof line, in) != NULL) {
    unsigned port = 0;
    long long first = 0, second = 0;
    sscanf(line, "%15s %u %lld %lld", word, &port, &first, &second);
    if (strcmp(word, "connect") == 0) ping_all(fd, port, (int)first, (uint64_t)second);
    if (strcmp(word, "fill") == 0) fill(fd, port);
    if (strcmp(word, "end") == 0) end(fd, port, (uint64_t)first);
    if (strcmp(word, "die") == 0) die(fd, port);
    if (strcmp(word, "flood") == 0) {
      const int stream = reach(port);
      const uint64_t sent = send_pattern(stream, UINT64_MAX);
      dprintf(fd, "%llu %d\n", (unsigned long long)sent, errno);
      close(stream);
    }
    if (strcmp(word, "run") == 0) {
      if (fork() == 0) {
        for (int other = 3; other < 1024; ++other) close(other);
        execl("/bin/sh", "sh", "-c", line + 4, (char*)NULL);
        _exit(127);
      }
      dprintf(fd, "0\n");
    }
    if (strcmp(word, "quit") == 0) exit(0);
  }
  fclose(in);
  return NULL;
}

int main(void) {
  static void* (*const services[])(void*) = {echo, sink, source, stall, control};
  struct pollfd fds[5];
  for (unsigned i = 0; i < 5; ++i) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1000 + i};
    fds[i] = (struct pollfd){.fd = socket(AF_VSOCK, SOCK_STREAM, 0), .events = POLLIN};
    if (bind(fds[i].fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fds[i].fd, 256) != 0) {
      perror("vsock");
      return 1;
    }
  }
  printf("vsock ready\n");
  fflush(stdout);
  for (;;) {
    poll(fds, 5, -1);
    for (unsigned i = 0; i < 5; ++i) {
      if ((fds[i].revents & POLLIN) == 0) continue;
      const int fd = accept(fds[i].fd, NULL, NULL);
      if (fd >= 0) start(services[i], (void*)(intptr_t)fd, NULL);
    }
  }
}
