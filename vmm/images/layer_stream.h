// A layer's bytes as its tar has them: plain, or unpacked from gzip or zstd, which is known by their first
// bytes. In pieces of a bounded size, so that a small layer that unpacks to much costs what its reader
// allows.
//
// Several members of gzip and frames of zstd behind each other are one stream; a window of zstd is 128 MiB at
// most. Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/sha256.h"

namespace snug::images {

// Whether the digest of what is stored is made on the way.
enum class Hashing { kNo, kYes };

// What a layer is stored in, read from front to end: a file, a pipe.
class StoredBytes {
 public:
  explicit StoredBytes(int fd, Hashing hashing = Hashing::kNo)
      : fd_(fd), hashing_(hashing), buffer_(128 * 1024) {}

  // What is there and not taken yet, more of it when that is nothing; empty at the end. Until the next call.
  Result<std::span<const std::byte>> peek();
  // At least `count` bytes, or all there are.
  Result<std::span<const std::byte>> peek_at_least(size_t count);
  void take(size_t count);
  uint64_t taken() const { return taken_; }
  // "sha256:...", of all there is, whether taken or not: reads to the end. Once, the last that is asked.
  // Errors: read(2)'s.
  Result<std::string> digest();

 private:
  Result<void> fill();
  int fd_;
  Hashing hashing_;
  Sha256 hash_;
  std::vector<std::byte> buffer_;
  size_t start_ = 0;
  size_t end_ = 0;
  bool at_end_ = false;
  uint64_t taken_ = 0;
};

class LayerStream {
 public:
  virtual ~LayerStream() = default;

  // The descriptor stays the caller's. Errors: it cannot be read; a compression that is not known.
  static Result<std::unique_ptr<LayerStream>> open(int fd, Hashing hashing = Hashing::kNo);

  // The next bytes; none at the end. They stay until the next call. Errors: broken or cut short, read(2)'s.
  virtual Result<std::span<const std::byte>> next() = 0;
  // Bytes read so far of what is stored.
  uint64_t taken() const { return stored_.taken(); }
  // As StoredBytes has it; of one that was opened with kYes.
  Result<std::string> digest() { return stored_.digest(); }

 protected:
  explicit LayerStream(StoredBytes stored) : stored_(std::move(stored)) {}
  StoredBytes stored_;
};

}  // namespace snug::images
