// An XDG_RUNTIME_DIR of the test's own, gone with it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace snug {

class RuntimeFolder : public testing::Test {
 protected:
  RuntimeFolder() {
    std::string name = testing::TempDir() + "/snug-control-XXXXXX";
    path_ = ::mkdtemp(name.data());
    ::setenv("XDG_RUNTIME_DIR", path_.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  }
  ~RuntimeFolder() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  bool exists(const std::string& file) const { return std::filesystem::exists(path_ + "/snug/" + file); }

  std::string path_;
};

}  // namespace snug
