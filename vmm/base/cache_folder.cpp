#include "vmm/base/cache_folder.h"

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

}  // namespace snug
