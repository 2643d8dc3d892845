// Tables other than the spec's own: lists of maps, as keys to come will be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/reader.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Part {
  std::string path;
  uint32_t weight = 1;
  bool operator==(const Part&) const = default;
};
struct Whole {
  std::vector<Part> parts;
  uint32_t count = 7;
};

const KeyList& table() {
  static const Keys<Whole> keys{
      {.name = "parts",
       .flags = "-p,--part",
       .placeholder = "PATH[,weight=N]",
       .group = "Parts",
       .help = "Parts.",
       .example = "a,weight=2",
       .nested = list_of(&Whole::parts,
                         Keys<Part>{{.name = "path",
                                     .placeholder = "PATH",
                                     .help = "Where.",
                                     .example = "a",
                                     .value = path(&Part::path, FileUse::Kind::kInput)},
                                    {.name = "weight",
                                     .placeholder = "N",
                                     .help = "How much.",
                                     .example = "3",
                                     .value = whole_number(&Part::weight, 1, 9)}},
                         "path")},
      {.name = "count",
       .flags = "--count",
       .placeholder = "N",
       .help = "How many.",
       .example = "3",
       .value = whole_number(&Whole::count, 1, 9)},
  };
  return keys.list;
}

struct Read {
  Whole whole;
  std::vector<std::string> problems;
  std::vector<std::string> files;
};

Read read(std::string_view yaml, const FlagValues& flags = {}) {
  Read out;
  SpecReader reader(table());
  reader.read_yaml(yaml, "t.yaml", "/b", &out.whole);
  reader.read_flags(flags, "/f", &out.whole);
  for (const auto& file : reader.files()) out.files.push_back(file.prefix + " " + file.file.path);
  out.problems = texts_of(reader.take_problems());
  return out;
}

TEST(ListOfMaps, FromYaml) {
  const auto out = read("parts:\n- path: x\n  weight: 4\n- {path: /y}\ncount: 3");
  EXPECT_THAT(out.problems, IsEmpty());
  EXPECT_THAT(out.whole.parts, ElementsAre(Part{"/b/x", 4}, Part{"/y", 1}));
  EXPECT_EQ(out.whole.count, 3U);
  EXPECT_THAT(out.files, ElementsAre("parts[0].path /b/x", "parts[1].path /y"));
}

TEST(ListOfMaps, ProblemsNameTheItem) {
  const auto out = read("parts:\n- path: ''\n  wieght: 4\n- [x]\n- {weight: 0, weight: 1}\n");
  EXPECT_THAT(out.problems,
              ElementsAre("t.yaml:2:9: parts[0].path: the path is empty",
                          "t.yaml:3:3: parts[0]: unknown key 'wieght' (did you mean 'weight'?)",
                          "t.yaml:4:3: parts[1]: expected a path, or a map with path or weight, or a list of "
                          "them, got a list",
                          "t.yaml:5:12: parts[2].weight: expected a whole number from 1 to 9, got '0'",
                          "t.yaml:5:15: duplicate key 'parts[2].weight' (first on line 5)"));
}

TEST(ListOfMaps, ShortForms) {
  EXPECT_THAT(read("parts: x").whole.parts, ElementsAre(Part{"/b/x", 1}));
  EXPECT_THAT(read("parts: {path: x, weight: 2}").whole.parts, ElementsAre(Part{"/b/x", 2}));
  EXPECT_THAT(read("parts: [x, {weight: 3}, y]").whole.parts,
              ElementsAre(Part{"/b/x", 1}, Part{"", 3}, Part{"/b/y", 1}));
}

TEST(ListOfMaps, FlagsReplaceTheList) {
  FlagValues flags;
  flags.add("parts", "p,weight=2");
  flags.add("parts", "weight=3,path=q=1");
  const auto out = read("parts: [{path: x}, {path: y}]", flags);
  EXPECT_THAT(out.problems, IsEmpty());
  EXPECT_THAT(out.whole.parts, ElementsAre(Part{"/f/p", 2}, Part{"/f/q=1", 3}));
  EXPECT_THAT(out.files, ElementsAre("--part: path /f/p", "--part: path /f/q=1"));
}

TEST(ListOfMaps, FlagProblems) {
  FlagValues flags;
  flags.add("parts", "p,wait=2,weight,path=z,weight=x");
  flags.add("parts", "");
  EXPECT_THAT(read("count: 1", flags).problems,
              ElementsAre("--part: unknown key 'wait' (there is path or weight); a comma that belongs "
                          "to a value is written twice: ',,'",
                          "--part: 'weight' needs a value: weight=N", "--part: duplicate key 'path'",
                          "--part: duplicate key 'weight'", "--part: path: the path is empty"));
}

TEST(ListOfMaps, PrintsWhatParsesBack) {
  Whole whole{{{"/a: b", 2}, {"", 3}, {"/c", 1}}, 5};
  const std::string yaml = yaml_of(table(), &whole);
  EXPECT_EQ(
      yaml,
      "parts:\n  - path: \"/a: b\"\n    weight: 2\n  - weight: 3\n  - path: /c\n    weight: 1\ncount: 5\n");
  const auto out = read(yaml);
  EXPECT_THAT(out.problems, IsEmpty());
  EXPECT_EQ(out.whole.parts, whole.parts);
}

TEST(ListOfMaps, Schema) {
  const Whole defaults;
  const auto schema = YAML::Load(schema_of(table(), &defaults));
  const auto parts = schema["properties"]["parts"];
  // One path, one map, or a list of both.
  ASSERT_EQ(parts["anyOf"].size(), 3U);
  EXPECT_EQ(parts["anyOf"][0]["type"].as<std::string>(), "string");
  EXPECT_EQ(parts["anyOf"][2]["type"].as<std::string>(), "array");
  EXPECT_EQ(parts["anyOf"][2]["items"]["anyOf"][0]["type"].as<std::string>(), "string");
  for (const auto& map : {parts["anyOf"][1], parts["anyOf"][2]["items"]["anyOf"][1]}) {
    EXPECT_EQ(map["additionalProperties"].as<bool>(), false);
    EXPECT_EQ(map["properties"]["weight"]["maximum"].as<int>(), 9);
    EXPECT_FALSE(map["properties"]["weight"]["default"]);
  }
}

}  // namespace
}  // namespace snug
