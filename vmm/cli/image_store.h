// The user's cache of prepared images, as guest-images/lib/cache.sh lays it out: what is in it, and what may
// go. Main thread. Recipes may run at the same time: what one of them is making is left alone.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "vmm/base/result.h"

namespace snug::cli {

struct StoredImage {
  std::string name;
  std::filesystem::path folder;
  bool installed = false;  // came with the program, and goes with it
  uint64_t bytes = 0;      // on the disk, with what its links lead to
  time_t made = 0;
};

// All that have a name, by name; the one in the cache before one of that name that came with the program.
std::vector<StoredImage> stored_images();

enum class Force { kNo, kYes };

// Removes the image of that name from the cache; returns the bytes that are free now. Errors: there is none;
// it came with the program; it is being made; unless by force: a machine has a disk of it open, another image
// needs it.
Result<uint64_t> remove_image(const std::string& name, Force force);

enum class Prune { kSuperseded, kAll };

// Removes what no name leads to any more (a recipe or a kernel package has changed since) and what
// interrupted builds have left; with kAll everything. `removed` hears of each. Errors: the cache cannot be
// read. What is in use stays and is said on stderr.
Result<void> prune_images(Prune what,
                          const std::function<void(const std::string& name, uint64_t bytes)>& removed);

}  // namespace snug::cli
