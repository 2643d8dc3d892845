#include "vmm/base/sparse_file.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace snug {
namespace {

constexpr uint64_t kAtOnce = uint64_t{1} << 20;

}  // namespace

FileRange next_data(int file, uint64_t offset, uint64_t end) {
  const off_t data = ::lseek(file, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) return errno == ENXIO ? FileRange{end, end} : FileRange{offset, end};
  const off_t hole = ::lseek(file, data, SEEK_HOLE);
  const auto from = std::min(static_cast<uint64_t>(data), end);
  return {from, hole < 0 ? end : std::clamp(static_cast<uint64_t>(hole), from, end)};
}

Result<void> read_at(int file, std::span<std::byte> out, uint64_t offset) {
  while (!out.empty()) {
    const iovec part{out.data(), out.size()};
    const ssize_t count = ::preadv2(file, &part, 1, static_cast<off_t>(offset), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) break;
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  std::ranges::fill(out, std::byte{0});
  return {};
}

Result<void> write_at(int file, std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const ssize_t count = ::pwritev2(file, &part, 1, static_cast<off_t>(offset), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write");
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

bool is_all_zero(std::span<const std::byte> bytes) {
  return bytes.front() == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

bool share_blocks(int from, int to) { return ::ioctl(to, FICLONE, from) == 0; }

Result<void> copy_contents(int from, int to, uint64_t size) {
  if (!share_blocks(from, to)) {
    std::vector<std::byte> buffer(kAtOnce);
    for (uint64_t at = 0; at < size;) {
      const FileRange data = next_data(from, at, size);
      for (at = data.from; at < data.to;) {
        const auto part = std::span(buffer).first(std::min(kAtOnce, data.to - at));
        SNUG_TRY(read_at(from, part, at));
        SNUG_TRY(write_at(to, part, at));
        at += part.size();
      }
    }
  }
  if (::ftruncate(to, static_cast<off_t>(size)) != 0) return fail_errno(errno, "write");
  return {};
}

}  // namespace snug
