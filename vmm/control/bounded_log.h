// A file in a machine's directory that only grows so far: when it is full it becomes FILE.1, in the place of
// the one before, and a new one begins. Thread: any, one at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

class BoundedLog {
 public:
  static constexpr size_t kMost = 4 << 20;  // bytes in one file

  // `directory`: outlives the log. What is there under that name is emptied. Errors: the file system.
  static Result<BoundedLog> create(int directory, const std::string& file);

  // What the file system refuses is lost, and the rest of it too; that is said once.
  void write(std::string_view bytes);

 private:
  BoundedLog(int directory, std::string file) : directory_(directory), file_(std::move(file)) {}
  Result<void> open();

  int directory_;
  std::string file_;
  UniqueFd fd_;
  size_t size_ = 0;
};

}  // namespace snug
