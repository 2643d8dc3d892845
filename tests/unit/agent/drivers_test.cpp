// Which drivers are loaded, as far as that is told without the kernel: what cannot be is said on stderr here.
#include "guest-images/agent/drivers.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "guest-images/agent/small_files.h"

namespace snug::test {
namespace {

namespace fs = std::filesystem;

class Drivers : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-drivers-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    fs::create_directories(folder_ / "modules");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }

  fs::path folder_;
};

TEST_F(Drivers, SmallFiles) {
  const std::string path = folder_ / "file";
  EXPECT_EQ(agent::read_file(path), "");
  EXPECT_TRUE(agent::write_file(path, "one\n", agent::Write::kReplace));
  EXPECT_TRUE(agent::write_file(path, "two\n", agent::Write::kAppend));
  EXPECT_EQ(agent::read_file(path), "one\ntwo\n");
  EXPECT_TRUE(agent::write_file(path, "three\n", agent::Write::kReplace));
  EXPECT_EQ(agent::read_file(path), "three\n");
  EXPECT_FALSE(agent::write_file(folder_ / "none/file", "x", agent::Write::kReplace));
}

TEST_F(Drivers, NothingThereIsNothingLoaded) {
  agent::load_drivers(folder_ / "none", folder_ / "no-devices");
  write("modules/any.list", "");
  write("devices/0000:00:01.0/device", "0x1041\n");
  agent::load_drivers(folder_ / "modules", folder_ / "devices");
}

}  // namespace
}  // namespace snug::test
