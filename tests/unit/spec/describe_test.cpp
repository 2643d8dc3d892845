#include "vmm/spec/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include "tests/unit/spec/problems.h"

namespace snug {
namespace {

using testing::IsEmpty;

// Enough of JSON Schema for what json_schema() uses.
bool fits(const YAML::Node& schema, const YAML::Node& value) {
  if (schema["anyOf"]) {
    bool any = false;
    for (const auto& choice : schema["anyOf"]) any = any || fits(choice, value);
    return any;
  }
  const bool quoted = value.Tag() == "!";
  const std::regex number("^(0|-?[1-9][0-9]*)$");
  const bool is_number = value.IsScalar() && !quoted && std::regex_match(value.Scalar(), number);
  if (schema["const"] && !(is_number && value.Scalar() == schema["const"].Scalar())) return false;
  if (schema["enum"]) {
    bool any = false;
    for (const auto& choice : schema["enum"])
      any = any || (value.IsScalar() && choice.Scalar() == value.Scalar());
    if (!any) return false;
  }
  const auto type = schema["type"] ? schema["type"].Scalar() : "";
  if (type == "integer") {
    return is_number && std::stol(value.Scalar()) >= schema["minimum"].as<long>() &&
           std::stol(value.Scalar()) <= schema["maximum"].as<long>();
  }
  if (type == "number") {
    const bool plain = value.IsScalar() && !quoted &&
                       std::regex_match(value.Scalar(), std::regex("^-?(0|[1-9][0-9]*)([.][0-9]+)?$"));
    return plain && value.as<double>() >= schema["minimum"].as<double>() &&
           value.as<double>() <= schema["maximum"].as<double>();
  }
  if (type == "string") {
    if (!value.IsScalar() || is_number) return false;
    if (schema["minLength"] && value.Scalar().size() < schema["minLength"].as<size_t>()) return false;
    return !schema["pattern"] || std::regex_search(value.Scalar(), std::regex(schema["pattern"].Scalar()));
  }
  if (type == "array") {
    if (!value.IsSequence()) return false;
    for (const auto& item : value) {
      if (!fits(schema["items"], item)) return false;
    }
  }
  if (type == "object") {
    if (!value.IsMap()) return false;
    for (const auto& entry : value) {
      const auto inner = schema["properties"][entry.first.Scalar()];
      if (!inner || !fits(inner, entry.second)) return false;
    }
  }
  return true;
}

void expect_same_keys(const YAML::Node& object, const KeyList& keys) {
  EXPECT_EQ(object["type"].as<std::string>(), "object");
  EXPECT_EQ(object["additionalProperties"].as<bool>(), false);
  EXPECT_EQ(object["properties"].size(), keys.size());
  for (const auto& key : keys) {
    const auto schema = object["properties"][std::string(key.name)];
    ASSERT_TRUE(schema) << key.name;
    EXPECT_FALSE(schema["description"].as<std::string>().empty());
    if (!key.nested) {
      EXPECT_TRUE(fits(schema, YAML::Load(std::string(key.example)))) << key.name;
      EXPECT_TRUE(!schema["default"] || fits(schema, schema["default"])) << key.name;
    }
    // The map stands behind the value that may be in its place, if there is one.
    if (key.nested && !key.nested->is_list)
      expect_same_keys(schema["anyOf"][schema["anyOf"].size() - 1], key.nested->keys);
  }
}

TEST(JsonSchema, HoldsTheTable) {
  const auto schema = YAML::Load(json_schema());
  EXPECT_EQ(schema["$schema"].as<std::string>(), "https://json-schema.org/draft/2020-12/schema");
  expect_same_keys(schema, spec_keys());
}

// What the schema accepts and refuses, the parser does too.
TEST(JsonSchema, AgreesWithTheParser) {
  const auto schema = YAML::Load(json_schema());
  for (const char* text : {"name: a",
                           "name: -a",
                           "name: a b",
                           "cpus: 1",
                           "cpus: 64",
                           "cpus: 65",
                           "cpus: 0",
                           "cpus: x",
                           "cpus: [1]",
                           "memory: 64M",
                           "memory: 64MiB",
                           "memory: 64MB",
                           "memory: 512",
                           "memory: 1g",
                           "memory: M",
                           "kernel: a",
                           "kernel: ''",
                           "kernel: [a]",
                           "initrd: a",
                           "initrd: [a, b]",
                           "initrd: {a: b}",
                           "initrd: [[a]]",
                           "cmdline: a",
                           "cmdline: [a, b]",
                           "console: stdio",
                           "console: file:x",
                           "console: 'file:'",
                           "console: tty",
                           "timeout: 30s",
                           "timeout: 1h2m3s4ms",
                           "timeout: 5ms",
                           "timeout: 30",
                           "timeout: 0",
                           "timeout: none",
                           "timeout: 1s1m",
                           "timeout: 1d",
                           "on_reboot: exit",
                           "on_reboot: ignore",
                           "on_panic: ignore",
                           "log: debug",
                           "log: loud",
                           "log: {level: debug, file: x}",
                           "log: {levl: debug}",
                           "log: [debug]",
                           "disks: a",
                           "disks: [a, {path: b, readonly: true}]",
                           "disks: [[a]]",
                           "net: user",
                           "net: bridge",
                           "net: [user, {mode: none}]",
                           "net: {ports: ['80:80']}",
                           "net: {mac: '02:00:00:00:00:0g'}",
                           "ports: '80:80'",
                           "ports: ['8080:80', '127.0.0.1:53:53/udp', '[::1]:1:1/tcp']",
                           "ports: '80'",
                           "ports: '80:80/sctp'",
                           "ports: {80: 80}",
                           "limits: {cpu: 2, memory: +64M, io_weight: 1}",
                           "limits: {cpu: 0.25, memory: 512M, io_weight: none}",
                           "limits: {cpu: none, memory: none}",
                           "limits: {cpu: two}",
                           "limits: {cpu: 2048}",
                           "limits: {memory: 64}",
                           "limits: {memory: -64M}",
                           "limits: {io_weight: 0}",
                           "limits: {io_weight: 10001}",
                           "limits: {pids: 1}",
                           "limits: 2",
                           "unknown: 1"}) {
    EXPECT_EQ(fits(schema, YAML::Load(text)), problems_in(text).empty()) << text;
  }
}

// Strict JSON is more than what yaml-cpp reads: quotes, commas and brackets, by hand.
TEST(JsonSchema, IsJson) {
  const std::string text = json_schema();
  std::string skeleton;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      in_string = !in_string;
      if (!in_string) skeleton += 's';
    } else if (!in_string && text[i] != ' ' && text[i] != '\n') {
      skeleton += text[i];
    }
  }
  EXPECT_FALSE(in_string);
  const std::regex object("\\{(s:v(,s:v)*)?\\}|\\[(v(,v)*)?\\]");
  std::string before;
  skeleton = std::regex_replace(skeleton, std::regex("(:|\\[|,)(s|true|false|[0-9.]+)(?=[,\\]}])"), "$1v");
  while (skeleton != before) {
    before = skeleton;
    skeleton = std::regex_replace(skeleton, object, "v");
    skeleton = std::regex_replace(skeleton, std::regex("(\\[|,)s(?=[,\\]])"), "$1v");
  }
  EXPECT_EQ(skeleton, "v");
}

