#include "vmm/control/bounded_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace snug {
namespace {

TEST(BoundedLogTest, TwoFilesAtMost) {
  std::string folder = testing::TempDir() + "snug-log-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const UniqueFd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto size = [&](const char* file) { return std::filesystem::file_size(folder + "/" + file); };
  {
    auto log = BoundedLog::create(directory.get(), "log");
    ASSERT_TRUE(log);
    const std::string chunk(100'000, 'x');
    size_t written = 0;
    for (; written + chunk.size() <= BoundedLog::kMost; written += chunk.size()) log->write(chunk);
    EXPECT_EQ(size("log"), written);
    EXPECT_FALSE(std::filesystem::exists(folder + "/log.1"));
    log->write(chunk);
    EXPECT_EQ(size("log"), chunk.size());
    EXPECT_EQ(size("log.1"), written);
    for (int i = 0; i < 100; ++i) log->write(chunk);
    EXPECT_LE(size("log"), BoundedLog::kMost);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 2);
  }
  ASSERT_TRUE(BoundedLog::create(directory.get(), "log"));
  EXPECT_EQ(size("log"), 0u);
  {
    // Another process writes behind what is there, and no more than there is room for.
    BoundedLog::create(directory.get(), "log")->write("first ");
    BoundedLog::go_on(directory.get(), "log")->write("second");
    EXPECT_EQ(size("log"), 12u);
    BoundedLog::go_on(directory.get(), "log")->write(std::string(BoundedLog::kMost - 11, 'x'));
    EXPECT_EQ(size("log.1"), 12u);
    EXPECT_EQ(size("log"), BoundedLog::kMost - 11);
  }
  std::filesystem::remove_all(folder);
  EXPECT_FALSE(BoundedLog::create(directory.get(), "log"));
}

}  // namespace
}  // namespace snug
