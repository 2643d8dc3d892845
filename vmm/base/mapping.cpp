#include "vmm/base/mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "vmm/base/checked.h"

namespace snug {

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Mapping> Mapping::create(size_t size, int protection, int flags, int fd, uint64_t offset) {
  void* address = ::mmap(nullptr, size, protection, flags, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) return fail_errno(errno, "map {} bytes", size);
  return Mapping(static_cast<std::byte*>(address), size);
}

Result<Mapping> Mapping::anonymous(size_t size, size_t alignment) {
  constexpr size_t kPage = 4096;
  const auto padded = checked_add<uint64_t>(size, alignment - kPage);
  if (!padded) return fail("map {} bytes: too large", size);
  void* raw =
      ::mmap(nullptr, *padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return fail_errno(errno, "map {} bytes", size);
  auto* start = static_cast<std::byte*>(raw);
  const auto skip = (alignment - reinterpret_cast<uintptr_t>(start) % alignment) % alignment;
  if (skip > 0) ::munmap(start, skip);
  const size_t mapped = (size + kPage - 1) / kPage * kPage;
  const size_t tail = *padded - skip > mapped ? *padded - skip - mapped : 0;
  if (tail > 0) ::munmap(start + skip + mapped, tail);
  return Mapping(start + skip, size);
}

Result<Mapping> Mapping::whole_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  if (!S_ISREG(status.st_mode)) return fail("not a regular file");
  if (status.st_size == 0) return Mapping();
  return create(static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, fd);
}

}  // namespace snug
