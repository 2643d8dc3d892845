// The user's cache of images that come from elsewhere, CACHE/oci:
//
//   blobs/sha256/DIGEST   layers, manifests and configurations, each once
//   names/NAME/           an OCI layout of one image, whose blobs lie in blobs; NAME is a reference with /
//                         as %2F; docker-config.json: the configuration that it came with, where that was
//                         docker's and has a HEALTHCHECK
//   roots/DIGEST.erofs    the root file system of the image with that configuration
//   work/                 what is being made; what a process that was killed has left there goes with the
//   next
//                         pull of anything
//
// skopeo brings them. What is read of them is hashed here once more, whatever has lain between: a disk, a
// transport without digests of its own. Pulls may run side by side: each takes the lock of its name, and what
// it makes appears at once. A signal that ends the process waits until what is half-made is gone.
//
// Main thread.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/images/progress.h"
#include "vmm/oci/image_config.h"
#include "vmm/oci/reference.h"
#include "vmm/oci/skopeo.h"

namespace snug::oci {

enum class PullPolicy { kMissing, kAlways, kNever };

struct StoredImage {
  std::string name;
  Descriptor manifest;
  Manifest content;
  ImageConfig config;
  time_t pulled = 0;
};

// Of an image on the disk.
struct ImageBytes {
  uint64_t total = 0;
  uint64_t shared = 0;  // of that, what other images have as well
};

class Store {
 public:
  // Errors: no cache folder.
  static Result<Store> open();
  explicit Store(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // The image of that name, brought here as the policy says. Errors: it cannot be had, and what to do; it is
  // not here and never is to be brought; it is broken.
  Result<StoredImage> pull(const Reference& reference, PullPolicy policy,
                           const PullCallback& progress = {}) const;
  // Errors: it is not here; its manifest or configuration is not what its digest names.
  Result<StoredImage> find(const std::string& name) const;
  // The path of its root file system, which is made from its layers when it is not there. Errors: a layer is
  // not what its digest names, and is removed; no room.
  Result<std::filesystem::path> root_of(const StoredImage& image,
                                        const images::ProgressCallback& progress) const;

  // An image of one layer, the tar of a root file system (plain, in gzip or zstd) that is read from there to
  // its end; in the place of the one of that name. Errors: it is no such tar; no room.
  Result<StoredImage> import(int from, const Reference& reference,
                             const images::ProgressCallback& progress) const;

  // By name. What cannot be read is left out.
  std::vector<StoredImage> list() const;
  ImageBytes bytes_of(const StoredImage& image, const std::vector<StoredImage>& all) const;
  // The name goes; what only it needed is freed by prune(). Errors: it is not here.
  Result<void> remove(const std::string& name) const;
  // Removes blobs and roots that no name needs; the bytes that are free now. Roots that a machine has open
  // live on until it ends.
  Result<uint64_t> prune() const;

 private:
  std::filesystem::path name_folder(const std::string& name) const;
  std::filesystem::path work_folder(const std::string& name) const;
  Result<void> make_folder(const std::string& name) const;
  // What is in `work` is the image of that name now, and the one before is there, if there was one.
  Result<void> publish(const std::filesystem::path& work, const std::string& name) const;
  std::filesystem::path blob(const Descriptor& descriptor) const {
    return folder_ / "blobs" / descriptor.path();
  }
  std::filesystem::path root(const StoredImage& image) const;
  // `how` of flock(2).
  Result<UniqueFd> lock(const std::string& name, int how) const;
  // Of all of it: shared by those that bring something, alone by who removes what nobody needs.
  Result<UniqueFd> lock_all(int how) const { return lock("all", how); }
  Result<void> fetch(const Reference& reference, const PullCallback& progress) const;
  // An image whose configuration has been made another one may have had more in it.
  void keep_docker_config(const Reference& reference, const std::filesystem::path& layout,
                          HeldSignals& signals) const;
  Result<void> make_root(const StoredImage& image, const std::filesystem::path& path,
                         const images::ProgressCallback& progress) const;
  // Whether its root can be had without bringing anything. Layers of another size than they should have go.
  bool is_complete(const StoredImage& image) const;
  // Without the layers that are not what their digests name.
  void remove_broken_layers(const StoredImage& image) const;
  // What nobody works on any more.
  void clean_work() const;

  std::filesystem::path folder_;
};

}  // namespace snug::oci
