// Registers that the guest may read as memory (vmm/core/page_binder.h): pages that their owner keeps current.
//
// Owner: a device. Thread: the device's lock held; the guest reads at any moment and sees each aligned dword
// as it was or as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace snug {

class RegisterPages {
 public:
  static constexpr size_t kPageSize = 4096;

  // All zero.
  explicit RegisterPages(size_t pages);

  // Page-aligned, at the same place for life.
  std::span<const std::byte> bytes() const {
    return {reinterpret_cast<const std::byte*>(pages_.get()), size_};
  }
  // Puts registers at `offset`, a multiple of 4 as their size is; all within the pages. True when something
  // became different.
  bool put(uint64_t offset, std::span<const std::byte> registers);

 private:
  struct alignas(kPageSize) Page {
    uint32_t words[kPageSize / sizeof(uint32_t)];
  };

  std::unique_ptr<Page[]> pages_;
  size_t size_;  // bytes
};

}  // namespace snug
