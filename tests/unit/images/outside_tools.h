// What others say of our images: fsck.erofs of erofs-utils, and Linux itself.
#pragma once

#include <string>

#include "tests/unit/images/layer_maker.h"

namespace snug::test {

// What fsck.erofs complains of; "" where it does not, or is not installed. With one more option of its.
std::string fsck(int image, const std::string& option = {});
// Whether it is installed.
bool has_fsck();

// The image as a kernel shows it, in the lines of layer_maker.h; nothing, and the reason, where this process
// may not mount it.
struct Mounted {
  bool done = false;
  std::string why_not;
  Lines lines;
};
Mounted mounted(int image);

// The files of a folder of the host in the same lines; owners and times too, where asked.
Lines lines_of_folder(const std::string& folder);

}  // namespace snug::test
