// Bytes in order, from where they are packed to where they are needed: unpacking streams through a small
// buffer, so that neither the packed nor the unpacked kernel is ever held whole on the host.
//
// Owned by the caller; one thread (whichever loads the kernel).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace snug::boot {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to out.size() next bytes; how many, 0 only at the end (or for an empty `out`).
  virtual Result<size_t> read(std::span<std::byte> out) = 0;
  // No more than this many bytes are left.
  virtual uint64_t left() const = 0;
};

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // The next bytes. An error ends the stream and reaches the caller unchanged.
  virtual Result<void> write(std::span<const std::byte> bytes) = 0;
};

// A stretch of an open file, read with pread(2): the file position is neither used nor moved, and a file that
// shrinks meanwhile just ends early.
class FileSource final : public ByteSource {
 public:
  // `fd` is borrowed and must outlive the source. [offset, offset + length): bytes.
  FileSource(int fd, uint64_t offset, uint64_t length) : fd_(fd), offset_(offset), left_(length) {}
  Result<size_t> read(std::span<std::byte> out) override;
  uint64_t left() const override { return left_; }

 private:
  int fd_;
  uint64_t offset_;
  uint64_t left_;
};

// Reads until `out` is full or the source ends; the number of bytes read.
Result<size_t> read_fully(ByteSource& source, std::span<std::byte> out);

// Reads up to out.size() bytes of `fd` from `offset` (pread, short reads repeated); the number of bytes read,
// fewer only when the file ends.
Result<size_t> read_at(int fd, uint64_t offset, std::span<std::byte> out);

}  // namespace snug::boot
