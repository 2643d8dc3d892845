#include "vmm/cli/put.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace snug::cli {
namespace {

// As the error flag of a FILE: of the process, like its stdout.
int failure = 0;

}  // namespace

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return false;
    pollfd room{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&room, 1, -1) < 0 && errno != EINTR) return false;
  }
  return true;
}

void put_text(std::FILE* stream, std::string_view text) {
  if (stream != stdout) {
    (void)write_all(STDERR_FILENO, text);
    return;
  }
  // The rest would not be what its reader expects.
  if (failure == 0 && !write_all(STDOUT_FILENO, text)) failure = errno;
}

int put_failure() { return failure; }

}  // namespace snug::cli
