#include "vmm/oci/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <span>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"
#include "vmm/base/sha256.h"
#include "vmm/images/image_builder.h"
#include "vmm/images/image_fault.h"
#include "vmm/images/layer_stream.h"
#include "vmm/images/spool.h"
#include "vmm/oci/advice.h"
#include "vmm/oci/held_signals.h"

namespace snug::oci {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDockerConfig = "docker-config.json";
constexpr uint64_t kJsonMax = 8 << 20;
// Another way of making roots makes others of the same layers.
constexpr int kRootVersion = 1;

Result<std::string> read_text(const fs::path& path) {
  const auto file = SNUG_TRY(open_file(path.string(), O_RDONLY | O_NOFOLLOW));
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read {}", path.string());
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
    if (text.size() > kJsonMax) return fail("{} is too large", path.string());
  }
}

// One component, for any name: what a path means something by is written as %XX.
std::string file_name(const std::string& name) {
  std::string text;
  for (const char c : name)
    text += c == '/' || c == '%' || c == ':' || (c == '.' && text.empty())
                ? fmt::format("%{:02X}", static_cast<unsigned char>(c))
                : std::string(1, c);
  return text;
}

std::string name_of(const std::string& file) {
  std::string name;
  for (size_t i = 0; i < file.size(); ++i) {
    if (file[i] != '%' || i + 2 >= file.size()) {
      name += file[i];
      continue;
    }
    name += static_cast<char>(std::strtoul(file.substr(i + 1, 2).c_str(), nullptr, 16));
    i += 2;
  }
  return name;
}

// A JSON blob, which is what its digest names.
Result<std::string> read_blob(const fs::path& path, const Descriptor& descriptor) {
  std::string text = SNUG_TRY(read_text(path));
  if (sha256_digest(std::as_bytes(std::span(text))) != descriptor.digest)
    return fail("{} is not what its name says", path.string());
  return text;
}

