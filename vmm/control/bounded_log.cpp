#include "vmm/control/bounded_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/base/log.h"

namespace snug {

namespace {

Result<UniqueFd> open_empty(int directory, const std::string& file) {
  UniqueFd fd(::openat(directory, file.c_str(),
                       O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, "{}", file);
  return fd;
}

}  // namespace

Result<BoundedLog> BoundedLog::create(int directory, const std::string& file) {
  return BoundedLog(file, SNUG_TRY(open_empty(directory, file)),
                    [directory, file] { return next_file(directory, file); });
}

Result<BoundedLog> BoundedLog::go_on(int directory, const std::string& file) {
  UniqueFd fd(
      ::openat(directory, file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno(errno, "{}", file);
  BoundedLog log(file, std::move(fd), [directory, file] { return next_file(directory, file); });
  log.size_ = static_cast<size_t>(status.st_size);
  return log;
}

Result<UniqueFd> BoundedLog::next_file(int directory, const std::string& file) {
  ::renameat(directory, file.c_str(), directory, (file + ".1").c_str());
  return open_empty(directory, file);
}

void BoundedLog::write(std::string_view bytes) {
  if (!fd_) return;
  if (size_ + bytes.size() > kMost) {
    auto opened = next_();
    if (!opened) {
      log_warn("{}; what comes is not kept any more", opened.error().text());
      return fd_.reset();
    }
    fd_ = std::move(*opened);
    size_ = 0;
  }
  size_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      // A full disk loses the log, not the machine.
      log_warn("{}: {}; what comes is not kept any more", file_, errno_text(errno));
      return fd_.reset();
    }
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

}  // namespace snug
