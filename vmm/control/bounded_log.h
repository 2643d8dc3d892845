// A file in a machine's directory that only grows so far: when it is full it becomes FILE.1, in the place of
// the one before, and a new one begins. Thread: any, one at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

class BoundedLog {
 public:
  static constexpr size_t kMost = 4 << 20;  // bytes in one file

  // An empty file, open for appending, in the place of the one that is full.
  using Next = std::function<Result<UniqueFd>()>;

  // `directory`: outlives the log. What is there under that name is emptied. Errors: the file system.
  static Result<BoundedLog> create(int directory, const std::string& file);
  // Behind what another process has written there. Errors: the file system.
  static Result<BoundedLog> go_on(int directory, const std::string& file);
  // The same in two halves, for one who writes what another names: `next` is asked when it is full.
  void continue_with(Next next) { next_ = std::move(next); }
  static Result<UniqueFd> next_file(int directory, const std::string& file);

  // What the file system refuses is lost, and the rest of it too; that is said once.
  void write(std::string_view bytes);

 private:
  BoundedLog(std::string file, UniqueFd fd, Next next)
      : file_(std::move(file)), next_(std::move(next)), fd_(std::move(fd)) {}

  std::string file_;  // for messages
  Next next_;
  UniqueFd fd_;
  size_t size_ = 0;
};

}  // namespace snug
