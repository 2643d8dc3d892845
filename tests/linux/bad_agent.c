// In the place of snug's agent, for the tests of what a hostile one can do: calls the host far more often
// than once, then is bad to each connection in another way, in turn.
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kPort = 1000, kCalls = 50 };

static int sent(int fd, const void* bytes, size_t size) {
  return send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
}

// A header and `size` bytes of payload.
static int frame(int fd, int type, int channel, const void* payload, uint32_t size) {
  const unsigned char header[8] = {size & 0xff, size >> 8 & 0xff,    size >> 16 & 0xff,
                                   size >> 24,  (unsigned char)type, (unsigned char)channel};
  return sent(fd, header, sizeof header) && (size == 0 || sent(fd, payload, size));
}

static void greet(int fd) { frame(fd, 1, 0, "SNUG\1\0\1\0", 8); }
static void begin(int fd) {
  greet(fd);
  frame(fd, 19, 0, "\1\0\0\0", 4);
}

static void be_bad(int fd, int way) {
  static unsigned char bytes[65536];
  switch (way) {
    case 0:  // garbage
      for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = (unsigned char)(rand() >> 7);
      sent(fd, bytes, sizeof bytes);
      break;
    case 1:  // another version
      frame(fd, 1, 0, "SNUG\11\0\11\0", 8);
      break;
    case 2:  // half a frame, and its half of the connection closed
      begin(fd);
      sent(fd, "\0\1\0\0\24\1\0\0half", 12);
      shutdown(fd, SHUT_WR);
      sleep(1000);
      break;
    case 3:  // far more output than it has credit for
      begin(fd);
      while (frame(fd, 20, 1, bytes, sizeof bytes)) continue;
      break;
    case 4:  // credit without end
      begin(fd);
      while (frame(fd, 22, 0, "\1\0\0\0", 4)) continue;
      break;
    case 5:  // a status without a command
      frame(fd, 26, 0, "\0\0", 2);
      break;
    default:  // gone at once
      break;
  }
}

static int new_socket(void) { return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0); }

int main(void) {
  signal(SIGCHLD, SIG_IGN);
  struct sockaddr_vm own = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = kPort};
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = kPort};
  const int listener = new_socket();
  if (bind(listener, (struct sockaddr*)&own, sizeof own) != 0 || listen(listener, 64) != 0) return 1;
  for (int i = 0; i < kCalls; ++i) {
    const int call = new_socket();
    // The driver may be a moment late.
    if (connect(call, (struct sockaddr*)&host, sizeof host) != 0) usleep(1000);
    send(call, "shouting at whoever wants to know", 33, MSG_NOSIGNAL);
    close(call);
  }
  for (int way = 0;; way = (way + 1) % 7) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    if (fork() == 0) {
      close(listener);
      be_bad(fd, way);
      _exit(0);
    }
    close(fd);
  }
}
