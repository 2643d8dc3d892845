#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/spec/problems.h"
#include "vmm/base/checked.h"

namespace snug {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Spec spec_of(std::string_view yaml) {
  const auto outcome = parse_spec_text(yaml, "vm.yaml", "/specs");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  return outcome.spec;
}

TEST(ParseSpec, Everything) {
  const Spec spec = spec_of(R"(
name: web-1
cpus: 4
memory: 2G
kernel: build/vmlinux
initrd: [base.cpio, /abs/extra.cpio]
cmdline:
  - quiet
  - loglevel=3  panic=-1
console: file:logs/console
timeout: 1h30m
boot_timeout: 500ms
grace_period: none
on_reboot: exit
on_panic: ignore
log:
  level: trace
  file: snug.log
)");
  Spec expected;
  expected.name = "web-1";
  expected.cpus = 4;
  expected.memory = 2 * kGiB;
  expected.kernel = "/specs/build/vmlinux";
  expected.initrd = {"/specs/base.cpio", "/abs/extra.cpio"};
  expected.cmdline = "quiet loglevel=3  panic=-1";
  expected.console = {ConsoleKind::kFile, "/specs/logs/console"};
  expected.timeout = milliseconds(5'400'000);
  expected.boot_timeout = milliseconds(500);
  expected.grace_period = std::nullopt;
  expected.on_reboot = OnReboot::kExit;
  expected.on_panic = OnPanic::kIgnore;
  expected.log = {LogLevel::kTrace, "/specs/snug.log"};
  EXPECT_EQ(spec, expected);
}

TEST(ParseSpec, Defaults) {
  Spec expected;
  expected.name = "vm";
  expected.kernel = "/specs/k";
  EXPECT_EQ(spec_of("kernel: k"), expected);
  EXPECT_EQ(expected.cpus, 1U);
  EXPECT_EQ(expected.memory, 256 * kMiB);
  EXPECT_EQ(expected.grace_period, milliseconds(10'000));
  EXPECT_EQ(expected.timeout, std::nullopt);
  EXPECT_EQ(expected.log.level, LogLevel::kWarn);
}

TEST(ParseSpec, FormsThatMeanTheSame) {
  EXPECT_EQ(spec_of("cpus: \"2\"").cpus, 2U);
  EXPECT_EQ(spec_of("memory: '64M'").memory, 64 * kMiB);
  EXPECT_EQ(spec_of("memory: 64MiB").memory, 64 * kMiB);
  EXPECT_EQ(spec_of("memory: 64m").memory, 64 * kMiB);
  EXPECT_EQ(spec_of("log: off").log.level, LogLevel::kOff);
  EXPECT_EQ(spec_of("initrd: a").initrd, std::vector<std::string>{"/specs/a"});
  EXPECT_EQ(spec_of("initrd: []").initrd, std::vector<std::string>{});
  EXPECT_EQ(spec_of("cmdline: |\n  a\n  b\n").cmdline, "a b");
  EXPECT_EQ(spec_of("cmdline: >-\n  a\n  b\n").cmdline, "a b");
  EXPECT_EQ(spec_of("cmdline: ''").cmdline, "");
  EXPECT_EQ(spec_of("timeout: 0").timeout, std::nullopt);
  EXPECT_EQ(spec_of("timeout: none").timeout, std::nullopt);
  EXPECT_EQ(spec_of("timeout: 0").timeout, std::nullopt);
  EXPECT_EQ(spec_of("grace_period: 0").grace_period, milliseconds(0));
  EXPECT_EQ(spec_of("{cpus: 2, \"log\": {level: info}}").log.level, LogLevel::kInfo);
  EXPECT_EQ(spec_of("\xef\xbb\xbf"
                    "cpus: 2\r\nname: x\r\n")
                .name,
            "x");
  EXPECT_EQ(spec_of("---\ncpus: 3\n...\n").cpus, 3U);
  EXPECT_EQ(spec_of("name: &n abc\nkernel: *n\n").kernel, "/specs/abc");
  EXPECT_EQ(spec_of("cpus: !!int 7").cpus, 7U);
  EXPECT_EQ(spec_of("kernel: ./k").kernel, "/specs/k");
  EXPECT_EQ(spec_of("kernel: ../k").kernel, "/specs/../k");
  EXPECT_EQ(spec_of("kernel: ~/k").kernel, "/specs/~/k");
  EXPECT_EQ(spec_of("kernel: größe/käse").kernel, "/specs/größe/käse");
}

TEST(ParseSpec, BaseDir) {
  EXPECT_EQ(parse_spec_text("kernel: k", "x.yaml", "").spec.kernel, "k");
  EXPECT_EQ(parse_spec_text("kernel: k", "x.yaml", "/").spec.kernel, "/k");
  EXPECT_EQ(parse_spec_text("kernel: k", "x.yaml", "sub").spec.kernel, "sub/k");
}

struct Case {
  std::string_view yaml;
  std::vector<std::string> problems;
};

class SpecProblems : public testing::TestWithParam<Case> {};

TEST_P(SpecProblems, Exactly) {
  EXPECT_EQ(problems_in(GetParam().yaml), GetParam().problems) << GetParam().yaml;
}

INSTANTIATE_TEST_SUITE_P(
    Keys, SpecProblems,
    testing::Values(
        Case{"memroy: 1G", {"vm.yaml:1:1: unknown key 'memroy' (did you mean 'memory'?)"}},
        Case{"mem: 1G", {"vm.yaml:1:1: unknown key 'mem' (did you mean 'memory'?)"}},
        Case{"vcpus: 1", {"vm.yaml:1:1: unknown key 'vcpus' (did you mean 'cpus'?)"}},
        Case{"append: a", {"vm.yaml:1:1: unknown key 'append' (did you mean 'cmdline'?)"}},
        Case{"Boot-Timeout: 1s", {"vm.yaml:1:1: unknown key 'Boot-Timeout' (did you mean 'boot_timeout'?)"}},
        Case{"xyzzy: 1", {"vm.yaml:1:1: unknown key 'xyzzy'"}},
        Case{"log: {colour: red}", {"vm.yaml:1:7: log: unknown key 'colour' (there is level or file)"}},
        Case{"cpus: 1\nname: x\ncpus: 2", {"vm.yaml:3:1: duplicate key 'cpus' (first on line 1)"}},
        Case{"log: {file: a, file: b}", {"vm.yaml:1:16: duplicate key 'log.file' (first on line 1)"}},
        Case{"name: &a x\n<<: *a",
             {"vm.yaml:2:1: merge keys ('<<') are not supported; repeat the keys, or use an alias for each "
              "value"}},
        Case{"[a]: b", {"vm.yaml:1:1: a key is plain text, got a list"}},
        Case{"? [a]\n: b", {"vm.yaml:1:3: a key is plain text, got a list"}},
        Case{"kernel:\ncpus: 2", {"vm.yaml:1:1: kernel: needs a value: a path, default or stock"}},
        Case{"cpus: ~", {"vm.yaml:1:1: cpus: needs a value: a whole number from 1 to 64"}},
        Case{"log:",
             {"vm.yaml:1:1: log: needs a value: trace, debug, info, warn, error or off, or a map with level "
              "or file"}},
        Case{"log: []",
             {"vm.yaml:1:6: log: expected trace, debug, info, warn, error or off, or a map with level or "
              "file, got a list"}},
        Case{"log: loud",
             {"vm.yaml:1:6: log.level: expected trace, debug, info, warn, error or off, got 'loud'"}}));

INSTANTIATE_TEST_SUITE_P(
    Values, SpecProblems,
    testing::Values(
        Case{"cpus: two", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got 'two'"}},
        Case{"cpus: 0", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '0'"}},
        Case{"cpus: 65", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '65'"}},
        Case{"cpus: 07", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '07'"}},
        Case{"cpus: -1", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '-1'"}},
        Case{"cpus: 1.5", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '1.5'"}},
        Case{"cpus: 4294967297",
             {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got '4294967297'"}},
        Case{"cpus: ''", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got ''"}},
        Case{"cpus: [1]", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got a list"}},
        Case{"cpus: {a: 1}", {"vm.yaml:1:7: cpus: expected a whole number from 1 to 64, got a map"}},
        Case{"memory: 512",
             {"vm.yaml:1:9: memory: expected a size such as 512M or 2G, got '512' (did you mean 512M?)"}},
        Case{"memory: 536870912",
             {"vm.yaml:1:9: memory: expected a size such as 512M or 2G, got '536870912' (did you mean "
              "512M?)"}},
        Case{"memory: 512MB",
             {"vm.yaml:1:9: memory: expected a size such as 512M or 2G, got '512MB' (did you mean 512M?)"}},
        Case{"memory: 1.5G",
             {"vm.yaml:1:9: memory: expected a size such as 512M or 2G, got '1.5G' (did you mean 1536M?)"}},
        Case{"memory: lots", {"vm.yaml:1:9: memory: expected a size such as 512M or 2G, got 'lots'"}},
        Case{"memory: 8M", {"vm.yaml:1:9: memory: '8M' is too little; at least 16M"}},
        Case{"memory: 2T", {"vm.yaml:1:9: memory: '2T' is too much; at most 1T"}},
        Case{"memory: 16385K", {"vm.yaml:1:9: memory: '16385K' is not a multiple of 4K"}},
        Case{"memory: 99999999999T", {"vm.yaml:1:9: memory: '99999999999T' is too large"}},
        Case{"name: a/b",
             {"vm.yaml:1:7: name: expected up to 63 letters, digits, '_', '.' or '-', beginning with a "
              "letter or digit, got 'a/b'"}},
        Case{"name: ..",
             {"vm.yaml:1:7: name: expected up to 63 letters, digits, '_', '.' or '-', beginning with a "
              "letter or digit, got '..'"}},
        Case{"kernel: ''", {"vm.yaml:1:9: kernel: the path is empty"}},
        Case{"kernel: \"a\\0b\"",
             {"vm.yaml:1:9: kernel: control characters are not allowed in a path, got "
              "'a\\x00b'"}},
        Case{"initrd: [a, [b]]", {"vm.yaml:1:13: initrd: expected a path or a list of paths, got a list"}},
        Case{"initrd: {a: b}", {"vm.yaml:1:9: initrd: expected a path or a list of paths, got a map"}},
        Case{"cmdline: \"a\\x1bb\"",
             {"vm.yaml:1:10: cmdline: control characters are not allowed, got 'a\\x1bb'"}},
        Case{"console: stdoi",
             {"vm.yaml:1:10: console: expected stdio, file:PATH, pty or none, got 'stdoi' (did you mean "
              "'stdio'?)"}},
        Case{"console: /tmp/x",
             {"vm.yaml:1:10: console: expected stdio, file:PATH, pty or none, got '/tmp/x' (did "
              "you mean 'file:/tmp/x'?)"}},
        Case{"console: 'file:'", {"vm.yaml:1:10: console: the path is empty"}},
        Case{"timeout: 30",
             {"vm.yaml:1:10: timeout: expected a duration such as 500ms, 30s, 5m or 1m30s, got '30' "
              "(did you mean 30s?)"}},
        Case{"timeout: -5s",
             {"vm.yaml:1:10: timeout: expected a duration such as 500ms, 30s, 5m or 1m30s, got '-5s'"}},
        Case{"on_reboot: restrat",
             {"vm.yaml:1:12: on_reboot: expected restart or exit, got 'restrat' (did you mean 'restart'?)"}},
        Case{"on_panic: halt", {"vm.yaml:1:11: on_panic: expected exit, restart or ignore, got 'halt'"}},
        Case{"größe: 1\nname: &a ''\n\"cpüs\": 1\nlog: {level: \"ü\", file: ''}",
             {"vm.yaml:1:1: unknown key 'größe'",
              "vm.yaml:2:7: name: expected up to 63 letters, digits, '_', '.' or '-', beginning with a "
              "letter or "
              "digit, got ''",
              "vm.yaml:3:1: unknown key 'cpüs' (did you mean 'cpus'?)",
              "vm.yaml:4:14: log.level: expected trace, debug, info, warn, error or off, got 'ü'",
              "vm.yaml:4:25: log.file: the path is empty"}}));

INSTANTIATE_TEST_SUITE_P(
    Documents, SpecProblems,
    testing::Values(Case{"", {"vm.yaml: the spec is empty"}},
                    Case{"# only a comment\n", {"vm.yaml: the spec is empty"}},
                    Case{"---\n", {"vm.yaml: the spec is empty"}}, Case{"~", {"vm.yaml: the spec is empty"}},
                    Case{"just text", {"vm.yaml:1:1: a spec is a map of KEY: VALUE lines, got text"}},
                    Case{"- cpus: 1", {"vm.yaml:1:1: a spec is a map of KEY: VALUE lines, got a list"}},
                    Case{"cpus: 1\n---\ncpus: 2\n",
                         {"vm.yaml:2:1: a second document; a spec file holds one"}}));

TEST(ParseSpec, AllAtOnceInOrder) {
  EXPECT_THAT(
      problems_in("on_panic: maybe\nlog: {level: x, levl: y}\ncpus: many\nkernel: ''\ncpus: 1\nwhat: ever\n"),
      ElementsAre("vm.yaml:1:11: on_panic: expected exit, restart or ignore, got 'maybe'",
                  "vm.yaml:2:14: log.level: expected trace, debug, info, warn, error or off, got 'x'",
                  "vm.yaml:2:17: log: unknown key 'levl' (did you mean 'level'?)",
                  "vm.yaml:3:7: cpus: expected a whole number from 1 to 64, got 'many'",
                  "vm.yaml:4:9: kernel: the path is empty",
                  "vm.yaml:5:1: duplicate key 'cpus' (first on line 3)", "vm.yaml:6:1: unknown key 'what'"));
}

TEST(ParseSpec, ManyProblemsAreCounted) {
  std::string yaml;
  for (int i = 0; i < 250; ++i) yaml += fmt::format("zzz{}: 1\n", i);
  const auto problems = problems_in(yaml);
  ASSERT_THAT(problems, SizeIs(kMaxProblems + 1));
  EXPECT_EQ(problems.back(), "vm.yaml: 150 further problems are not shown");
}

TEST(ParseSpec, LongTextIsCutInMessages) {
  const auto problems = problems_in("cpus: " + std::string(5000, 'x'));
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_LT(problems[0].size(), 150U);
  EXPECT_THAT(problems[0], testing::EndsWith("xxx...'"));
}

TEST(ParseSpec, Limits) {
  std::string list = "initrd:\n";
  for (int i = 0; i < 64; ++i) list += "  - a\n";
  EXPECT_THAT(problems_in(list), IsEmpty());
  EXPECT_THAT(problems_in(list + "  - b\n"),
              ElementsAre("vm.yaml:66:5: initrd: at most 64 files are allowed"));
  EXPECT_THAT(problems_in("kernel: /" + std::string(4094, 'a')), IsEmpty());
  EXPECT_THAT(
      problems_in("kernel: /" + std::string(4095, 'a')),
      ElementsAre(testing::StartsWith("vm.yaml:1:9: kernel: the path is longer than 4095 bytes: '/aaa")));
  EXPECT_THAT(problems_in("name: " + std::string(63, 'a')), IsEmpty());
  EXPECT_THAT(problems_in("name: " + std::string(64, 'a')), SizeIs(1));
  EXPECT_THAT(problems_in(std::string(kMaxSpecBytes + 1, ' ')),
              ElementsAre("vm.yaml: larger than 1024 KiB; is this a spec?"));
}

// A list of aliases of one long text, and aliases of aliases: nothing grows past its bounds.
TEST(ParseSpec, AliasesDoNotExplode) {
  std::string yaml = "x: &a " + std::string(20'000, 'y') + "\ncmdline: [";
  for (int i = 0; i < 10'000; ++i) yaml += "*a,";
  const auto outcome = parse_spec_text(yaml + "]", "vm.yaml", "");
  EXPECT_LE(outcome.spec.cmdline.size(), 65'536U);
  EXPECT_THAT(outcome.problems, SizeIs(testing::Le(kMaxProblems + 1)));

  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 30; ++i) {
    laughs += fmt::format("a{0}: &a{0} [", i);
    for (int j = 0; j < 9; ++j) laughs += fmt::format("*a{},", i - 1);
    laughs += "]\n";
  }
  EXPECT_THAT(problems_in(laughs + "initrd: *a29\n"), testing::Contains(testing::HasSubstr("got a list")));
  EXPECT_THAT(problems_in("initrd: &i [*i]"),
              ElementsAre("vm.yaml:1:13: initrd: expected a path or a list of paths, got a list"));
  EXPECT_THAT(problems_in("&top\nlog: *top"),
              ElementsAre("vm.yaml:2:1: log: unknown key 'log' (there is level or "
                          "file)"));
}

TEST(ParseSpec, QueueSizesArePowersOfTwo) {
  const Spec spec = spec_of("disks: [a, {path: b, queue_size: 1024}]\nnet: {mode: user, queue_size: 16}\n");
  EXPECT_EQ(spec.disks[0].queue_size, 256u);
  EXPECT_EQ(spec.disks[1].queue_size, 1024u);
  EXPECT_EQ(spec.net[0].queue_size, 16u);
  const Spec threads = spec_of("disks: [a, {path: b, thread: true}]\nnet: {mode: user, thread: true}\n");
  EXPECT_FALSE(threads.disks[0].thread);
  EXPECT_TRUE(threads.disks[1].thread);
  EXPECT_TRUE(threads.net[0].thread);
  const auto outcome = parse_spec_text("disks: [{path: a, queue_size: 1000}, {path: b, queue_size: 2048}]",
                                       "vm.yaml", "/specs");
  EXPECT_THAT(
      texts_of(outcome.problems),
      ElementsAre("vm.yaml:1:31: disks[0].queue_size: 1000 is not a power of two; 512 is",
                  "vm.yaml:1:60: disks[1].queue_size: expected a whole number from 16 to 1024, got '2048'"));
}

TEST(DefaultName, FromTheFile) {
  EXPECT_EQ(default_name("/a/b/web.yaml"), "web");
  EXPECT_EQ(default_name("web.test.yml"), "web.test");
  EXPECT_EQ(default_name("my vm!.yaml"), "my-vm-");
  EXPECT_EQ(default_name(".hidden"), "hidden");
  EXPECT_EQ(default_name("-x.yaml"), "x");
  EXPECT_EQ(default_name("ü.yaml"), "snug");
  EXPECT_EQ(default_name(""), "snug");
  EXPECT_EQ(default_name("<stdin>"), "snug");
  EXPECT_EQ(default_name(std::string(100, 'a')), std::string(63, 'a'));
}

TEST(FormatProblem, Forms) {
  EXPECT_EQ(format_problem({"a.yaml", 3, 7, "x"}), "a.yaml:3:7: x");
  EXPECT_EQ(format_problem({"a.yaml", 0, 0, "x"}), "a.yaml: x");
  EXPECT_EQ(format_problem({"", 0, 0, "--cpus: x"}), "--cpus: x");
}

}  // namespace
}  // namespace snug
