// The form of what is noted of a file.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "vmm/shares/owner.h"

namespace snug::test {
namespace {

TEST(Override, IsOfOneForm) {
  const auto parsed = [](std::string_view text) { return Override::parse(text).has_value(); };
  for (const char* good : {"0:0:100644", "1000:100:104755", "4294967295:4294967294:41777", "0:0:20666:1:3",
                           "0:0:60660:4095:1048575", "5:6:100000"})
    EXPECT_TRUE(parsed(good)) << good;
  for (const char* bad : {"",
                          ":",
                          "::",
                          "0",
                          "0:0",
                          "0:0:",
                          "0:0:8",
                          "0:0:100644:",
                          "0:0:100644:1:3",
                          "0:0:20666",
                          "0:0:20666:1",
                          "0:0:20666:1:3:",
                          "0:0:20666:4096:0",
                          "0:0:20666:1:1048576",
                          "-1:0:100644",
                          "+1:0:100644",
                          " 0:0:100644",
                          "0:0:100644 ",
                          "4294967296:0:100644",
                          "0:0:1000000",
                          "0:0:0x1ff",
                          "a:b:c",
                          "0:0:100644\n"})
    EXPECT_FALSE(parsed(bad)) << bad;
  EXPECT_FALSE(parsed(std::string_view("0:0:100644\0", 11)));
  const auto device = Override::parse("7:8:60660:259:70000");
  ASSERT_TRUE(device);
  EXPECT_EQ(device->device, device_number(259, 70'000));
  EXPECT_EQ(device->text(), "7:8:60660:259:70000");
  EXPECT_EQ((Override{1, 2, S_IFREG | 04711, 0}.text()), "1:2:104711");
}

}  // namespace
}  // namespace snug::test
