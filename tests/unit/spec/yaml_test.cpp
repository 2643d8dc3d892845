#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/yaml_tree.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

struct Case {
  std::string yaml;
  std::string problem;
};

class YamlProblems : public testing::TestWithParam<Case> {};

TEST_P(YamlProblems, OneThatExplains) {
  EXPECT_THAT(problems_in(GetParam().yaml), ElementsAre(GetParam().problem));
}

INSTANTIATE_TEST_SUITE_P(
    Syntax, YamlProblems,
    testing::Values(
        Case{"log:\n\tlevel: debug\n", "vm.yaml:2:1: a tab in the indentation; YAML wants spaces"},
        Case{"log:\n  level: debug\n\tfile: x\n", "vm.yaml:3:1: a tab in the indentation; YAML wants spaces"},
        Case{"name: a: b\n",
             "vm.yaml:1:8: a ':' has no meaning here; put text that contains ': ' in quotes, and check "
             "the indentation and that the line before is KEY: VALUE"},
        Case{"kernel vmlinux\ncpus: 2\n",
             "vm.yaml:2:5: a ':' has no meaning here; put text that contains ': ' in quotes, and check the "
             "indentation "
             "and that the line before is KEY: VALUE"},
        Case{"initrd: [a, b\n", "vm.yaml:2:1: the closing ']' is missing"},
        Case{"log: {level: info\n", "vm.yaml:2:1: the closing '}' is missing"},
        Case{"name: ]\n", "vm.yaml:1:7: a ']' or '}' without its opening one"},
        Case{"name: @x\n", "vm.yaml:1:7: a value cannot begin with this character; put it in quotes"},
        Case{"name: %x\n", "vm.yaml:1:7: a value cannot begin with this character; put it in quotes"},
        Case{"name: \"a\n", "vm.yaml:1:7: the closing \" of this text is missing"},
        Case{"name: 'a''b\ncpus: 2\n", "vm.yaml:1:7: the closing ' of this text is missing"},
        Case{"name: &x \"a\\\"\n", "vm.yaml:1:7: the closing \" of this text is missing"},
        Case{"name: \"\\q\"\n",
             "vm.yaml:1:10: an unknown escape after '\\'; write '\\\\' for a backslash, or use "
             "single quotes"},
        Case{"name: *x\n",
             "vm.yaml:1:7: an alias ('*') without its anchor ('&'); put text that begins with '*' in "
             "quotes"},
        Case{"name: !custom x\n", "vm.yaml:1:7: the tag '!custom' has no meaning in a spec"},
        Case{"- a\n-b\n",
             "vm.yaml:2:1: more text behind the end of the spec; check the indentation of this line and "
             "put quotes around text with special characters"}));

INSTANTIATE_TEST_SUITE_P(
    Bytes, YamlProblems,
    testing::Values(
        Case{"name: \xff\n", "vm.yaml:1:7: not valid UTF-8; save the file as UTF-8 text"},
        Case{"cpus: 1\nü: \xc3(\n", "vm.yaml:2:4: not valid UTF-8; save the file as UTF-8 text"},
        Case{"\xff\xfe"
             "a\0",
             "vm.yaml:1:1: not valid UTF-8; save the file as UTF-8 text"},
        Case{std::string("a: b\0c", 6), "vm.yaml:1:5: a NUL byte; this is not a text file"},
        Case{"a: \x04", "vm.yaml:1:4: a control character (U+0004); YAML allows none but tabs and line ends"},
        Case{"a: b\rc: d",
             "vm.yaml:1:5: a control character (U+000D); YAML allows none but tabs and line ends"}));

std::string repeated(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ParseYaml, DepthIsBounded) {
  const auto deep = [](size_t levels) { return "x: " + repeated("[", levels) + repeated("]", levels); };
  EXPECT_TRUE(parse_yaml(deep(63)).document);
  const auto outcome = parse_yaml(deep(64));
  EXPECT_FALSE(outcome.document);
  EXPECT_EQ(outcome.error, "nested more than 64 levels deep");
  EXPECT_EQ(outcome.error_position, (Position{1, 67}));
}

// A quarter of a mebibyte of each: no crash, no hang, no answer of unreasonable size.
TEST(ParseYaml, HostileRepetition) {
  for (const std::string_view piece :
       {"[", "{",    "- ", "? ",   "[a: ", "a: ",   "[],",    "{},",   "\"\",", "&a ", "\"",    "'",  "*a,",
        "!", "{a: ", "%",  "--- ", "\n",   "a: \n", "a: |\n", ": ",    "|",     ">",   "- a\n", "# ", "[?",
        ",", "]",    "\t", "a",    "ü",    "!<",    "...\n",  "---\n", "? a\n", "{? ", "\"\\",  " "}) {
    for (const std::string_view before : {"", "x: ", "x: ["}) {
      const auto start = std::chrono::steady_clock::now();
      const std::string text = std::string(before) + repeated(piece, kMaxSpecBytes / 4 / piece.size());
      EXPECT_LE(parse_spec_text(text, "vm.yaml", "").problems.size(), kMaxProblems + 1);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      EXPECT_LT(taken.count(), 10) << before << piece;
    }
  }
}

TEST(ParseYaml, NodesAreBounded) {
  EXPECT_THAT(parse_yaml("[" + repeated("a,", 30'000) + "]").error, StartsWith("more than 20000 values"));
  EXPECT_THAT(parse_yaml("[&a x," + repeated("*a,", 50'000) + "]").error,
              StartsWith("more than 40000 values"));
}

TEST(ParseYaml, TreeAndPositions) {
  const auto outcome = parse_yaml("a: &x [1, ü, *x]\nb: *x\n");
  ASSERT_TRUE(outcome.document);
  const auto& document = *outcome.document;
  const auto& root = document.at(document.root);
  ASSERT_EQ(root.children.size(), 4U);
  const auto& list = document.at(root.children[1]);
  ASSERT_EQ(list.children.size(), 3U);
  EXPECT_EQ(document.at(list.children[1]).text, "ü");
  EXPECT_EQ(list.children[2].position, (Position{1, 14}));
  EXPECT_EQ(list.children[2].node, root.children[1].node);
  EXPECT_EQ(root.children[3].node, root.children[1].node);
  EXPECT_EQ(root.children[3].position, (Position{2, 4}));
}

}  // namespace
}  // namespace snug
