// Results of commands as JUnit XML, for CI systems. Main thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
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

}  // namespace snug::cli
