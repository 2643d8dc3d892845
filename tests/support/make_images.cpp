// Makes images of layers, many in one process: for tests that have layers and images as files.
//
// Each line of its input is one image: IMAGE [entries=N] [depth=N] [header=N] [content=N] [metadata=N]
// LAYER..., paths without spaces. A line comes back for each: "ok", or what is wrong.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "vmm/images/image_builder.h"
#include "vmm/images/spool.h"

namespace {

using namespace snug;

// Whether the word sets a limit.
bool set_limit(images::ImageLimits& limits, const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) return false;
  const std::string name = word.substr(0, equals);
  const uint64_t value = std::stoull(word.substr(equals + 1));
  if (name == "entries")
    limits.entries = static_cast<uint32_t>(value);
  else if (name == "depth")
    limits.depth = static_cast<uint16_t>(value);
  else if (name == "header")
    limits.header_bytes = value;
  else if (name == "content")
    limits.content_bytes = value;
  else if (name == "metadata")
    limits.metadata_bytes = value;
  else
    return false;
  return true;
}

Result<void> make(const std::string& line) {
  std::istringstream words(line);
  std::string image;
  words >> image;
  images::ImageJob job;
  std::vector<UniqueFd> files;
  std::vector<images::Layer> layers;
  for (std::string word; words >> word;) {
    if (set_limit(job.limits, word)) continue;
    files.emplace_back(::open(word.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (::fstat(files.back().get(), &status) != 0) return fail_errno(errno, "open {}", word);
    layers.push_back({files.back().get(), static_cast<uint64_t>(status.st_size)});
  }
  const UniqueFd out(::open(image.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!out) return fail_errno(errno, "make {}", image);
  job.layers = layers;
  job.spool = SNUG_TRY(images::Spool::make_file(image.substr(0, image.rfind('/'))));
  job.image = out.get();
  SNUG_TRY(images::build_image(std::move(job)));
  return {};
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto made = make(line);
    std::cout << (made ? std::string("ok") : made.error().text()) << std::endl;
  }
  return 0;
}
