#include "boot/byte_stream.h"

#include <unistd.h>

#include <algorithm>

namespace snug::boot {

Result<size_t> FileSource::read(std::span<std::byte> out) {
  const size_t wanted = std::min<uint64_t>(out.size(), left_);
  const size_t count = SNUG_TRY(read_at(fd_, offset_, out.first(wanted)));
  offset_ += count;
  left_ = count < wanted ? 0 : left_ - count;
  return count;
}

Result<size_t> read_fully(ByteSource& source, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const size_t count = SNUG_TRY(source.read(out.subspan(done)));
    if (count == 0) break;
    done += count;
  }
  return done;
}

Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

}  // namespace snug::boot
