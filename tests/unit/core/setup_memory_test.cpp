#include "vmm/base/setup_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace snug::test {
namespace {

// Of the program's own mappings that nothing writes to, KiB.
long resident_code() {
  std::ifstream maps("/proc/self/smaps");
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  long total = 0;
  bool counts = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) {
      counts = line.ends_with(program) && line.find(" rw-p ") == std::string::npos;
    } else if (counts && line.starts_with("Rss:")) {
      total += std::stol(line.substr(4));
    }
  }
  return total;
}

TEST(SetupMemory, TheProgramGoesOnWithLess) {
  const std::vector<int> numbers{1, 2, 3};
  const long before = resident_code();
  drop_setup_memory();
  const long after = resident_code();
  EXPECT_LT(after, before);
  EXPECT_EQ(std::accumulate(numbers.begin(), numbers.end(), 0), 6);
}

}  // namespace
}  // namespace snug::test
