#include "vmm/host/lock_holder.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace snug {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxCommand = 120;  // characters shown

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Processes and descriptors go while they are being looked at: what is gone ends the list.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::end(entry); entry.increment(error))
    names.push_back(entry->path().filename());
  return names;
}

// fdinfo lists the locks of a descriptor (proc(5)); OFDLCK are those that belong to the open file itself.
bool holds_lock(const std::string& process, const struct stat& wanted) {
  for (const std::string& number : names_in(process + "/fd")) {
    struct stat status {};
    if (::stat((process + "/fd/" + number).c_str(), &status) != 0) continue;
    if (status.st_dev != wanted.st_dev || status.st_ino != wanted.st_ino) continue;
    if (read_text(process + "/fdinfo/" + number).find("OFDLCK") != std::string::npos) return true;
  }
  return false;
}

// As it was typed, but for what would upset a terminal.
std::string command_line(const std::string& process) {
  std::string text = read_text(process + "/cmdline");
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c >= 0 && (c < ' ' || c == 127); }, ' ');
  if (text.size() > kMaxCommand) text = text.substr(0, kMaxCommand) + "...";
  return text;
}

}  // namespace

std::string lock_holder(int fd) {
  struct stat wanted {};
  if (::fstat(fd, &wanted) != 0) return {};
  for (const std::string& name : names_in("/proc")) {
    const std::string process = "/proc/" + name;
    if (name.find_first_not_of("0123456789") != std::string::npos || !holds_lock(process, wanted)) continue;
    if (name == std::to_string(::getpid())) return "this one, by another of its disks";
    return fmt::format("{} (process {})", command_line(process), name);
  }
  return {};
}

}  // namespace snug
