#include "guest-images/agent/small_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "guest-images/agent/connection.h"

namespace snug::agent {

constexpr size_t kLongest = 1 << 20;

std::string read_file(const std::string& path) {
  std::string text;
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  while (text.size() < kLongest) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count <= 0) break;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
  return text;
}

bool write_file(const std::string& path, std::string_view text, Write how) {
  const Fd file(::open(path.c_str(),
                       O_WRONLY | O_CREAT | O_CLOEXEC | (how == Write::kAppend ? O_APPEND : O_TRUNC), 0644));
  return ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

void tell_kernel_log(const std::string& text) {
  const Fd log(::open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
  // As an error, which a quiet console shows, too.
  const std::string line = (log ? "<3>snug-agent: " : "snug-agent: ") + text + "\n";
  (void)!::write(log ? log.get() : STDERR_FILENO, line.data(), line.size());
}

}  // namespace snug::agent
