// snug image, as far as it is about container images (vmm/oci). Main thread; each returns an exit status.
#pragma once

#include <cstdint>
#include <string>

namespace snug::cli {

struct PullArguments {
  std::string name;
  bool quiet = false;
};
// Brings an image here, newer than the one that is, and makes its root ready; prints its manifest's digest.
int pull_image(const PullArguments& arguments);
struct ImportArguments {
  std::string tar;   // its path, or "-"
  std::string name;  // of the image
  bool quiet = false;
};
// An image of one layer, a tar of a root file system; prints its manifest's digest.
int import_image(const ImportArguments& arguments);
// What an image is and starts, as JSON.
int inspect_image(const std::string& name);

// Those that are here, a line each, with a heading; nothing where there are none. False: none.
bool list_container_images();
// False: it is not here. `status`: 0, or that of an error that has been said.
bool remove_container_image(const std::string& name, int& status);
// Bytes that are free now of what no image needs; with `all` every image first.
uint64_t prune_container_images(bool all);

}  // namespace snug::cli
