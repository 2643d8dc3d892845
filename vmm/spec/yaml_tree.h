// YAML text as a flat tree with positions: what yaml-cpp's own nodes hide (duplicate keys, aliases, null
// against empty) stays visible, nothing is expanded, nothing recurses. Untrusted input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/spec/problem.h"

namespace snug {

constexpr int kMaxYamlDepth = 64;
constexpr size_t kMaxYamlNodes = 20'000;

// A use of a node: of one with an anchor there may be several, each with its own place. An alias may lie
// inside of what it stands for: walk with a bound.
struct YamlRef {
  uint32_t node = 0;
  Position position;
};

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  std::string text;               // kScalar
  std::vector<YamlRef> children;  // kSequence: items; kMap: key, value, key, value
};

struct YamlDocument {
  std::vector<YamlNode> nodes;
  YamlRef root;
  const YamlNode& at(const YamlRef& ref) const { return nodes[ref.node]; }
};

struct YamlOutcome {
  std::optional<YamlDocument> document;  // nothing when a problem kept it from being read
  std::optional<Position> error_position;
  std::string error;  // empty when all is well
};

// One document, exactly. Refuses: bytes that are not UTF-8, control characters, unknown tags, more than
// kMaxYamlDepth levels or kMaxYamlNodes values, further documents. Never throws.
YamlOutcome parse_yaml(std::string_view text);

}  // namespace snug
