#include "vmm/oci/image_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "vmm/oci/skopeo.h"

namespace snug::oci {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string descriptor(const std::string& more = "") {
  return fmt::format(R"({{"mediaType": "x", "digest": "{}", "size": 5{}}})", kDigest, more);
}

TEST(LayoutIndex, TheImageForThisMachine) {
  const auto found = manifest_of_layout(
      R"({"manifests": [)" + descriptor(R"(, "platform": {"os": "linux", "architecture": "arm64"})") + "," +
      descriptor(R"(, "platform": {"os": "linux", "architecture": "amd64"})") + "]}");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->digest, kDigest);
  EXPECT_EQ(found->size, 5U);
  EXPECT_EQ(found->path(), "sha256/" + std::string(64, 'a'));
  EXPECT_TRUE(manifest_of_layout(R"({"manifests": [)" + descriptor() + "]}"));
}

TEST(LayoutIndex, WhatIsNone) {
  for (const char* text :
       {"", "[]", "{}", "{\"manifests\": []}", "{\"manifests\": 5}", "{\"manifests\": [5]}",
        "{\"manifests\": [{}]}", R"({"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]})",
        R"({"manifests": [{"digest": "md5:00", "size": 1}]})"})
    EXPECT_FALSE(manifest_of_layout(text)) << text;
  EXPECT_FALSE(manifest_of_layout(R"({"manifests": [{"digest": ")" + kDigest + R"("}]})")) << "no size";
  EXPECT_FALSE(manifest_of_layout(R"({"manifests": [{"size": -1, "digest": ")" + kDigest + R"("}]})"));
  EXPECT_THAT(
      manifest_of_layout(R"({"manifests": [)" + descriptor(R"(, "platform": {"os": "windows"})") + "]}")
          .error()
          .message,
      HasSubstr("linux/amd64"));
}

TEST(Manifests, ConfigurationAndLayers) {
  const auto found = parse_manifest(R"({"config": )" + descriptor() + R"(, "layers": [)" + descriptor() +
                                    "," + descriptor() + "]}");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->layers.size(), 2U);
  EXPECT_FALSE(parse_manifest(R"({"layers": []})"));
  EXPECT_FALSE(parse_manifest(R"({"config": )" + descriptor() + "}"));
  EXPECT_FALSE(parse_manifest(R"({"config": )" + descriptor() + R"(, "layers": [{}]})"));
  std::string many = R"({"config": )" + descriptor() + R"(, "layers": [)" + descriptor();
  for (int i = 0; i < 1000; ++i) many += "," + descriptor();
  EXPECT_FALSE(parse_manifest(many + "]}")) << "more layers than any image has";
}

TEST(Configurations, HowItIsStarted) {
  const auto found = parse_config(
      R"({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/app"], "Cmd": ["a", "b c"],
      "Env": ["A=b"], "WorkingDir": "/w", "User": "web:www", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
      "Volumes": {"/data": {}}}})");
  ASSERT_TRUE(found);
  EXPECT_THAT(found->entrypoint, ElementsAre("/app"));
  EXPECT_THAT(found->command, ElementsAre("a", "b c"));
  EXPECT_THAT(found->environment, ElementsAre("A=b"));
  EXPECT_EQ(found->folder, "/w");
  EXPECT_EQ(found->user, "web:www");
  EXPECT_EQ(found->stop_signal, "SIGQUIT");
  EXPECT_THAT(found->ports, UnorderedElementsAre("80/tcp", "53/udp"));
  EXPECT_THAT(found->volumes, ElementsAre("/data"));
}

TEST(Configurations, WhatIsMissingIsNothing) {
  const auto found = parse_config("{}");
  ASSERT_TRUE(found);
  EXPECT_THAT(found->command, IsEmpty());
  EXPECT_TRUE(parse_config(R"({"config": null})"));
  EXPECT_TRUE(parse_config(R"({"config": {"Cmd": null, "Env": null, "ExposedPorts": null}})"));
  EXPECT_THAT(parse_config(R"({"config": {"Cmd": "echo hi"}})")->command,
              ElementsAre("/bin/sh", "-c", "echo hi"));
}

TEST(Configurations, WhatIsRefused) {
  for (const char* text : {"", "5", R"({"config": {"Cmd": [5]}})", R"({"config": {"Env": {"A": "b"}}})",
                           R"({"config": {"Cmd": ["a\u0000b"]}})"})
    EXPECT_FALSE(parse_config(text)) << text;
  EXPECT_THAT(parse_config(R"({"os": "linux", "architecture": "arm64"})").error().message,
              HasSubstr("linux/arm64"));
}

TEST(Skopeo, ItsLastMessage) {
  EXPECT_EQ(last_message("time=\"2026\" level=warning msg=\"first\"\ntime=\"2026\" level=fatal msg=\"reading "
                         "\\\"x\\\": gone\"\n"),
            "reading \"x\": gone");
  EXPECT_EQ(last_message("plain words\n\n"), "plain words");
  EXPECT_EQ(last_message(""), "");
}

TEST(ImageConfig, HealthChecks) {
  using std::chrono::milliseconds;
  const auto health = [](const std::string& check, const std::string& shell = "null") {
    return parse_config(R"({"config": {"Shell": )" + shell + R"(, "Healthcheck": )" + check + "}}");
  };
  auto found = health(R"({"Test": ["CMD", "/check", "-v"], "Interval": 5000000000, "Timeout": 1500000000,
                          "StartPeriod": 60000000000, "Retries": 2})");
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_THAT(found->health.command, testing::ElementsAre("/check", "-v"));
  EXPECT_EQ(found->health.interval, milliseconds(5000));
  EXPECT_EQ(found->health.timeout, milliseconds(1500));
  EXPECT_EQ(found->health.start_period, milliseconds(60'000));
  EXPECT_EQ(found->health.retries, 2U);
  found = health(R"({"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 0, "Retries": 0})");
  EXPECT_THAT(found->health.command, testing::ElementsAre("/bin/sh", "-c", "test -e /ok"));
  EXPECT_FALSE(found->health.interval || found->health.retries);
  EXPECT_THAT(health(R"({"Test": ["CMD-SHELL", "x"]})", R"(["/bin/bash", "-ec"])")->health.command,
              testing::ElementsAre("/bin/bash", "-ec", "x"));
  for (const char* none :
       {R"({"Test": ["NONE"]})", R"({"Test": []})", "{}", "null", "7", R"({"Test": ["CMD"]})"})
    EXPECT_TRUE(health(none)->health.command.empty()) << none;
  EXPECT_FALSE(health(R"({"Test": ["EXEC", "x"]})"));
  EXPECT_FALSE(health(R"({"Test": [7]})"));
  EXPECT_EQ(
      health(R"({"Test": ["CMD", "x"], "Interval": 18446744073709551615, "Retries": -1})")->health.interval,
      std::chrono::hours(24 * 365));
}

}  // namespace
}  // namespace snug::oci
