// A folder of one test's own, also its working folder.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace snug {

class TempFolder : public testing::Test {
 protected:
  TempFolder() {
    std::string pattern = testing::TempDir() + "/snug-spec-XXXXXX";
    path_ = std::filesystem::canonical(::mkdtemp(pattern.data()));
    before_ = std::filesystem::current_path();
    std::filesystem::current_path(path_);
  }
  ~TempFolder() override {
    std::filesystem::current_path(before_);
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }

  std::string path(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  std::filesystem::path path_;
  std::filesystem::path before_;
};

}  // namespace snug
