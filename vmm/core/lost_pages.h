// Pages of files that a guest has as memory. Somebody who makes such a file shorter, or storage that fails,
// takes them away: whoever touches one then gets SIGBUS. (KVM does not: KVM_RUN fails with EFAULT.)
//
// Thread: watch_lost_pages() before there are others; LostPages any.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "vmm/base/result.h"

namespace snug {

// The pages of one file, as long as this lives.
class LostPages {
 public:
  // `name` is what the person calls it. Errors: too many at once.
  static Result<std::unique_ptr<LostPages>> watch(std::span<const std::byte> pages, const std::string& name);
  ~LostPages();
  LostPages(const LostPages&) = delete;

 private:
  explicit LostPages(size_t place) : place_(place) {}
  size_t place_;
};

// From here on, a thread that touches a page that is lost ends the process: with one line to `fd`, which
// stays open, that names the file, and status 135. Any other bus error ends it so too, with another line.
// Errors: what sigaction says.
Result<void> watch_lost_pages(int fd);

}  // namespace snug
