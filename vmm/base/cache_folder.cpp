#include "vmm/base/cache_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace snug {
namespace {

std::string folder_in(const char* variable) {
  const char* value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): before other threads exist
  return value != nullptr && *value == '/' ? value : "";
}

}  // namespace

std::string cache_folder() {
  if (const auto cache = folder_in("XDG_CACHE_HOME"); !cache.empty()) return cache + "/snug";
  if (const auto home = folder_in("HOME"); !home.empty()) return home + "/.cache/snug";
  return {};
}

std::string data_folder() {
  if (const auto data = folder_in("XDG_DATA_HOME"); !data.empty()) return data + "/snug";
  if (const auto home = folder_in("HOME"); !home.empty()) return home + "/.local/share/snug";
  return {};
}

bool belongs_to_another(const std::string& path) {
  struct stat status {};
  std::string at = path;
  while (::stat(at.c_str(), &status) != 0) {
    const size_t slash = at.find_last_not_of('/') == std::string::npos ? 0 : at.rfind('/');
    if (at.size() <= 1 || slash == std::string::npos) return false;
    at.resize(std::max<size_t>(slash, 1));
  }
  if (status.st_uid == ::geteuid()) return false;
  return status.st_uid != 0 || ::access(at.c_str(), W_OK | X_OK) != 0;
}

}  // namespace snug
