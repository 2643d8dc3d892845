// How many descriptors a share holds. Inodes give theirs up when there are too many; open files and locks are
// refused. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace snug {

class DescriptorBudget {
 public:
  explicit DescriptorBudget(size_t limit) : limit_(limit) {}

  // One for an open file or a lock. Each may keep an inode's open as well, so they get less than half.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) --budget_->held_;
    }
    explicit operator bool() const { return budget_ != nullptr; }

   private:
    friend DescriptorBudget;
    explicit Share(DescriptorBudget* budget) : budget_(budget) {}
    DescriptorBudget* budget_ = nullptr;
  };
  // Nothing: there are no more.
  Share take() {
    if (++held_ <= limit_ / 2 - kKeptForInodes) return Share(this);
    --held_;
    return {};
  }
  size_t for_inodes() const { return limit_ - held_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kKeptForInodes = 8;
  const size_t limit_;
  std::atomic<size_t> held_ = 0;
};

}  // namespace snug
