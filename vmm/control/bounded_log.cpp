#include "vmm/control/bounded_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/base/log.h"

namespace snug {

Result<BoundedLog> BoundedLog::create(int directory, const std::string& file) {
  BoundedLog log(directory, file);
  SNUG_TRY(log.open());
  return log;
}

Result<void> BoundedLog::open() {
  fd_ = UniqueFd(::openat(directory_, file_.c_str(),
                          O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd_) return fail_errno(errno, "{}", file_);
  size_ = 0;
  return {};
}

void BoundedLog::write(std::string_view bytes) {
  if (!fd_) return;
  if (size_ + bytes.size() > kMost) {
    ::renameat(directory_, file_.c_str(), directory_, (file_ + ".1").c_str());
    if (auto opened = open(); !opened) return log_warn("{}", opened.error().text());
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