TEST(EffectiveSpec, Defaults) {
  Spec spec;
  spec.kernel = "/k";
  EXPECT_EQ(effective_spec_yaml(spec), R"(name: snug
cpus: 1
memory: 256M
kernel: /k
kernel_cache: true
template: auto
kaslr: true
pull: missing
init: agent
storage: none
publish_all: false
vsock:
  socket: none
  cid: 3
rng: true
packed_rings: true
pci: ecam
balloon: 0
no_healthcheck: false
console: stdio
timeout: none
boot_timeout: none
grace_period: 10s
on_reboot: restart
on_panic: exit
jail: auto
limits:
  cpu: none
  memory: none
  io_weight: none
log:
  level: warn
)");
}

TEST(EffectiveSpec, ParsesBack) {
  Spec spec;
  spec.name = "a.b-c";
  spec.cpus = 64;
  spec.memory = uint64_t{1536} << 20;
  spec.kernel = "/with space/k: #1";
  spec.initrd = {"/a", "/ü", "/'\"\\"};
  spec.cmdline = "a=\"b c\" d: e # f";
  spec.balloon = uint64_t{12} << 20;
  spec.consoles = {{{PortKind::kPty, ""}}, {{PortKind::kSocket, "/a b"}}, {{PortKind::kFile, "/f"}}};
  spec.channels = {{"org.one", "/1"}, {"two", "/2 #"}};
  spec.console = {ConsoleKind::kFile, "/x y"};
  spec.timeout = std::chrono::milliseconds(1);
  spec.grace_period = std::nullopt;
  spec.on_reboot = OnReboot::kExit;
  spec.on_panic = OnPanic::kRestart;
  spec.limits = {250, {MemoryLimitKind::kBeyondGuest, uint64_t{64} << 20}, 7};
  spec.log = {LogLevel::kOff, "/l"};
  for (const char* cmdline :
       {"a=\"b c\" d: e # f", "- a", "null", "~", "1", "a:", "@x", "*", "{", "'", "%", "--", "..."}) {
    spec.cmdline = cmdline;
    const auto outcome = parse_spec_text(effective_spec_yaml(spec), "other.yaml", "/elsewhere");
    EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
    EXPECT_EQ(outcome.spec, spec) << effective_spec_yaml(spec);
  }
}

// Every example that comes with snug is fine, its files aside.
TEST(Examples, Parse) {
  const std::filesystem::path folder = std::filesystem::path(SNUG_SOURCE_ROOT) / "guest-images" / "examples";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".yaml") continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    EXPECT_THAT(texts_of(parse_spec_text(text, entry.path().filename(), folder).problems), IsEmpty());
  }
}

}  // namespace
}  // namespace snug
