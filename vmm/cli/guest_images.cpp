#include "vmm/cli/guest_images.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "vmm/base/cache_folder.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

// Where the program itself lies; empty without /proc.
fs::path program_folder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before other threads exist
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// Absolute ones only (XDG Base Directory Specification).
void add_folder(std::vector<fs::path>& folders, const fs::path& data) {
  const fs::path images = data / "snug/images";
  if (data.is_absolute() && std::find(folders.begin(), folders.end(), images) == folders.end())
    folders.push_back(images);
}

// Nothing when a part of it is missing.
std::optional<GuestImage> image_in(const fs::path& folder, std::string_view name) {
  std::error_code error;
  const auto kernel = fs::canonical(folder / "kernel", error);
  if (error) return std::nullopt;
  const auto initrd = fs::canonical(folder / "initrd", error);
  if (error) return std::nullopt;
  GuestImage image{std::string(name), folder, kernel.string(), {initrd.string()}};
  // Of a kernel that has its drivers in modules.
  const auto modules = fs::canonical(folder / "modules", error);
  if (!error) image.initrds.push_back(modules.string());
  return image;
}

std::optional<GuestImage> image_called(std::string_view name) {
  if (const std::string cache = cache_folder(); !cache.empty())
    if (auto image = image_in(fs::path(cache) / name, name)) return image;
  for (const auto& folder : installed_images())
    if (auto image = image_in(folder / name, name)) return image;
  return std::nullopt;
}

}  // namespace

Result<GuestImage> find_image(std::string_view name) {
  if (auto image = image_called(name.empty() ? "default" : name)) return *image;
  // What the quick start prepares, since it takes seconds where the other takes minutes.
  if (name.empty())
    if (auto image = image_called("stock")) return *image;
  if (!name.empty())
    return fail_with_hint(fmt::format("the image '{}' is not prepared", name),
                          fmt::format("to make it: snug image build {}", name));
  return fail_with_hint(
      "no kernel given, and no guest image is prepared",
      "name a kernel (--kernel PATH), or make an image: snug image build stock (a minute), or "
      "snug image build default (starts faster; some minutes)");
}

std::vector<fs::path> installed_images() {
  std::vector<fs::path> folders;
  if (const fs::path program = program_folder(); !program.empty())
    add_folder(folders, program.parent_path() / "share");
  const std::string home = variable("HOME", "");
  add_folder(folders, variable("XDG_DATA_HOME", home.empty() ? "" : (home + "/.local/share").c_str()));
  std::istringstream data(variable("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
  for (std::string folder; std::getline(data, folder, ':');) add_folder(folders, folder);
  return folders;
}

Result<fs::path> recipes_folder() {
  const fs::path program = program_folder();
  std::vector<fs::path> candidates{program.parent_path() / "share/snug/guest-images"};
  // build/vmm/cli and build/asan/vmm/cli of a source tree.
  if (program.filename() == "cli" && program.parent_path().filename() == "vmm") {
    const fs::path build = program.parent_path().parent_path();
    candidates.push_back(build.parent_path() / "guest-images");
    candidates.push_back(build.parent_path().parent_path() / "guest-images");
  }
  std::error_code error;
  for (const auto& folder : candidates)
    if (fs::is_regular_file(folder / "build", error)) return folder;
  return fail_with_hint(
      fmt::format("the recipes of guest images are not here: no {}/build", candidates.front().string()),
      "they come with snug's package and with its source tree");
}

}  // namespace snug::cli
