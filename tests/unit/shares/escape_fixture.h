// A share, and beside it what no guest is to reach.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>

#include "tests/unit/shares/fixture.h"

namespace snug::test {

inline constexpr char kSecret[] = "a secret of the host";

class Escape : public Shared {
 protected:
  Escape() {
    std::filesystem::create_directory(scratch.path("outside"));
    Scratch::write(scratch.path("outside/secret"), kSecret);
    Scratch::write(scratch.path("secret"), kSecret);
    std::filesystem::create_directory(scratch.path("outside/folder"));
    std::filesystem::create_directories(scratch.shared("folder/inner"));
    Scratch::write(scratch.shared("folder/file"), "inside");
    before_ = outside();
  }
  void TearDown() override { EXPECT_EQ(outside(), before_) << "something outside has changed"; }

  // All that is there but the share: kinds, modes, owners, contents.
  std::map<std::string, std::string> outside() const {
    std::map<std::string, std::string> found;
    for (auto at = std::filesystem::recursive_directory_iterator(scratch.path()); at != end(at); ++at) {
      if (at->path() == scratch.shared()) {
        at.disable_recursion_pending();
        continue;
      }
      struct stat status {};
      ::lstat(at->path().c_str(), &status);
      std::string what = std::to_string(status.st_mode) + " " + std::to_string(status.st_uid) + " " +
                         std::to_string(status.st_nlink) + " ";
      if (S_ISREG(status.st_mode)) what += Scratch::read(at->path());
      found[at->path()] = what;
    }
    return found;
  }
  // Whether anything of a node leads to the secret.
  void expect_no_way(uint64_t node) {
    if (node == 0) return;
    EXPECT_NE(driver->content(node), kSecret);
    EXPECT_EQ(driver->node(node, "secret"), 0u);
    const Answer opened = driver->opendir(node);
    if (!opened) return;
    for (const Listed& one : driver->list(node, opened.as<fuse_open_out>().fh, true))
      EXPECT_NE(one.name, "secret");
  }

 private:
  std::map<std::string, std::string> before_;
};

}  // namespace snug::test
