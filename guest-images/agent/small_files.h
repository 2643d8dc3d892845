// Files of a few lines, of /proc, /sys and /etc.
#pragma once

#include <string>
#include <string_view>

namespace snug::agent {

// Its content, at most 1 MiB; "" when it cannot be read.
std::string read_file(const std::string& path);
// Behind what the file holds, or in place of it; makes it. False: errno says why.
enum class Write { kReplace, kAppend };
bool write_file(const std::string& path, std::string_view text, Write how);
// A line on the kernel's log, which is on the console.
void tell_kernel_log(const std::string& text);

}  // namespace snug::agent
