#include "boot/initrd.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "boot/byte_stream.h"
#include "boot/elf.h"
#include "boot/file_kind.h"
#include "boot/payload.h"
#include "vmm/base/checked.h"
#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

constexpr uint64_t kPage = 4 * kKiB;
// What Linux can start reading the next archive at.
constexpr uint64_t kArchiveAlignment = 4;
// All RAM below 4 GiB there can ever be; keeps sums from wrapping.
constexpr uint64_t kInitrdMax = map::kHoleStart;

struct Source {
  int fd;
  uint64_t size;  // bytes
  bool regular;
  std::vector<std::byte> content;  // of what is not a regular file
};

// Reads a pipe (or terminal, or socket) to its end, at most `limit` bytes.
Result<std::vector<std::byte>> read_to_end(int fd, uint64_t limit) {
  constexpr size_t kStep = 64 * kKiB;
  std::vector<std::byte> content;
  while (true) {
    const size_t old_size = content.size();
    content.resize(old_size + kStep);
    const ssize_t count = ::read(fd, content.data() + old_size, kStep);
    content.resize(old_size + static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) return content;
    if (content.size() > limit) return fail_with_hint("more bytes than the guest has memory", "raise memory");
  }
}

Result<void> check_archive(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.empty()) return fail_with_hint("an empty file", "leave the initrd out if there is none");
  if (text.starts_with("070701") || text.starts_with("070702")) return {};
  const auto format = identify_payload(head);
  if (format && *format != PayloadFormat::kElf) return {};
  const std::string kind = is_elf(head) || is_bzimage(head) ? "a kernel" : guess_file_kind(head).description;
  return fail_with_hint(kind + ", not a cpio archive or a compressed one",
                        "make one with: find . | cpio -o -H newc");
}

Result<Source> open_source(int fd, const GuestMemory& memory) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  if (S_ISDIR(status.st_mode))
    return fail_with_hint("a directory", "make an archive of it with: find . | cpio -o -H newc");
  Source source{fd, static_cast<uint64_t>(status.st_size), S_ISREG(status.st_mode), {}};
  std::array<std::byte, kFileKindHead> buffer;
  std::span<const std::byte> head;
  if (source.regular) {
    head = std::span(buffer).first(SNUG_TRY(read_at(fd, 0, buffer)));
  } else {
    source.content = SNUG_TRY(read_to_end(fd, memory.size()));
    source.size = source.content.size();
    head = std::span(source.content).first(std::min(source.content.size(), kFileKindHead));
  }
  SNUG_TRY(check_archive(head));
  return source;
}

Result<uint64_t> place(uint64_t size, const GuestMemory& memory, const LoadedKernel& kernel) {
  const uint64_t lowest = *checked_align_up(kernel.end, kPage);
  const uint64_t limit = std::min(memory.low_end(), kernel.initrd_max + 1);
  if (lowest <= limit && size <= limit - lowest) return align_down(limit - size, kPage);
  // The wording depends on what stands in the way: RAM, or how far up the kernel looks.
  const uint64_t needed = lowest + *checked_align_up(size, kPage);
  if (needed > kernel.initrd_max + 1 || needed > map::kHoleStart)
    return fail(
        "initrd of {} bytes: too large, this kernel takes initrds only below {:#x} and itself ends at {:#x}",
        size, std::min(kernel.initrd_max + 1, map::kHoleStart), kernel.end);
  return fail_with_hint(
      fmt::format(
          "initrd of {} bytes does not fit above the kernel, which ends at {:#x}; the guest has {} MiB", size,
          kernel.end, memory.size() / kMiB),
      fmt::format("raise memory to at least {}M, and more for what it unpacks to",
                  (needed + kMiB - 1) / kMiB));
}

Result<void> copy_in(const Source& source, uint64_t gpa, const GuestMemory& memory) {
  if (source.regular) return memory.read_file(source.fd, 0, gpa, source.size);
  if (!memory.write(gpa, source.content))
    return fail("{} bytes at {:#x} do not fit into guest memory", source.size, gpa);
  return {};
}

}  // namespace

Result<InitrdPlacement> load_initrds(std::span<const int> fds, const GuestMemory& memory,
                                     const LoadedKernel& kernel) {
  if (fds.empty()) return fail("no initrd");
  const auto name = [&fds](size_t i) {
    return fds.size() == 1 ? std::string("initrd") : fmt::format("initrd {} of {}", i + 1, fds.size());
  };
  std::vector<Source> sources;
  uint64_t size = 0;
  for (size_t i = 0; i < fds.size(); ++i) {
    sources.push_back(SNUG_TRY(with_context(open_source(fds[i], memory), name(i))));
    const auto end = checked_add(*checked_align_up(size, kArchiveAlignment), sources.back().size);
    if (!end || *end > kInitrdMax) return fail("{}: too large", name(i));
    size = *end;
  }
  const uint64_t gpa = SNUG_TRY(place(size, memory, kernel));
  uint64_t at = gpa;
  for (size_t i = 0; i < sources.size(); ++i) {
    at = *checked_align_up(at, kArchiveAlignment);
    SNUG_TRY(with_context(copy_in(sources[i], at, memory), name(i)));
    at += sources[i].size;
  }
  return InitrdPlacement{gpa, size};
}

}  // namespace snug::boot