uint64_t bytes_on_disk(const fs::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

Result<Store> Store::open() {
  const std::string cache = cache_folder();
  if (cache.empty()) return fail("there is no folder for a cache: neither HOME nor XDG_CACHE_HOME is set");
  if (belongs_to_another(cache + "/oci"))
    return fail_with_hint(fmt::format("{} belongs to another user", cache), "sudo -H, or set XDG_CACHE_HOME");
  return Store(fs::path(cache) / "oci");
}

fs::path Store::name_folder(const std::string& name) const { return folder_ / "names" / file_name(name); }

fs::path Store::work_folder(const std::string& name) const { return folder_ / "work" / file_name(name); }

Result<void> Store::make_folder(const std::string& name) const {
  std::error_code error;
  fs::create_directories(folder_ / name, error);
  if (error) return fail("make {}: {}", (folder_ / name).string(), error.message());
  return {};
}

fs::path Store::root(const StoredImage& image) const {
  const std::string digits = image.content.config.digest.substr(image.content.config.digest.find(':') + 1);
  return folder_ / "roots" / fmt::format("{}-{}.erofs", digits, kRootVersion);
}

Result<UniqueFd> Store::lock(const std::string& name, int how) const {
  SNUG_TRY(make_folder("locks"));
  auto file = SNUG_TRY(open_file((folder_ / "locks" / file_name(name)).string(), O_RDWR | O_CREAT, 0600));
  while (::flock(file.get(), how) != 0)
    if (errno != EINTR) return fail_errno(errno, "lock {}", name);
  return file;
}

Result<StoredImage> Store::find(const std::string& name) const {
  const fs::path folder = name_folder(name);
  struct stat status {};
  if (::stat((folder / "index.json").c_str(), &status) != 0)
    return fail_with_hint(fmt::format("the image {} is not here", name),
                          fmt::format("snug image pull {}", name));
  StoredImage image;
  image.name = name;
  image.pulled = status.st_mtime;
  auto read = [&]() -> Result<void> {
    const std::string index = SNUG_TRY(read_text(folder / "index.json"));
    image.manifest = SNUG_TRY(manifest_of_layout(index));
    const std::string manifest = SNUG_TRY(read_blob(blob(image.manifest), image.manifest));
    image.content = SNUG_TRY(parse_manifest(manifest));
    const std::string config = SNUG_TRY(read_blob(blob(image.content.config), image.content.config));
    image.config = SNUG_TRY(parse_config(config));
    if (const auto docker = read_text(folder / kDockerConfig); docker)
      if (auto more = parse_config(*docker)) image.config.health = std::move(more->health);
    return {};
  }();
  if (!read) {
    Error error = std::move(read.error()).with_context("image " + name);
    if (error.hint.empty()) error.hint = fmt::format("bring it again: snug image pull {}", name);
    return tl::unexpected(std::move(error));
  }
  return image;
}

bool Store::is_complete(const StoredImage& image) const {
  std::error_code error;
  if (fs::is_regular_file(root(image), error)) return true;
  bool complete = true;
  for (const Descriptor& layer : image.content.layers) {
    if (const uintmax_t size = fs::file_size(blob(layer), error); !error && size == layer.size) continue;
    complete = false;
    fs::remove(blob(layer), error);
  }
  return complete;
}

Result<StoredImage> Store::pull(const Reference& reference, PullPolicy policy,
                                const PullCallback& progress) const {
  const auto will_do = [&](const Result<StoredImage>& found) {
    return found && (policy == PullPolicy::kMissing || reference.pinned) && is_complete(*found);
  };
  auto here = find(reference.name);
  if (policy == PullPolicy::kNever || will_do(here)) return here;
  const auto all = SNUG_TRY(lock_all(LOCK_SH));
  const auto held = SNUG_TRY(lock("name " + reference.name, LOCK_EX));
  // Another one may have brought it meanwhile.
  if (here = find(reference.name); will_do(here)) return here;
  SNUG_TRY(with_context(fetch(reference, progress), "pull " + reference.name));
  return find(reference.name);
}

void Store::clean_work() const {
  std::error_code error;
  for (fs::directory_iterator at(folder_ / "work", error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    for (const char* kind : {"name ", "root "}) {
      const fs::path path = folder_ / "locks" / (kind + name);
      const auto file = open_file(path.string(), O_RDWR);
      std::error_code ignored;
      if (file && ::flock(file->get(), LOCK_EX | LOCK_NB) == 0) fs::remove_all(at->path(), ignored);
    }
  }
}

// In the place of the one before, which nobody finds missing meanwhile.
Result<void> Store::publish(const fs::path& work, const std::string& name) const {
  const fs::path place = name_folder(name);
  if (::rename(work.c_str(), place.c_str()) == 0) return {};
  if (::renameat2(AT_FDCWD, work.c_str(), AT_FDCWD, place.c_str(), RENAME_EXCHANGE) == 0) return {};
  return fail_errno(errno, "rename {}", work.string());
}

void Store::keep_docker_config(const Reference& reference, const fs::path& layout,
                               HeldSignals& signals) const {
  // Copied as they are.
  if (reference.source.starts_with("oci:") || reference.source.starts_with("oci-archive:")) return;
  const auto has_health = [](const Result<std::string>& text) {
    const auto config = text ? parse_config(*text) : fail("none");
    return config && !config->health.command.empty();
  };
  const auto copied = [&]() -> Result<std::string> {
    const auto index = SNUG_TRY(read_text(layout / "index.json"));
    const auto manifest = SNUG_TRY(manifest_of_layout(index));
    const auto text = SNUG_TRY(read_text(blob(manifest)));
    const auto content = SNUG_TRY(parse_manifest(text));
    return read_text(blob(content.config));
  }();
  if (has_health(copied)) return;
  const auto original = original_config(reference.source, signals);
  if (!original) log_info("{}: its own configuration: {}", reference.name, original.error().text());
  if (!has_health(original)) return;
  const auto file = open_file((layout / kDockerConfig).string(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!file ||
      ::write(file->get(), original->data(), original->size()) != static_cast<ssize_t>(original->size()))
    log_warn("{}: its health check is not kept: {}", reference.name, errno_text(errno));
}

Result<void> Store::fetch(const Reference& reference, const PullCallback& progress) const {
  for (const char* name : {"work", "names", "blobs"}) SNUG_TRY(make_folder(name));
  clean_work();
  HeldSignals signals;
  const fs::path work = work_folder(reference.name);
  std::error_code error;
  fs::remove_all(work, error);
  auto brought = [&]() -> Result<void> {
    SNUG_TRY(copy_image({.source = reference.source, .layout = work.string(), .blobs = folder_ / "blobs"},
                        signals, progress));
    keep_docker_config(reference, work, signals);
    return publish(work, reference.name);
  }();
  // Half of it, or what it has replaced.
  fs::remove_all(work, error);
  if (!brought) return tl::unexpected(with_advice(std::move(brought.error()), reference));
  return {};
}

void Store::remove_broken_layers(const StoredImage& image) const {
  for (const Descriptor& layer : image.content.layers) {
    const auto file = open_file(blob(layer).string(), O_RDONLY | O_NOFOLLOW);
    if (!file) continue;
    images::StoredBytes bytes(file->get(), images::Hashing::kYes);
    std::error_code error;
    if (const auto digest = bytes.digest(); digest && *digest != layer.digest) fs::remove(blob(layer), error);
  }
}

Result<fs::path> Store::root_of(const StoredImage& image, const images::ProgressCallback& progress) const {
  const fs::path path = root(image);
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path;
  const auto all = SNUG_TRY(lock_all(LOCK_SH));
  const auto held = SNUG_TRY(lock("root " + path.filename().string(), LOCK_EX));
  if (fs::is_regular_file(path, error)) return path;
  for (const char* name : {"roots", "work"}) SNUG_TRY(make_folder(name));
  if (auto made = make_root(image, path, progress); !made) {
    Error why = with_room_hint(std::move(made.error()).with_context("image " + image.name));
    // The next pull brings what is missing then.
    if (why.message.find(images::fault_name(images::Fault::kWrongDigest)) != std::string::npos) {
      remove_broken_layers(image);
      why.hint = fmt::format("it has been removed; bring it again: snug image pull {}", image.name);
    }
    return tl::unexpected(std::move(why));
  }
  return path;
}

Result<void> Store::make_root(const StoredImage& image, const fs::path& path,
                              const images::ProgressCallback& progress) const {
  HeldSignals signals;
  std::vector<UniqueFd> files;
  std::vector<images::Layer> layers;
  for (const Descriptor& layer : image.content.layers) {
    files.push_back(
        SNUG_TRY(with_context(open_file(blob(layer).string(), O_RDONLY | O_NOFOLLOW), "a layer")));
    layers.push_back({files.back().get(), layer.size, layer.digest});
  }
  const fs::path half = folder_ / "work" / path.filename();
  auto made = [&]() -> Result<void> {
    const auto file = SNUG_TRY(open_file(half.string(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    images::ImageJob job{.layers = layers,
                         .spool = SNUG_TRY(images::Spool::make_file((folder_ / "work").string())),
                         .image = file.get()};
    job.progress = [&](const images::Progress& state) {
      return !signals.came() && (!progress || progress(state));
    };
    SNUG_TRY(images::build_image(std::move(job)));
    if (::rename(half.c_str(), path.c_str()) != 0) return fail_errno(errno, "rename {}", half.string());
    return {};
  }();
  if (!made) ::unlink(half.c_str());
  return made;
}

std::vector<StoredImage> Store::list() const {
  std::vector<StoredImage> found;
  std::error_code error;
  for (fs::directory_iterator at(folder_ / "names", error), end; !error && at != end; at.increment(error))
    if (auto image = find(name_of(at->path().filename().string()))) found.push_back(std::move(*image));
  std::ranges::sort(found, {}, &StoredImage::name);
  return found;
}

ImageBytes Store::bytes_of(const StoredImage& image, const std::vector<StoredImage>& all) const {
  std::map<std::string, int> users;
  for (const StoredImage& each : all) {
    std::set<std::string> own;
    for (const Descriptor& layer : each.content.layers) own.insert(layer.digest);
    for (const std::string& digest : own) ++users[digest];
  }
  ImageBytes bytes;
  std::set<std::string> counted;
  for (const Descriptor& layer : image.content.layers) {
    if (!counted.insert(layer.digest).second) continue;
    const uint64_t size = bytes_on_disk(blob(layer));
    bytes.total += size;
    if (users[layer.digest] > 1) bytes.shared += size;
  }
  const uint64_t own_root = bytes_on_disk(root(image));
  bytes.total += own_root;
  // Other names of the same.
  const auto same = std::ranges::count(all, root(image), [&](const StoredImage& each) { return root(each); });
  if (same > 1) bytes.shared += own_root;
  return bytes;
}

Result<void> Store::remove(const std::string& name) const {
  std::error_code error;
  if (!fs::is_directory(name_folder(name), error)) return fail("the image {} is not here", name);
  const auto held = SNUG_TRY(lock("name " + name, LOCK_EX));
  fs::remove_all(name_folder(name), error);
  if (error) return fail("remove {}: {}", name, error.message());
  return {};
}

Result<uint64_t> Store::prune() const {
  const auto alone = SNUG_TRY(lock_all(LOCK_EX));
  std::error_code ignored;
  // Nobody is at work.
  fs::remove_all(folder_ / "work", ignored);
  std::set<fs::path> needed;
  for (const StoredImage& image : list()) {
    needed.insert(blob(image.manifest));
    needed.insert(blob(image.content.config));
    for (const Descriptor& layer : image.content.layers) needed.insert(blob(layer));
    needed.insert(root(image));
  }
  uint64_t freed = 0;
  for (const char* name : {"blobs/sha256", "roots"}) {
    std::error_code error;
    for (fs::directory_iterator at(folder_ / name, error), end; !error && at != end; at.increment(error)) {
      if (needed.contains(at->path())) continue;
      const uint64_t size = bytes_on_disk(at->path());
      std::error_code failed;
      if (fs::remove(at->path(), failed)) freed += size;
    }
  }
  return freed;
}

}  // namespace snug::oci
