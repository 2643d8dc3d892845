#include "vmm/host/input_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <fstream>
#include <thread>

namespace snug {
namespace {

std::string whole(const UniqueFd& file) {
  std::string text(1 << 22, ' ');
  const ssize_t count = ::pread(file.get(), text.data(), text.size(), 0);
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return text;
}

TEST(InputFile, AFileIsWhatItIs) {
  const std::string path = testing::TempDir() + "/snug-input-file";
  std::ofstream(path) << "kernel";
  const auto file = open_input(path);
  ASSERT_TRUE(file);
  std::ofstream(path) << "another";
  EXPECT_EQ(whole(*file), "another");
  ::unlink(path.c_str());
  EXPECT_FALSE(open_input(path));
}

TEST(InputFile, AStreamIsKept) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd from(pipe[0]);
  const std::string text(3'000'000, 'x');
  std::thread writer([&text, to = UniqueFd(pipe[1])] {
    size_t done = 0;
    while (done < text.size())
      done += static_cast<size_t>(::write(to.get(), text.data() + done, text.size() - done));
  });
  const auto file = open_input("/proc/self/fd/" + std::to_string(from.get()));
  writer.join();
  ASSERT_TRUE(file) << file.error().text();
  EXPECT_EQ(whole(*file), text);
  EXPECT_EQ(whole(*file), text) << "at the next boot";
}

}  // namespace
}  // namespace snug
