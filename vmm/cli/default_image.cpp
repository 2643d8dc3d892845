#include "vmm/cli/default_image.h"

#include <filesystem>

#include "vmm/base/cache_folder.h"

namespace snug::cli {

Result<DefaultImage> find_default_image() {
  namespace fs = std::filesystem;
  constexpr const char* kHint =
      "name a kernel (--kernel PATH), or prepare the default image: guest-images/build default";
  const std::string cache = cache_folder();
  if (cache.empty()) return fail_with_hint("no kernel given, and HOME is not set", kHint);
  const fs::path folder = fs::path(cache) / "default";
  std::error_code error;
  const auto kernel = fs::canonical(folder / "kernel", error);
  if (error)
    return fail_with_hint(fmt::format("no kernel given, and no default image in {}", folder.string()), kHint);
  const auto initrd = fs::canonical(folder / "initrd", error);
  if (error)
    return fail_with_hint(fmt::format("the default image in {} has no initrd", folder.string()), kHint);
  DefaultImage image{kernel.string(), {initrd.string()}};
  // Of a kernel that has its drivers in modules.
  const auto modules = fs::canonical(folder / "modules", error);
  if (!error) image.initrds.push_back(modules.string());
  return image;
}

}  // namespace snug::cli
