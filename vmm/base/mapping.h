// Ownership of an mmap(2) region. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/result.h"

namespace snug {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // mmap(2) at an address of the kernel's choice. `size` > 0, bytes.
  static Result<Mapping> create(size_t size, int protection, int flags, int fd = -1, uint64_t offset = 0);
  // Anonymous, zero, not reserved (MAP_NORESERVE): nothing is allocated before it is touched.
  // `alignment`: a power of two of at least a page.
  static Result<Mapping> anonymous(size_t size, size_t alignment = 4096);
  // The whole of an open regular file, private and read-only. An empty file gives an empty mapping.
  // A file that shrinks while mapped raises SIGBUS on access: prefer reading for untrusted files.
  static Result<Mapping> whole_file(int fd);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  Mapping(std::byte* data, size_t size) : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace snug
