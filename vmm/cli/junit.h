// Results of commands as JUnit XML, for CI systems. Main thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/run/guest_commands.h"

namespace snug::cli {

// One test case for each command that was planned; one that never ran, because the machine ended before, is
// an error with `end_message`. With the end of what each has printed.
std::string junit_xml(const std::string& suite, const CommandPlan& plan,
                      const std::vector<CommandResult>& results, const std::string& end_message);
// For an element or an attribute: whatever the bytes are, a parser takes them.
std::string xml_text(std::string_view text);
// The file appears in one piece or not at all. Errors: the file system.
Result<void> write_junit(const std::string& path, const std::string& xml);

// Results that one process has and another writes to a file.
class JunitFile {
 public:
  // "": nobody wants any. Before there are two processes. Errors: no memory.
  static Result<JunitFile> open(const std::string& path);
  // In the process that has them.
  void keep(const std::string& xml) const;
  // In the other one, at the end: to the file. `without`: makes what is written when nothing was kept.
  Result<void> write(const std::function<std::string()>& without) const;

 private:
  std::string path_;
  UniqueFd memory_;
};

}  // namespace snug::cli
