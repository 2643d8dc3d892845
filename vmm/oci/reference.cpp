#include "vmm/oci/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

namespace snug::oci {
namespace {

// Those whose rest is a path, up to a colon.
constexpr std::array kPathTransports{std::string_view("oci:"), std::string_view("oci-archive:"),
                                     std::string_view("docker-archive:"), std::string_view("dir:")};
constexpr std::string_view kDaemon = "docker-daemon:";
constexpr std::array kOtherTransports{std::string_view("containers-storage:"), kDaemon};
constexpr std::string_view kRegistry = "docker://";
constexpr size_t kLongest = 512;

// Of a repository's path: lower case letters and digits, with separators between them (OCI distribution,
// pulling).
bool is_path(std::string_view text) {
  if (text.empty()) return false;
  char before = '/';
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    const bool separator = c == '.' || c == '_' || c == '-' || c == '/';
    if (!letter && !separator) return false;
    if (before == '/' && !letter) return false;
    before = c;
  }
  return before != '/' && before != '.' && before != '-' && before != '_';
}

bool is_tag(std::string_view text) {
  return !text.empty() && text.size() <= 128 && text.front() != '.' && text.front() != '-' &&
         std::ranges::all_of(text, [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-';
         });
}

bool is_digest(std::string_view text) {
  constexpr std::string_view kSha256 = "sha256:";
  if (!text.starts_with(kSha256)) return false;
  text.remove_prefix(kSha256.size());
  return text.size() == 64 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_host(std::string_view text) {
  if (text.empty() || (std::isalnum(static_cast<unsigned char>(text.front())) == 0 && text.front() != '['))
    return false;
  return std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == ':' || c == '[' ||
           c == ']';
  });
}

Result<Reference> of_registry(std::string_view text) {
  const auto wrong = [&](std::string_view what) {
    return fail_with_hint(
        fmt::format("'{}' names no image: {}", text, what),
        "an image is named as docker names it, for instance alpine, nginx:1.25 or quay.io/me/app@sha256:...");
  };
  std::string_view rest = text;
  std::string host = "docker.io";
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    const std::string_view first = rest.substr(0, slash);
    if (first == "localhost" || first.find_first_of(".:") != std::string_view::npos) {
      if (!is_host(first)) return wrong("its host");
      host = first;
      rest.remove_prefix(slash + 1);
    }
  }
  std::string digest, tag;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    digest = rest.substr(at + 1);
    if (!is_digest(digest)) return wrong("its digest is not sha256: and 64 digits");
    rest = rest.substr(0, at);
  }
  if (const size_t colon = rest.rfind(':');
      colon != std::string_view::npos && rest.find('/', colon) == std::string_view::npos) {
    tag = rest.substr(colon + 1);
    if (!is_tag(tag)) return wrong("its tag");
    rest = rest.substr(0, colon);
  }
  if (!is_path(rest)) return wrong("its path has lower case letters, digits and . _ - / only");
  Reference reference;
  reference.name = host + "/";
  if (host == "docker.io" && rest.find('/') == std::string_view::npos) reference.name += "library/";
  reference.name += rest;
  // Both together skopeo does not take; the digest says more.
  reference.name += !digest.empty() ? "@" + digest : ":" + (tag.empty() ? std::string("latest") : tag);
  reference.source = std::string(kRegistry) + reference.name;
  reference.pinned = !digest.empty();
  return reference;
}

}  // namespace

Result<Reference> Reference::parse(std::string_view text, const std::string& folder) {
  if (text.empty()) return fail("an image needs a name");
  if (text.size() > kLongest) return fail("the name of an image has {} bytes at most", kLongest);
  if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; }))
    return fail("the name of an image has no spaces in it");
  for (const std::string_view transport : kPathTransports) {
    if (!text.starts_with(transport)) continue;
    const std::string_view path = text.substr(transport.size());
    if (path.empty() || path.front() == ':') return fail("{} is followed by a path", transport);
    const std::string name =
        std::string(transport) + (path.front() == '/' ? "" : folder + "/") + std::string(path);
    return Reference{name, name, false};
  }
  for (const std::string_view transport : kOtherTransports) {
    if (!text.starts_with(transport) || text.size() == transport.size()) continue;
    std::string name(text);
    // As docker itself understands it, and skopeo does not.
    const std::string_view last = text.substr(std::max(text.rfind('/') + 1, transport.size()));
    if (transport == kDaemon && last.find_first_of(":@") == std::string_view::npos) name += ":latest";
    return Reference{name, name, false};
  }
  if (text.starts_with(kRegistry)) text.remove_prefix(kRegistry.size());
  return of_registry(text);
}

}  // namespace snug::oci
