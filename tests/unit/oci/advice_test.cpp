#include "vmm/oci/advice.h"

#include <gmock/gmock.h>

namespace snug::oci {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

std::string advice(const std::string& image, const std::string& said, std::string hint = {}) {
  return with_advice({said, std::move(hint)}, *Reference::parse(image, "/here")).hint;
}

TEST(Advice, RegistriesThatRefuse) {
  EXPECT_THAT(advice("quay.io/me/app",
                     "reading manifest latest in quay.io/me/app: unauthorized: authentication required"),
              HasSubstr("skopeo login quay.io;"));
  EXPECT_THAT(advice("alpine", "unable to retrieve auth token: invalid username/password: unauthorized: no"),
              HasSubstr("not right any more: skopeo login docker.io"));
  EXPECT_THAT(advice("none", "errors: denied: requested access to the resource is denied; unauthorized"),
              HasSubstr("is its name right"));
  EXPECT_THAT(advice("localhost:5000/app", "invalid status code from registry 403 (Forbidden)"),
              HasSubstr("skopeo login localhost:5000"));
  EXPECT_THAT(advice("alpine", "toomanyrequests: you have reached your pull rate limit"),
              HasSubstr("wait a while"));
}

TEST(Advice, RegistriesThatLackIt) {
  for (const char* said : {"reading manifest 3 in [::1]:5000/me/app: manifest unknown: not known here",
                           "name unknown", "invalid status code from registry 404 (Not Found)"})
    for (const char* image : {"[::1]:5000/me/app:3", "[::1]:5000/me/app"})
      EXPECT_THAT(advice(image, said), HasSubstr("skopeo list-tags docker://[::1]:5000/me/app")) << said;
  EXPECT_THAT(
      advice("alpine", "reading config blob sha256:00: invalid status code from registry 404 (Not Found)"),
      HasSubstr("pushed again"));
  EXPECT_THAT(
      advice("alpine",
             "pinging container registry docker.io: invalid status code from registry 404 (Not Found)"),
      HasSubstr("is docker.io a registry"));
  EXPECT_THAT(advice("localhost/app", "http: server gave HTTP response to HTTPS client"),
              HasSubstr("registries.conf"));
}

TEST(Advice, OtherSources) {
  EXPECT_THAT(
      advice("docker-daemon:app", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."),
      HasSubstr("docker-archive:FILE"));
  EXPECT_THAT(
      advice("docker-daemon:app", "permission denied while trying to connect to the Docker daemon socket"),
      HasSubstr("its group"));
  EXPECT_THAT(advice("docker-daemon:app", "Error response from daemon: No such image: app:latest"),
              HasSubstr("docker images"));
  EXPECT_THAT(advice("docker-daemon:app", "client version 1.22 is too old"), HasSubstr("docker save"));
  EXPECT_THAT(advice("containers-storage:app", "does not resolve to an image ID: identifier is not an image"),
              HasSubstr("podman images"));
}

TEST(Advice, NamesAreNothingThatWasSaid) {
  EXPECT_THAT(advice("quay.io/denied/unauthorized:403",
                     "reading manifest 403 in quay.io/denied/unauthorized: unexpected end"),
              IsEmpty());
  EXPECT_THAT(advice("oci:/unauthorized", "oci:/unauthorized: manifest unknown"), IsEmpty());
}

TEST(Advice, WhatIsKnownBetterStays) {
  EXPECT_EQ(advice("alpine", "unauthorized", "do this"), "do this");
  EXPECT_THAT(advice("alpine", "write: No space left on device"), HasSubstr("make room"));
  EXPECT_THAT(advice("alpine", "something new"), IsEmpty());
}

}  // namespace
}  // namespace snug::oci
