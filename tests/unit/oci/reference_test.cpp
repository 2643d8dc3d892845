#include "vmm/oci/reference.h"

#include <gmock/gmock.h>

namespace snug::oci {
namespace {

using testing::HasSubstr;

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string name_of(const std::string& text) {
  const auto reference = Reference::parse(text, "/here");
  return reference ? reference->name : "refused: " + reference.error().message;
}

TEST(ReferenceTest, NamesAsDockerHasThem) {
  EXPECT_EQ(name_of("alpine"), "docker.io/library/alpine:latest");
  EXPECT_EQ(name_of("alpine:3.19"), "docker.io/library/alpine:3.19");
  EXPECT_EQ(name_of("me/app"), "docker.io/me/app:latest");
  EXPECT_EQ(name_of("docker.io/nginx"), "docker.io/library/nginx:latest");
  EXPECT_EQ(name_of("docker.io/library/nginx:1"), "docker.io/library/nginx:1");
  EXPECT_EQ(name_of("quay.io/me/a_b-c.d/app:v1.2_3"), "quay.io/me/a_b-c.d/app:v1.2_3");
  EXPECT_EQ(name_of("localhost/app"), "localhost/app:latest");
  EXPECT_EQ(name_of("localhost:5000/app"), "localhost:5000/app:latest");
  EXPECT_EQ(name_of("[::1]:5000/app:x"), "[::1]:5000/app:x");
  EXPECT_EQ(name_of("docker://alpine"), "docker.io/library/alpine:latest");
  EXPECT_EQ(name_of("alpine@" + kDigest), "docker.io/library/alpine@" + kDigest);
  EXPECT_EQ(name_of("alpine:3@" + kDigest), "docker.io/library/alpine@" + kDigest);
}

TEST(ReferenceTest, DockersOwnImagesHaveItsTag) {
  EXPECT_EQ(name_of("docker-daemon:app"), "docker-daemon:app:latest");
  EXPECT_EQ(name_of("docker-daemon:localhost:5000/app"), "docker-daemon:localhost:5000/app:latest");
  EXPECT_EQ(name_of("docker-daemon:me/app:1"), "docker-daemon:me/app:1");
  EXPECT_EQ(name_of("docker-daemon:" + kDigest), "docker-daemon:" + kDigest);
}

TEST(ReferenceTest, WhatSkopeoIsAskedFor) {
  EXPECT_EQ(Reference::parse("alpine", "/here")->source, "docker://docker.io/library/alpine:latest");
  EXPECT_FALSE(Reference::parse("alpine", "/here")->pinned);
  EXPECT_TRUE(Reference::parse("alpine@" + kDigest, "/here")->pinned);
  EXPECT_EQ(Reference::parse("oci:layout:tag", "/here")->source, "oci:/here/layout:tag");
  EXPECT_EQ(Reference::parse("oci-archive:/a/b.tar", "/here")->source, "oci-archive:/a/b.tar");
  EXPECT_EQ(Reference::parse("docker-archive:x.tar:app:1", "/here")->source,
            "docker-archive:/here/x.tar:app:1");
  EXPECT_EQ(Reference::parse("dir:d", "/here")->source, "dir:/here/d");
  EXPECT_EQ(Reference::parse("containers-storage:localhost/app", "/here")->source,
            "containers-storage:localhost/app");
  EXPECT_EQ(Reference::parse("docker-daemon:app:latest", "/here")->source, "docker-daemon:app:latest");
}

TEST(ReferenceTest, WhatNamesNothing) {
  for (const char* text :
       {"",           " ",        "a b",      "Alpine",      "-x",       "--help", "a/",   "/a",
        "a//b",       "../a",     "a/../b",   "./a",         "a:",       "a:-x",   "a:.x", "a@",
        "a@sha256:1", "a@md5:00", "quay.io/", "https://a/b", "a\nb",     "a\x01",  "oci:", "oci::tag",
        "a..",        "a-",       "a_",       "host name/a", "ho$t.io/a"})
    EXPECT_THAT(name_of(text), HasSubstr("refused: ")) << text;
  EXPECT_THAT(name_of(std::string(600, 'a')), HasSubstr("512"));
  EXPECT_THAT(name_of("a:" + std::string(129, 't')), HasSubstr("refused"));
}

}  // namespace
}  // namespace snug::oci
