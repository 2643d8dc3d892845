// Layers of any bytes: refused with words, or an image that a strict reader finds nothing wrong with.
//
// The first byte: how many layers (1 to 4); then the length of each but the last, in units of 64 bytes (2
// bytes, little-endian).
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/support/erofs_reader.h"
#include "vmm/base/assertion.h"
#include "vmm/images/image_builder.h"

namespace {

using namespace snug;

UniqueFd memory_file(std::string_view contents) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  SNUG_ASSERT(fd);
  SNUG_ASSERT(::pwrite(fd.get(), contents.data(), contents.size(), 0) ==
              static_cast<ssize_t>(contents.size()));
  return fd;
}

// A tar's headers have checksums: with the wrong ones little would be seen of what is behind them.
std::string with_right_checksums(std::string_view layer) {
  std::string tar(layer);
  for (size_t at = 0; at + 512 <= tar.size(); at += 512) {
    if (tar.compare(at + 257, 5, "ustar") != 0) continue;
    unsigned sum = 8 * ' ';
    for (size_t i = 0; i < 512; ++i)
      if (i < 148 || i >= 156) sum += static_cast<unsigned char>(tar[at + i]);
    std::snprintf(tar.data() + at + 148, 7, "%06o", sum);
  }
  return tar;
}

images::ImageLimits small_limits() {
  images::ImageLimits limits;
  limits.layers = 4;
  limits.entries = 2000;
  limits.metadata_bytes = 4 * kMiB;
  limits.content_bytes = 4 * kMiB;
  limits.unpacked_bytes = 16 * kMiB;
  limits.header_bytes = kMiB;
  limits.image_bytes = 64 * kMiB;
  limits.image_metadata_bytes = 8 * kMiB;
  return limits;
}

Result<images::ErofsSummary> build(const std::vector<std::string_view>& layers, int image) {
  std::vector<UniqueFd> files;
  std::vector<images::Layer> sources;
  for (const std::string_view layer : layers) {
    files.push_back(memory_file(with_right_checksums(layer)));
    sources.push_back({files.back().get(), layer.size()});
  }
  images::ImageJob job;
  job.layers = sources;
  job.spool = memory_file({});
  job.image = image;
  job.limits = small_limits();
  return images::build_image(std::move(job));
}

void check(int image, const images::ErofsSummary& summary) {
  test::ErofsReader reader(image);
  for (const std::string& problem : reader.problems()) std::fprintf(stderr, "%s\n", problem.c_str());
  SNUG_ASSERT(reader.problems().empty());
  SNUG_ASSERT(summary.inodes <= reader.files().size());
  for (const auto& [path, file] : reader.files()) {
    if ((file.mode & 0170000) != 0100000) continue;
    SNUG_ASSERT(reader.allocated(file) <= file.size);
    reader.read(file, 0, 5000);
    reader.read(file, file.size - std::min<uint64_t>(file.size, 5000), 5000);
  }
  SNUG_ASSERT(reader.problems().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const size_t count = 1 + static_cast<unsigned char>(rest[0]) % 4;
  rest.remove_prefix(1);
  std::vector<std::string_view> layers;
  while (layers.size() + 1 < count && rest.size() >= 2) {
    const size_t length =
        64 * (static_cast<unsigned char>(rest[0]) + 256 * static_cast<unsigned char>(rest[1]));
    rest.remove_prefix(2);
    layers.push_back(rest.substr(0, std::min(length, rest.size())));
    rest.remove_prefix(layers.back().size());
  }
  layers.push_back(rest);
  const UniqueFd image = memory_file({});
  const auto first = build(layers, image.get());
  if (!first) {
    SNUG_ASSERT(!first.error().message.empty());
    return 0;
  }
  check(image.get(), *first);
  return 0;
}
