// Guest images that are ready to be booted, and the recipes that make them (guest-images/README.md).
//
// An image is a folder with `kernel`, `initrd` and perhaps `modules`. Those made here lie in the user's cache
// as CACHE/NAME, links to CACHE/images/TARGET-KEY; one that came with the program lies in SHARE/images/NAME,
// where SHARE is `../share/snug` beside the program, or `snug` in a folder of XDG_DATA_HOME or XDG_DATA_DIRS.
// The cache goes first.
//
// Main thread, before others exist.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace snug::cli {

struct GuestImage {
  std::string name;
  std::filesystem::path folder;
  std::string kernel;
  std::vector<std::string> initrds;  // one behind the other
};

// `name`: one of kKernelImages; "": what is booted when no kernel is named, which is `default`, and `stock`
// where that is all there is. Paths have their links resolved. Errors: not prepared, with the command that
// does it.
Result<GuestImage> find_image(std::string_view name);

// SHARE/images that are looked through, best first, whether they exist or not.
std::vector<std::filesystem::path> installed_images();

// The folder of recipes that belongs to this program: installed beside it, or of the source tree that it was
// built in. Errors: there is none.
Result<std::filesystem::path> recipes_folder();

}  // namespace snug::cli
