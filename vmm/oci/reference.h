// What a person calls an image, and what skopeo calls it (containers-transports(5)).
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snug::oci {

struct Reference {
  std::string name;    // "docker.io/library/alpine:latest", "oci:/home/me/layout:tag": by which it is kept
  std::string source;  // for skopeo: "docker://docker.io/library/alpine:latest"
  // It names its content by a digest: what is kept by that name never changes.
  bool pinned = false;

  // As docker has it: without a host it is of docker.io, without a path of its library, without a tag the
  // latest. A transport of skopeo's in front is taken as it is, its path made absolute (from `folder`).
  // Errors: what is wrong with it.
  static Result<Reference> parse(std::string_view text, const std::string& folder);
};

}  // namespace snug::oci
