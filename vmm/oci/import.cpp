// A tar of somebody's own becomes an image as a registry would have it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <span>

#include "vmm/base/sha256.h"
#include "vmm/images/layer_stream.h"
#include "vmm/oci/advice.h"
#include "vmm/oci/held_signals.h"
#include "vmm/oci/store.h"

namespace snug::oci {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kBlobType = "application/vnd.oci.image.";

Result<void> write_all(int to, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(to, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> write_text(const fs::path& path, const std::string& text) {
  const auto file = SNUG_TRY(open_file(path.string(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
  return write_all(file.get(), std::as_bytes(std::span(text)));
}

// Everything that comes, into a file; its digest.
Result<Descriptor> take_layer(int from, int to, HeldSignals& signals) {
  images::StoredBytes bytes(from, images::Hashing::kYes);
  Descriptor layer;
  for (;;) {
    if (signals.came()) return fail("interrupted");
    const auto piece = SNUG_TRY(bytes.peek());
    if (piece.empty()) break;
    SNUG_TRY(write_all(to, piece));
    bytes.take(piece.size());
  }
  layer.size = bytes.taken();
  layer.digest = SNUG_TRY(bytes.digest());
  if (layer.size == 0) return fail("there is nothing in it");
  return layer;
}

// Of the tar within.
Result<std::string> unpacked_digest(int layer) {
  if (::lseek(layer, 0, SEEK_SET) != 0) return fail_errno(errno, "lseek");
  const auto stream = SNUG_TRY(images::LayerStream::open(layer));
  Sha256 hash;
  for (;;) {
    const auto piece = SNUG_TRY(stream->next());
    if (piece.empty()) return "sha256:" + hash.hex_digest();
    hash.add(piece);
  }
}

std::string packing_of(int layer) {
  std::array<unsigned char, 2> head{};
  if (::pread(layer, head.data(), head.size(), 0) != static_cast<ssize_t>(head.size())) return "";
  if (head[0] == 0x1f && head[1] == 0x8b) return "+gzip";
  return head[0] == 0x28 && head[1] == 0xb5 ? "+zstd" : "";
}

json described(const Descriptor& blob) {
  return {{"mediaType", blob.media_type}, {"digest", blob.digest}, {"size", blob.size}};
}

}  // namespace

Result<StoredImage> Store::import(int from, const Reference& reference,
                                  const images::ProgressCallback& progress) const {
  const auto all = SNUG_TRY(lock_all(LOCK_SH));
  const auto held = SNUG_TRY(lock("name " + reference.name, LOCK_EX));
  for (const char* name : {"work", "names", "blobs/sha256"}) SNUG_TRY(make_folder(name));
  clean_work();
  HeldSignals signals;
  const fs::path work = work_folder(reference.name);
  std::error_code error;
  fs::remove_all(work, error);
  fs::create_directories(work, error);
  auto made = [&]() -> Result<StoredImage> {
    const auto put_blob = [&](const std::string& text, const char* type) -> Result<Descriptor> {
      const Descriptor described{sha256_digest(std::as_bytes(std::span(text))), text.size(),
                                 fmt::format("{}{}", kBlobType, type)};
      SNUG_TRY(write_text(work / "blob", text));
      if (::rename((work / "blob").c_str(), blob(described).c_str()) != 0)
        return fail_errno(errno, "rename {}", blob(described).string());
      return described;
    };
    const auto file = SNUG_TRY(open_file((work / "layer").string(), O_RDWR | O_CREAT, 0600));
    Descriptor layer = SNUG_TRY(take_layer(from, file.get(), signals));
    const std::string unpacked = SNUG_TRY(unpacked_digest(file.get()));
    layer.media_type = fmt::format("{}layer.v1.tar{}", kBlobType, packing_of(file.get()));
    if (::rename((work / "layer").c_str(), blob(layer).c_str()) != 0)
      return fail_errno(errno, "rename {}", blob(layer).string());
    const json config{{"architecture", "amd64"},
                      {"os", "linux"},
                      {"config", json::object()},
                      {"rootfs", {{"type", "layers"}, {"diff_ids", {unpacked}}}}};
    StoredImage image;
    image.name = reference.name;
    image.content.config = SNUG_TRY(put_blob(config.dump(), "config.v1+json"));
    image.content.layers = {layer};
    const json manifest{{"schemaVersion", 2},
                        {"mediaType", fmt::format("{}manifest.v1+json", kBlobType)},
                        {"config", described(image.content.config)},
                        {"layers", json::array({described(layer)})}};
    image.manifest = SNUG_TRY(put_blob(manifest.dump(), "manifest.v1+json"));
    const json index{{"schemaVersion", 2}, {"manifests", json::array({described(image.manifest)})}};
    SNUG_TRY(write_text(work / "index.json", index.dump()));
    SNUG_TRY(write_text(work / "oci-layout", R"({"imageLayoutVersion": "1.0.0"})"));
    // Nothing has that name before it is known to be one.
    SNUG_TRY(root_of(image, progress));
    SNUG_TRY(publish(work, reference.name));
    return image;
  }();
  fs::remove_all(work, error);
  if (!made) return tl::unexpected(with_room_hint(std::move(made.error()).with_context("import")));
  return find(reference.name);
}

}  // namespace snug::oci
