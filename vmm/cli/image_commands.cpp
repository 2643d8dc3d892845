#include "vmm/cli/image_commands.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "vmm/cli/container_commands.h"
#include "vmm/cli/guest_images.h"
#include "vmm/cli/image_store.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/spec/spec.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

struct Recipe {
  std::string name;
  std::string about;
};

std::vector<Recipe> recipes_in(const std::filesystem::path& folder) {
  constexpr std::string_view kAbout = "about=\"";
  std::vector<Recipe> recipes;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::ifstream file(at->path() / "recipe.sh");
    if (!file) continue;
    Recipe recipe{at->path().filename().string(), {}};
    for (std::string line; recipe.about.empty() && std::getline(file, line);)
      if (line.starts_with(kAbout))
        recipe.about = line.substr(kAbout.size(), line.rfind('"') - kAbout.size());
    recipes.push_back(std::move(recipe));
  }
  std::sort(recipes.begin(), recipes.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return recipes;
}

std::string date_text(time_t when) {
  tm local{};
  ::localtime_r(&when, &local);
  std::array<char, 16> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d", &local)};
}

// How one gets to boot it.
std::string use_of(const StoredImage& image, const Result<GuestImage>& booted) {
  if (booted && booted->folder.filename() == image.name) {
    std::error_code error;
    if (std::filesystem::equivalent(booted->folder, image.folder, error)) return "snug run";
    return "-";
  }
  if (std::find(kKernelImages.begin(), kKernelImages.end(), image.name) != kKernelImages.end())
    return "snug run -k " + image.name;
  return "cache:" + image.name;
}

int list_recipes() {
  const auto folder = recipes_folder();
  if (!folder) return fail_command(folder.error());
  put("\nTo be made by snug image build NAME:\n");
  for (const auto& recipe : recipes_in(*folder)) put("  {:<18} {}\n", recipe.name, recipe.about);
  return 0;
}

int list_images(bool recipes_too) {
  const auto images = stored_images();
  const auto booted = find_image("");
  if (!images.empty()) put("{:<18} {:>7}  {:<10}  {:<18}  {}\n", "NAME", "SIZE", "MADE", "USE", "PATH");
  for (const auto& image : images)
    put("{:<18} {:>7}  {:<10}  {:<18}  {}\n", image.name, size_text(static_cast<double>(image.bytes)),
        date_text(image.made), use_of(image, booted), image.folder.string());
  const bool more = list_container_images();
  if (images.empty() && !more)
    put(stderr, "snug: no image is prepared; snug image build stock makes one in a minute\n");
  return recipes_too ? list_recipes() : 0;
}

// The recipe takes this process's place, and so has its terminal, its signals and its exit status.
int build_image(const std::string& name) {
  const auto folder = recipes_folder();
  if (!folder) return fail_command(folder.error());
  std::vector<std::string> known;
  for (const auto& recipe : recipes_in(*folder)) known.push_back(recipe.name);
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    return fail_command(
        Error{fmt::format("there is no recipe for {}{}", in_quotes(name), did_you_mean(name, known)),
              "snug image list --all shows what there is"});
  }
  // Its messages are ours, and a program that is installed does not install others.
  ::setenv("SNUG_SPEAKS_AS", "snug", 1);
  ::setenv("SNUG_INSTALL", "no", 1);
  const std::string build = (*folder / "build").string();
  ::execl(build.c_str(), build.c_str(), name.c_str(), nullptr);
  return fail_command(Error{fmt::format("run {}: {}", build, errno_text(errno)), "it needs bash"});
}

int remove_images(const std::vector<std::string>& names, bool force) {
  int status = 0;
  for (const auto& name : names) {
    if (int outcome = 0; remove_container_image(name, outcome)) {
      status = std::max(status, outcome);
      continue;
    }
    const auto bytes = remove_image(name, force ? Force::kYes : Force::kNo);
    if (bytes) continue;
    status = fail_command(bytes.error());
  }
  return status;
}

int prune(bool all) {
  uint64_t total = 0;
  const auto done =
      prune_images(all ? Prune::kAll : Prune::kSuperseded, [&](const std::string& name, uint64_t bytes) {
        put("removed {}\n", name);
        total += bytes;
      });
  if (!done) return fail_command(done.error());
  total += prune_container_images(all);
  put("{} freed\n", size_text(static_cast<double>(total)));
  return 0;
}

struct Options {
  std::string name;
  std::vector<std::string> names;
  bool all = false;
  bool force = false;
  PullArguments pull;
  ImportArguments import;
};

}  // namespace

void add_image_commands(CommandSet& commands, CommandSet::Action& chosen) {
  const auto given = std::make_shared<Options>();
  const auto describe = [given, &chosen](Command image) {
    image.needs_subcommand();
    const auto command = [&](const char* name, const char* about, CommandSet::Action action) {
      return add_subcommand(image, name, about, chosen, std::move(action));
    };
    command("list", "List the images that are prepared", [given] {
      return list_images(given->all);
    }).flag("-a,--all", given->all, "Also what can be made");
    const Command build = command("build", "Make an image, or bring it up to date; prints its path",
                                  [given] { return build_image(given->name); });
    build.argument("NAME", given->name, "'default', 'stock', or another (snug image list --all)").required();
    build.footer(
        "Nothing is installed for it and no root is needed; what is missing is named.\n"
        "What was made before costs a few milliseconds.\n");
    const Command pull = command("pull", "Bring a container image here; prints its digest",
                                 [given] { return pull_image(given->pull); });
    pull.argument("NAME", given->pull.name, "alpine, quay.io/me/app:1.2, oci:PATH, docker-archive:PATH, ...")
        .required();
    pull.flag("-q,--quiet", given->pull.quiet, "Without showing how far it is");
    pull.footer(
        "By skopeo, with the credentials and mirrors that it has. snug run --image NAME brings\n"
        "what is not here yet.\n");
    const Command import =
        command("import", "Make a container image of a root file system's tar; prints its digest",
                [given] { return import_image(given->import); });
    import.argument("TAR", given->import.tar, "A tar, plain, in gzip or in zstd; - is stdin").required();
    import.argument("NAME", given->import.name, "What the image is to be called").required();
    import.flag("-q,--quiet", given->import.quiet, "Without showing how far it is");
    import.footer("Say what it starts when it runs: snug run NAME -- COMMAND\n");
    command("inspect", "What a container image holds and starts, as JSON",
            [given] { return inspect_image(given->name); })
        .argument("NAME", given->name, "The image")
        .required();
    const Command remove = command("rm", "Remove images from the cache; they can be made again",
                                   [given] { return remove_images(given->names, given->force); });
    remove.argument("NAME", given->names, "The images").required();
    remove.flag("-f,--force", given->force, "Also what a machine or another image needs");
    command("prune", "Remove what newer images have replaced", [given] {
      return prune(given->all);
    }).flag("-a,--all", given->all, "Every image in the cache");
  };
  commands.add("image", "Guest images and container images: list, build, pull, import, inspect, rm, prune",
               describe, nullptr);
}

}  // namespace snug::cli
