#include "vmm/oci/image_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace snug::oci {
namespace {

using nlohmann::json;

constexpr size_t kListMax = 1000;
constexpr size_t kTextMax = 128 << 10;  // as one argument of execve(2)

Result<json> object_of(std::string_view text, std::string_view what) {
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail("the {} is not a JSON object", what);
  return parsed;
}

// A member, or null.
const json& member(const json& object, const char* name) {
  static const json none;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? none : *found;
}

std::string text_of(const json& value) {
  return value.is_string() && value.get_ref<const std::string&>().size() <= kTextMax
             ? value.get<std::string>()
             : std::string();
}

Result<Descriptor> descriptor_of(const json& value, std::string_view what) {
  constexpr std::string_view kSha256 = "sha256:";
  Descriptor found{text_of(member(value, "digest")), 0, text_of(member(value, "mediaType"))};
  const std::string_view digits =
      std::string_view(found.digest).substr(std::min(found.digest.size(), kSha256.size()));
  const bool good =
      found.digest.starts_with(kSha256) && digits.size() == 64 &&
      std::ranges::all_of(digits, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!good) return fail("the {} has no digest of sha256", what);
  const json& size = member(value, "size");
  if (!size.is_number_unsigned()) return fail("the {} has no size", what);
  found.size = size.get<uint64_t>();
  return found;
}

Result<std::vector<std::string>> texts_of(const json& value, std::string_view what) {
  std::vector<std::string> texts;
  if (value.is_null()) return texts;
  // Docker takes one that is no list for a line of the shell.
  if (value.is_string()) return std::vector<std::string>{"/bin/sh", "-c", text_of(value)};
  if (!value.is_array() || value.size() > kListMax) return fail("{} is not a list of texts", what);
  for (const json& each : value) {
    if (!each.is_string() || each.get_ref<const std::string&>().size() > kTextMax ||
        each.get_ref<const std::string&>().find('\0') != std::string::npos)
      return fail("{} is not a list of texts", what);
    texts.push_back(each.get<std::string>());
  }
  return texts;
}

std::vector<std::string> names_of(const json& value) {
  std::vector<std::string> names;
  if (!value.is_object()) return names;
  for (const auto& [name, nothing] : value.items())
    if (names.size() < kListMax && name.size() <= kTextMax) names.push_back(name);
  return names;
}

// In nanoseconds; none, and 0, are the default.
std::optional<std::chrono::milliseconds> time_of(const json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() == 0) return std::nullopt;
  constexpr std::chrono::hours kLongest{24 * 365};
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::nanoseconds(std::min<uint64_t>(value.get<uint64_t>(), INT64_MAX)));
  return std::clamp<std::chrono::milliseconds>(whole, std::chrono::milliseconds(1), kLongest);
}

// "CMD" and the words, "CMD-SHELL" and a line, "NONE", or nothing.
Result<ImageHealth> health_of(const json& value, const json& shell) {
  ImageHealth health;
  const json& test = member(value, "Test");
  if (!test.is_array()) return health;
  std::vector<std::string> words = SNUG_TRY(texts_of(test, "Healthcheck"));
  if (words.empty() || words.front() == "NONE") return health;
  const bool line = words.front() == "CMD-SHELL";
  if (!line && words.front() != "CMD")
    return fail("Healthcheck begins with CMD or CMD-SHELL, not with '{}'", words.front().substr(0, 40));
  if (line) health.command = SNUG_TRY(texts_of(shell, "Shell"));
  if (line && health.command.empty()) health.command = {"/bin/sh", "-c"};
  health.command.insert(health.command.end(), words.begin() + 1, words.end());
  if (words.size() == 1) health.command.clear();
  health.interval = time_of(member(value, "Interval"));
  health.timeout = time_of(member(value, "Timeout"));
  health.start_period = time_of(member(value, "StartPeriod"));
  if (const json& retries = member(value, "Retries");
      retries.is_number_unsigned() && retries.get<uint64_t>() > 0)
    health.retries = static_cast<uint32_t>(std::min<uint64_t>(retries.get<uint64_t>(), 1'000'000));
  return health;
}

bool is_ours(const json& platform) {
  const std::string system = text_of(member(platform, "os"));
  const std::string machine = text_of(member(platform, "architecture"));
  return (system.empty() || system == "linux") && (machine.empty() || machine == "amd64");
}

}  // namespace

std::string Descriptor::path() const {
  std::string path = digest;
  std::ranges::replace(path, ':', '/');
  return path;
}

Result<Descriptor> manifest_of_layout(std::string_view text) {
  const json index = SNUG_TRY(object_of(text, "index"));
  const json& manifests = member(index, "manifests");
  if (!manifests.is_array() || manifests.empty()) return fail("the index names no image");
  for (const json& each : manifests)
    if (is_ours(member(each, "platform"))) return descriptor_of(each, "manifest");
  return fail("the image is not for linux/amd64");
}

Result<Manifest> parse_manifest(std::string_view text) {
  const json parsed = SNUG_TRY(object_of(text, "manifest"));
  Manifest manifest{SNUG_TRY(descriptor_of(member(parsed, "config"), "configuration")), {}};
  const json& layers = member(parsed, "layers");
  if (!layers.is_array() || layers.size() > kListMax) return fail("the manifest has no list of layers");
  for (const json& each : layers) manifest.layers.push_back(SNUG_TRY(descriptor_of(each, "layer")));
  return manifest;
}

Result<ImageConfig> parse_config(std::string_view text) {
  const json parsed = SNUG_TRY(object_of(text, "configuration"));
  if (!is_ours(parsed))
    return fail("the image is for {}/{}, and snug runs linux/amd64", text_of(member(parsed, "os")),
                text_of(member(parsed, "architecture")));
  const json& config = member(parsed, "config");
  ImageConfig found;
  found.entrypoint = SNUG_TRY(texts_of(member(config, "Entrypoint"), "Entrypoint"));
  found.command = SNUG_TRY(texts_of(member(config, "Cmd"), "Cmd"));
  found.environment = SNUG_TRY(texts_of(member(config, "Env"), "Env"));
  found.folder = text_of(member(config, "WorkingDir"));
  found.user = text_of(member(config, "User"));
  found.stop_signal = text_of(member(config, "StopSignal"));
  found.ports = names_of(member(config, "ExposedPorts"));
  found.volumes = names_of(member(config, "Volumes"));
  found.health = SNUG_TRY(health_of(member(config, "Healthcheck"), member(config, "Shell")));
  return found;
}

}  // namespace snug::oci
