// A program that reads the stream of a machine, and says by its status whether the machine runs where it is.
// Main thread; another one reads what the program prints, which may be more than a pipe holds.
#pragma once

#include <sys/types.h>

#include <future>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::cli {

class StreamTaker {
 public:
  // `words`: the program and its arguments; one that cannot be run ends with status 126 or 127. Errors: no
  // process.
  static Result<StreamTaker> start(const std::vector<std::string>& words);
  StreamTaker(StreamTaker&&) = default;

  int input() const { return input_.get(); }
  // It gets no more. The first line that it has printed, up to a limit. Errors: its status.
  Result<std::string> finish();

 private:
  StreamTaker() = default;
  std::string program_;
  pid_t pid_ = -1;
  std::future<std::string> said_;  // waited for when the input has been closed
  UniqueFd input_;
};

}  // namespace snug::cli
