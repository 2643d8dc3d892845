#include "vmm/cli/default_image.h"

#include <cstdlib>
#include <filesystem>

namespace snug::cli {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): read before any thread exists
  return value != nullptr ? value : "";
}

}  // namespace

Result<DefaultImage> find_default_image() {
  namespace fs = std::filesystem;
  constexpr const char* kHint =
      "name a kernel (--kernel PATH), or prepare the default image: guest-images/build default";
  std::string cache = environment("XDG_CACHE_HOME");
  if (cache.empty()) {
    const std::string home = environment("HOME");
    if (home.empty()) return fail_with_hint("no kernel given, and HOME is not set", kHint);
    cache = home + "/.cache";
  }
  const fs::path folder = fs::path(cache) / "snug" / "default";
  std::error_code error;
  const auto kernel = fs::canonical(folder / "kernel", error);
  if (error)
    return fail_with_hint(fmt::format("no kernel given, and no default image in {}", folder.string()), kHint);
  const auto initrd = fs::canonical(folder / "initrd", error);
  if (error)
    return fail_with_hint(fmt::format("the default image in {} has no initrd", folder.string()), kHint);
  return DefaultImage{kernel.string(), initrd.string()};
}

}  // namespace snug::cli
