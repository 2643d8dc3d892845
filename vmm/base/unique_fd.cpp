#include "vmm/base/unique_fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <charconv>
#include <memory>
#include <string_view>

namespace snug {

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno(errno, "open {}", path);
  return UniqueFd(fd);
}

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return fail_errno(errno, "duplicate file descriptor {}", fd);
  return copy;
}

Result<UniqueFd> make_eventfd() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "eventfd");
  return fd;
}

Result<UniqueFd> reopen_nonblocking(int fd, int access_mode) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "file descriptor {}", fd);
  // A regular file does not block, and its position is shared with others who write behind us.
  if (S_ISREG(status.st_mode)) return duplicate(fd);
  // What was not open that way stays so: its first use says what is wrong with it.
  const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
  if (mode != O_RDWR && mode != access_mode) return duplicate(fd);
  UniqueFd own(
      ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), access_mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (own) return own;
  return duplicate(fd);
}

Result<void> close_inherited() {
  UniqueFd folder = SNUG_TRY(open_file("/proc/self/fd", O_RDONLY | O_DIRECTORY));
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(folder.get()), ::closedir);
  if (!listing) return fail_errno(errno, "/proc/self/fd");
  folder.release();
  while (const dirent* entry = ::readdir(listing.get())) {  // NOLINT(concurrency-mt-unsafe): its own stream
    const std::string_view name(static_cast<const char*>(entry->d_name));
    int number = -1;
    std::from_chars(name.data(), name.data() + name.size(), number);
    if (number > STDERR_FILENO && ::fcntl(number, F_GETFD) == 0) ::close(number);
  }
  return {};
}

}  // namespace snug
