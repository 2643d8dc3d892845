// What an image says about itself: its manifest and its configuration, as JSON (OCI image specification 1.1,
// and docker's own of before). Hostile: bounded, and believed in nothing.
//
// Thread: any.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace snug::oci {

// A blob by its digest, "sha256:" and 64 digits, checked to be that.
struct Descriptor {
  std::string digest;
  uint64_t size = 0;
  std::string media_type;

  // Below a folder of blobs: "sha256/..."
  std::string path() const;
};

// index.json of a layout that holds one image. Errors: there is none for linux/amd64.
Result<Descriptor> manifest_of_layout(std::string_view json);

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  // from the lowest on
};
Result<Manifest> parse_manifest(std::string_view json);

// How it is seen that what runs is well (docker's HEALTHCHECK; the OCI specification has none).
struct ImageHealth {
  std::vector<std::string> command;  // with a shell in front where it is a line for one; empty: none
  // Nothing: docker's default.
  std::optional<std::chrono::milliseconds> interval, timeout, start_period;
  std::optional<uint32_t> retries;
};

// How a container of it is started, unless it is told otherwise.
struct ImageConfig {
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE
  std::string folder;
  std::string user;
  std::string stop_signal;
  std::vector<std::string> ports;    // "8080", "53/udp"
  std::vector<std::string> volumes;  // folders
  ImageHealth health;
};
// Errors: not JSON, for another system than linux/amd64.
Result<ImageConfig> parse_config(std::string_view json);

}  // namespace snug::oci
