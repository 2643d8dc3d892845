// Which pages of RAM were written to: a bit for each, in the order of RAM's bytes in a file (memory_image.h).
// The guest's own writes are known to the hypervisor; those of this side are noted here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace snug {

constexpr uint64_t kPagesOfWord = 64;

// Words of bits for RAM of `size` bytes.
constexpr uint64_t dirty_words(uint64_t size) { return (size / 4096 + kPagesOfWord - 1) / kPagesOfWord; }

// How many pages these are.
uint64_t dirty_pages(std::span<const uint64_t> bits);

// The notes of devices, in memory of the caller's; processes that have the same memory note in the same.
//
// Thread: any.
class DirtyNotes {
 public:
  DirtyNotes() = default;
  explicit DirtyNotes(std::span<uint64_t> words) : words_(words) {}

  // [offset, offset + length) of RAM was written to: after the fact, so that who takes the note reads what
  // was written. The range lies within RAM.
  void note(uint64_t offset, uint64_t length) const;
  // Adds them to `bits`, of the same size, and begins anew.
  void take(std::span<uint64_t> bits) const;

 private:
  std::span<uint64_t> words_;
};

// All writes to a machine's RAM, whoever makes them, but for those of the host's kernel on its own.
//
// Thread: one; the guest and devices run meanwhile.
class DirtyLog {
 public:
  virtual ~DirtyLog() = default;
  // From now on. Errors: this host cannot tell.
  virtual Result<void> begin() = 0;
  // Adds the pages that were written to since then, or since the last time, to `bits` of dirty_words(). A
  // write that is under way is told the next time.
  virtual Result<void> take(std::span<uint64_t> bits) = 0;
  virtual void end() = 0;
};

}  // namespace snug
