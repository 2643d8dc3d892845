#include "vmm/host/input_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <vector>

namespace snug {
namespace {

constexpr uint64_t kStreamMax = uint64_t{4} << 30;  // bytes
constexpr size_t kPart = size_t{1} << 20;

Result<void> write_all(int fd, const std::byte* bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(fd, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "keep it in memory");
    bytes += written;
    count -= static_cast<size_t>(written);
  }
  return {};
}

Result<UniqueFd> keep(int stream) {
  UniqueFd kept(::memfd_create("snug-input", MFD_CLOEXEC));
  if (!kept) return fail_errno(errno, "memfd_create");
  std::vector<std::byte> part(kPart);
  for (uint64_t all = 0;;) {
    const ssize_t count = ::read(stream, part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) return kept;
    all += static_cast<uint64_t>(count);
    if (all > kStreamMax) return fail("a stream of more than {} GiB", kStreamMax >> 30);
    SNUG_TRY(write_all(kept.get(), part.data(), static_cast<size_t>(count)));
  }
}

}  // namespace

Result<UniqueFd> open_input(const std::string& path) {
  UniqueFd file = SNUG_TRY(open_file(path, O_RDONLY));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "stat {}", path);
  // Anything but a stream is for its reader to judge: files, and what is none.
  if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode)) return file;
  return with_context(keep(file.get()), path);
}

}  // namespace snug
