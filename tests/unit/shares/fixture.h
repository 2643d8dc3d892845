// A folder that is shared with a driver that has said hello, in both ways of finding names.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/shares/driver.h"

namespace snug::test {

class Shared : public ::testing::TestWithParam<ShareResolver> {
 protected:
  // Below the folder for temporary files, or another.
  explicit Shared(const std::string& below = {}) : scratch(below) {
    ::umask(0);
    begin({});
  }
  // Another session for the same folder.
  void begin(ShareOptions options, uint64_t flags = ~uint64_t{0}) {
    options.resolver = GetParam();
    options.real_ids = ::geteuid() == 0;
    driver.reset();
    session = share(scratch.shared(), options);
    driver = std::make_unique<Driver>(*session);
    EXPECT_TRUE(driver->init(flags));
  }
  static void expect_error(const Answer& answer, int error) {
    EXPECT_EQ(answer.error, error);
    EXPECT_EQ(answer.written, sizeof(fuse_out_header));
  }
  std::string on_host(std::string_view name) const { return Scratch::read(scratch.shared(name)); }
  // A new file of the guest's, open for both: its node and handle.
  std::pair<uint64_t, uint64_t> made(std::string_view name, uint32_t mode = 0644, uint32_t flags = 2) {
    const Answer answer = driver->create(1, name, mode, flags);
    EXPECT_TRUE(answer) << name << ": " << answer.error;
    return {answer.as<fuse_entry_out>().nodeid, answer.as<fuse_open_out>(sizeof(fuse_entry_out)).fh};
  }

  Scratch scratch;
  std::unique_ptr<ShareSession> session;
  std::unique_ptr<Driver> driver;
};

inline std::string resolver_name(const ::testing::TestParamInfo<ShareResolver>& info) {
  return info.param == ShareResolver::kOpenat ? "openat" : "openat2";
}

#define SNUG_BOTH_RESOLVERS(suite)                                                                           \
  INSTANTIATE_TEST_SUITE_P(Names, suite, ::testing::Values(ShareResolver::kOpenat2, ShareResolver::kOpenat), \
                           resolver_name)

}  // namespace snug::test
