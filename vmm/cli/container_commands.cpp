#include "vmm/cli/container_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "vmm/cli/container_image.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/oci/store.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

using nlohmann::json;

Result<oci::Reference> reference_of(const std::string& name) {
  std::error_code error;
  return oci::Reference::parse(name, std::filesystem::current_path(error).string());
}

std::string date_text(time_t when) {
  tm local{};
  ::localtime_r(&when, &local);
  std::array<char, 16> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d", &local)};
}

Result<void> pull(const PullArguments& arguments) {
  const auto reference = SNUG_TRY(reference_of(arguments.name));
  const auto store = SNUG_TRY(oci::Store::open());
  const auto brought = SNUG_TRY(bring_image(store, reference, oci::PullPolicy::kAlways,
                                            arguments.quiet ? ShowProgress::kNo : ShowProgress::kYes));
  put("{}\n", brought.image.manifest.digest);
  return {};
}

Result<void> import(const ImportArguments& arguments) {
  const auto reference = SNUG_TRY(reference_of(arguments.name));
  if (!reference.source.starts_with("docker://") || reference.pinned)
    return fail_with_hint(
        fmt::format("{} is no name for an image that is imported", in_quotes(arguments.name)),
        "a name without a transport and a digest, for instance base or me/base:1");
  const auto store = SNUG_TRY(oci::Store::open());
  const bool from_stdin = arguments.tar == "-";
  const auto file =
      from_stdin ? SNUG_TRY(duplicate(STDIN_FILENO)) : SNUG_TRY(open_file(arguments.tar, O_RDONLY));
  ImageProgress progress(reference.name, arguments.quiet ? ShowProgress::kNo : ShowProgress::kYes);
  const auto image = SNUG_TRY(store.import(file.get(), reference, progress.building()));
  put("{}\n", image.manifest.digest);
  return {};
}

Result<void> inspect(const std::string& name) {
  const auto reference = SNUG_TRY(reference_of(name));
  const auto store = SNUG_TRY(oci::Store::open());
  const auto image = SNUG_TRY(store.find(reference.name));
  json layers = json::array();
  for (const oci::Descriptor& layer : image.content.layers)
    layers.push_back({{"digest", layer.digest}, {"bytes", layer.size}});
  const auto bytes = store.bytes_of(image, store.list());
  const json body{{"name", image.name},
                  {"digest", image.manifest.digest},
                  {"id", image.content.config.digest},
                  {"layers", layers},
                  {"bytes", bytes.total},
                  {"shared_bytes", bytes.shared},
                  {"entrypoint", image.config.entrypoint},
                  {"command", image.config.command},
                  {"env", image.config.environment},
                  {"workdir", image.config.folder},
                  {"user", image.config.user},
                  {"stop_signal", image.config.stop_signal},
                  {"ports", image.config.ports},
                  {"volumes", image.config.volumes},
                  {"healthcheck", image.config.health.command}};
  put("{}\n", body.dump(2, ' ', false, json::error_handler_t::replace));
  return {};
}

}  // namespace

int pull_image(const PullArguments& arguments) {
  const auto done = pull(arguments);
  return done ? 0 : fail_command(done.error());
}

int import_image(const ImportArguments& arguments) {
  const auto done = import(arguments);
  return done ? 0 : fail_command(done.error());
}

int inspect_image(const std::string& name) {
  const auto done = inspect(name);
  return done ? 0 : fail_command(done.error());
}

bool list_container_images() {
  const auto store = oci::Store::open();
  if (!store) return false;
  const auto images = store->list();
  if (images.empty()) return false;
  put("{:<40} {:<14} {:>7} {:>7}  {}\n", "IMAGE", "DIGEST", "SIZE", "SHARED", "PULLED");
  for (const oci::StoredImage& image : images) {
    const auto bytes = store->bytes_of(image, images);
    put("{:<40} {:<14} {:>7} {:>7}  {}\n", image.name, image.manifest.digest.substr(7, 12),
        size_text(static_cast<double>(bytes.total)), size_text(static_cast<double>(bytes.shared)),
        date_text(image.pulled));
  }
  return true;
}

bool remove_container_image(const std::string& name, int& status) {
  status = 0;
  const auto reference = reference_of(name);
  const auto store = oci::Store::open();
  if (!reference || !store || !store->find(reference->name)) return false;
  auto removed = store->remove(reference->name);
  if (removed)
    if (const auto freed = store->prune(); !freed) removed = tl::unexpected(freed.error());
  if (!removed) status = fail_command(removed.error());
  return true;
}

uint64_t prune_container_images(bool all) {
  const auto store = oci::Store::open();
  if (!store) return 0;
  if (all)
    for (const oci::StoredImage& image : store->list())
      if (store->remove(image.name)) put("removed {}\n", image.name);
  const auto freed = store->prune();
  return freed ? *freed : 0;
}

}  // namespace snug::cli
