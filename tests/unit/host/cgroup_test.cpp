#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/unit/host/fake_cgroups.h"
#include "vmm/base/checked.h"
#include "vmm/host/cgroup_advice.h"
#include "vmm/host/cgroup_gauges.h"
#include "vmm/host/cgroup_scope.h"
#include "vmm/host/systemd_scope.h"

namespace snug {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

const std::string kSelf = std::to_string(::getpid());
const CgroupLimits kCpu{.cpu = 1500, .memory = {}, .io_weight = {}};
const CgroupLimits kAll{.cpu = 1500, .memory = 320 * kMiB, .io_weight = 50};

class Cgroup : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/snug-cgroup-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = pattern;
    fs::create_directory(top_ + "/cgroup");
    path_ = std::getenv("PATH");
  }
  void TearDown() override {
    ::setenv("PATH", path_.c_str(), 1);
    ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
    fs::remove_all(top_);
  }
  FakeCgroups& fake(const std::string& controllers = "cpuset cpu io memory pids") {
    fake_ = std::make_unique<FakeCgroups>(top_ + "/cgroup", controllers);
    return *fake_;
  }
  // A process in that group; no systemd unless there is one.
  CgroupHost host(const std::string& folder, const std::string& v1 = "") {
    return {*fake_, fake_->proc_in(folder, v1), top_ + "/run"};
  }
  CgroupScope::Request request(const CgroupLimits& limits) {
    return {limits, "vm", [this](const std::string& folder) -> Result<void> {
              announced_ = folder;
              EXPECT_FALSE(fs::exists(folder));
              return {};
            }};
  }
  Error error_of(const CgroupHost& host, const CgroupLimits& limits) {
    auto scope = CgroupScope::enter(host, request(limits));
    EXPECT_FALSE(scope);
    return scope ? Error{} : scope.error();
  }
  // A systemd that can be asked, by this script in the place of busctl.
  void systemd(const std::string& script) {
    fs::create_directories(top_ + "/run/systemd/system");
    fs::create_directory(top_ + "/bin");
    std::ofstream(top_ + "/bin/busctl") << "#!/bin/sh\nprintf '%s\\n' \"$@\" >" << top_ << "/asked\n"
                                        << script;
    ::chmod((top_ + "/bin/busctl").c_str(), 0755);
    ::setenv("PATH", (top_ + "/bin:" + path_).c_str(), 1);
    ::setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere", 1);
  }
  std::string asked() const {
    std::ifstream file(top_ + "/asked");
    std::string words;
    for (std::string word; std::getline(file, word);) words += (words.empty() ? "" : "|") + word;
    return words;
  }

  std::string top_;
  std::string path_;
  std::string announced_;
  std::unique_ptr<FakeCgroups> fake_;
};

// --- where this process is
// ----------------------------------------------------------------------------------

TEST_F(Cgroup, OwnOne) {
  const auto own = [&](const std::string& mountinfo, const std::string& cgroup) {
    std::ofstream(top_ + "/mountinfo") << mountinfo;
    std::ofstream(top_ + "/cgroup.file") << cgroup;
    fs::create_directories(top_ + "/proc");
    fs::rename(top_ + "/mountinfo", top_ + "/proc/mountinfo");
    fs::rename(top_ + "/cgroup.file", top_ + "/proc/cgroup");
    return own_cgroup(top_ + "/proc");
  };
  const std::string plain = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
  auto found = own(plain, "0::/user.slice/x.scope\n");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->mount, "/sys/fs/cgroup");
  EXPECT_EQ(found->path, "/sys/fs/cgroup/user.slice/x.scope");
  EXPECT_THAT(found->v1, IsEmpty());
  EXPECT_EQ(own(plain, "0::/\n")->path, "/sys/fs/cgroup");
  // Both: most controllers are v1's. No optional fields.
  found = own("30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
              "9:name=systemd:/x\n8:cpu,cpuacct:/x\n4:memory:/x\n0::/x\n");
  ASSERT_TRUE(found);
  EXPECT_THAT(found->v1, ElementsAre("cpu", "cpuacct", "memory"));
  // A part of it is mounted.
  EXPECT_EQ(own("30 23 0:26 /box /cg rw - cgroup2 c rw\n", "0::/box/a\n")->path, "/cg/a");
  EXPECT_EQ(own("30 23 0:26 /box /cg rw - cgroup2 c rw\n", "0::/box\n")->path, "/cg");
  EXPECT_THAT(own("30 23 0:26 /box /cg rw - cgroup2 c rw\n", "0::/boxer\n").error().message,
              HasSubstr("/cg"));
  EXPECT_THAT(own(plain, "0::/../other\n").error().message, HasSubstr("outside"));
  EXPECT_THAT(own("", "4:memory:/x\n").error().text(),
              AllOf(HasSubstr("cgroup v1 only"), HasSubstr("systemd.unified_cgroup_hierarchy=1")));
  EXPECT_THAT(own("", "0::/\n").error().text(),
              AllOf(HasSubstr("no cgroup v2 is mounted"), HasSubstr("mount -t")));
  EXPECT_FALSE(own_cgroup(top_ + "/nothing"));
}

// --- one of our own
// -----------------------------------------------------------------------------------------

TEST_F(Cgroup, BelowTheHostsRoot) {
  auto& files = fake();
  const std::string root = top_ + "/cgroup";
  files.write(root + "/cgroup.procs", "1");
  files.write(root + "/cgroup.procs", kSelf);
  const std::string made = fmt::format("{}/snug-vm-{}", root, ::getpid());
  {
    const auto scope = CgroupScope::enter(host(root), request(kAll));
    ASSERT_TRUE(scope) << scope.error().text();
    EXPECT_EQ((*scope)->path(), made);
    EXPECT_EQ(announced_, made);
    EXPECT_EQ(files.text(made + "/cpu.max"), "150000 100000");
    EXPECT_EQ(files.text(made + "/memory.max"), "335544320");
    EXPECT_EQ(files.text(made + "/io.weight"), "default 50");
    EXPECT_THAT(files.words(made + "/cgroup.procs"), ElementsAre(kSelf));
    EXPECT_EQ((*scope)->killed_for_memory(), 0U);
    std::ofstream(made + "/memory.events") << "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";
    EXPECT_EQ((*scope)->killed_for_memory(), 1U);
    // What was killed takes a moment to go.
    files.busy_removals = 3;
  }
  EXPECT_FALSE(fs::exists(made));
  EXPECT_THAT(files.words(root + "/cgroup.procs"), ElementsAre("1", kSelf));
}

// Alone in a group that is ours, as under systemd-run -p Delegate=yes or in a container.
TEST_F(Cgroup, AloneInAGroup) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory pids", {kSelf});
  {
    const auto scope =
        CgroupScope::enter(host(own), request({.cpu = {}, .memory = 320 * kMiB, .io_weight = {}}));
    ASSERT_TRUE(scope) << scope.error().text();
    EXPECT_THAT(files.words(own + "/cgroup.procs"), IsEmpty());
    EXPECT_THAT(files.words((*scope)->path() + "/cgroup.procs"), ElementsAre(kSelf));
    EXPECT_EQ(files.text((*scope)->path() + "/memory.max"), "335544320");
  }
  // As it was found.
  EXPECT_THAT(files.words(own + "/cgroup.procs"), ElementsAre(kSelf));
  EXPECT_THAT(files.words(own + "/cgroup.subtree_control"), IsEmpty());
  EXPECT_EQ(groups_in(own), 0U);
}

TEST_F(Cgroup, NotAloneInAGroup) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory io", {"1", kSelf});
  const Error error = error_of(host(own), kAll);
  EXPECT_THAT(error.message, AllOf(HasSubstr(own + " has other processes in it ("), HasSubstr("(1)"),
                                   HasSubstr("no systemd runs here"), Not(HasSubstr("(" + kSelf + ")"))));
  EXPECT_THAT(error.hint, HasSubstr("Delegate=yes"));
  EXPECT_EQ(groups_in(own), 0U);
  EXPECT_THAT(files.words(own + "/cgroup.procs"), ElementsAre("1", kSelf));
}

TEST_F(Cgroup, MissingControllers) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory pids", {kSelf});
  Error error = error_of(host(own), kAll);
  EXPECT_THAT(error.message,
              HasSubstr("limits: cpu, memory, io_weight: no systemd runs here, and the control group " + own +
                        " has no io, it has cpu, memory, pids"));
  EXPECT_THAT(error.hint, HasSubstr("echo +io | sudo tee " + top_ + "/cgroup/cgroup.subtree_control"));
  EXPECT_EQ(announced_, "");
  // v1 has it.
  fake("pids");
  error = error_of(host(top_ + "/cgroup", "4:memory:/\n3:cpu,cpuacct:/\n"), kCpu);
  EXPECT_EQ(error.message, "limits: cpu: on this host cgroup v1 has cpu");
  EXPECT_THAT(error.hint, HasSubstr("systemd.unified_cgroup_hierarchy=1"));
  fake("cpu memory");
  error = error_of(host(top_ + "/cgroup", "4:blkio:/\n"), kAll);
  EXPECT_THAT(error.message, HasSubstr(": on this host cgroup v1 has io"));
}

TEST_F(Cgroup, WhatTheHostRefuses) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory io", {kSelf});
  const auto refused = [&](const char* what, int number, const CgroupLimits& limits = kAll) {
    files.refuse = {{what, number}};
    Error error = error_of(host(own), limits);
    files.refuse.clear();
    EXPECT_EQ(groups_in(own), 0U) << what;
    EXPECT_THAT(files.words(own + "/cgroup.procs"), ElementsAre(kSelf)) << what;
    return error;
  };
  EXPECT_THAT(refused("mkdir", EACCES).text(), AllOf(HasSubstr("made in " + own + ": Permission denied"),
                                                     HasSubstr("Delegate=yes in the unit that starts snug")));
  EXPECT_THAT(refused("mkdir", EROFS).text(),
              AllOf(HasSubstr("Read-only file system"), HasSubstr("container")));
  EXPECT_THAT(refused("mkdir", ENOSPC).message, HasSubstr("No space left"));
  EXPECT_THAT(refused("box/cgroup.subtree_control", EACCES).text(), HasSubstr("chown"));
  EXPECT_THAT(refused(("snug-vm-" + kSelf + "/cgroup.procs").c_str(), EACCES, kCpu).text(),
              HasSubstr("chown"));
  EXPECT_THAT(refused("cpu.max", EINVAL).message,
              HasSubstr(fmt::format("{}/snug-vm-{}/cpu.max: Invalid argument", own, kSelf)));
  EXPECT_THAT(refused("memory.max", EBUSY).message, HasSubstr("memory.max: Device or resource busy"));
  EXPECT_THAT(refused("io.weight", ENOENT).text(), HasSubstr("knows no weights of disks"));
}

// A name and a number that were had before: what a killed machine has left.
TEST_F(Cgroup, InThePlaceOfOneLeftBehind) {
  auto& files = fake();
  const std::string root = top_ + "/cgroup";
  const std::string left = files.group("snug-vm-" + kSelf, "memory cpu", {});
  files.write(left + "/memory.max", "1");
  announced_ = "";
  CgroupScope::Request wanted{kCpu, "vm", {}};
  const auto scope = CgroupScope::enter(host(root), wanted);
  ASSERT_TRUE(scope) << scope.error().text();
  EXPECT_EQ(files.text((*scope)->path() + "/memory.max"), "max\n");
}

// Another machine's group needs what the parent gives on: ours stays, and is said to.
TEST_F(Cgroup, LeftWhileAnotherNeedsTheController) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory io", {kSelf});
  auto scope = CgroupScope::enter(host(own), request(kAll));
  ASSERT_TRUE(scope) << scope.error().text();
  const std::string path = (*scope)->path();
  files.make(own + "/snug-other-1");
  scope->reset();
  EXPECT_TRUE(fs::exists(path));
  EXPECT_THAT(files.words(own + "/cgroup.subtree_control"), ElementsAre("cpu", "memory", "io"));
}

// What a group gives on is changed by one at a time, from the look at who needs it to the change.
TEST_F(Cgroup, OneAtATimeChangesWhatIsGivenOn) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory io", {kSelf});
  std::vector<std::string> changes;
  files.before_giving = [&](const std::string& folder, const std::string& value) {
    const UniqueFd another(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_EQ(::flock(another.get(), LOCK_EX | LOCK_NB), -1) << value;
    changes.push_back(value);
  };
  auto scope = CgroupScope::enter(host(own), request(kCpu));
  ASSERT_TRUE(scope) << scope.error().text();
  scope->reset();
  EXPECT_THAT(changes, ElementsAre("+cpu", "-cpu"));
  // And nobody waits for it any more.
  const UniqueFd another(::open(own.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_EQ(::flock(another.get(), LOCK_EX | LOCK_NB), 0);
}

// --- one of systemd's
// ---------------------------------------------------------------------------------------

// Makes the scope as systemd would, with these limits in it.
std::string scope_maker(const std::string& top, const std::string& files) {
  return fmt::format(R"(
folder={0}/cgroup/app.slice
for word; do case $word in snug-*.scope) unit=$word;; esac; done
mkdir -p "$folder/$unit"
{1}
echo "0::/app.slice/$unit" >{0}/cgroup.proc/cgroup
echo 'o "/org/freedesktop/systemd1/job/7"'
)",
                     top, files);
}

TEST_F(Cgroup, AskedOfSystemd) {
  fake();
  const auto place = host(top_ + "/cgroup");
  systemd(scope_maker(top_, R"(echo "150000 100000" >"$folder/$unit/cpu.max"
echo 335544320 >"$folder/$unit/memory.max"
echo "default 50" >"$folder/$unit/io.weight"
echo cpu memory io >"$folder/$unit/cgroup.controllers")"));
  {
    const auto scope = CgroupScope::enter(place, request(kAll));
    ASSERT_TRUE(scope) << scope.error().text();
    EXPECT_EQ((*scope)->path(), fmt::format("{}/cgroup/app.slice/snug-vm-{}.scope", top_, kSelf));
  }
  // It goes with its last process, by itself.
  EXPECT_EQ(announced_, "");
  EXPECT_THAT(
      asked(),
      HasSubstr("|call|org.freedesktop.systemd1|/org/freedesktop/systemd1|org.freedesktop.systemd1.Manager|"
                "StartTransientUnit|ssa(sv)a(sa(sv))|snug-vm-" +
                kSelf + ".scope|fail|7|"));
  EXPECT_THAT(asked(), HasSubstr("|PIDs|au|1|" + kSelf + "|Delegate|b|true|"));
  EXPECT_THAT(asked(),
              testing::EndsWith("|CPUQuotaPerSecUSec|t|1500000|MemoryMax|t|335544320|IOWeight|t|50|0"));
  EXPECT_THAT(asked(), StartsWith(::geteuid() == 0 ? "--system|" : "--address=unix:path=/nowhere|"));
}

// As Debian 12 has it: a user's systemd takes a weight, and has no controller for it.
TEST_F(Cgroup, SystemdHasNotGotTheController) {
  fake();
  const auto place = host(top_ + "/cgroup");
  systemd(scope_maker(top_, R"(echo "150000 100000" >"$folder/$unit/cpu.max"
echo 335544320 >"$folder/$unit/memory.max"
echo cpu memory pids >"$folder/$unit/cgroup.controllers")"));
  const Error error = error_of(place, kAll);
  EXPECT_THAT(error.message, HasSubstr(".scope has no io, it has cpu, memory, pids"));
  // One that is there and says nothing.
  fs::remove_all(top_ + "/bin");
  systemd(scope_maker(top_, R"(echo "max 100000" >"$folder/$unit/cpu.max"
echo cpu memory io >"$folder/$unit/cgroup.controllers")"));
  EXPECT_THAT(error_of(place, kCpu).message, HasSubstr("systemd has not set limits.cpu of snug-vm-"));
}

TEST_F(Cgroup, SystemdRefuses) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory io", {"1", kSelf});
  systemd("echo 'Call failed: Access denied' >&2; exit 1\n");
  const Error error = error_of(host(own), kAll);
  EXPECT_THAT(error.message, AllOf(HasSubstr("systemd refuses: Call failed: Access denied"),
                                   HasSubstr("has other processes in it")));
  // Then what can be made without it is.
  EXPECT_TRUE(CgroupScope::enter(host(files.group("own", "cpu memory io", {kSelf})), request(kCpu)));
  // Nor is it needed where systemd has left the group to us.
  fs::remove(top_ + "/asked");
  const std::string alone = files.group("service", "cpu memory io", {kSelf});
  files.delegated = {alone};
  EXPECT_TRUE(CgroupScope::enter(host(alone), request(kAll)));
  EXPECT_EQ(asked(), "");
}

TEST_F(Cgroup, WhyThereIsNoSystemd) {
  ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
  EXPECT_EQ(SystemdManager::find(top_ + "/run").error().text(), "no systemd runs here");
  fs::create_directories(top_ + "/run/systemd/system");
  ::setenv("PATH", top_.c_str(), 1);
  if (::geteuid() == 0) {
    EXPECT_THAT(SystemdManager::find(top_ + "/run").error().text(), HasSubstr("busctl"));
    return;
  }
  ::setenv("XDG_RUNTIME_DIR", top_.c_str(), 1);
  EXPECT_THAT(SystemdManager::find(top_ + "/run").error().hint, HasSubstr("loginctl enable-linger"));
}

// --- what can be had, and is used
// ---------------------------------------------------------------------------

TEST_F(Cgroup, Survey) {
  auto& files = fake();
  const std::string own = files.group("box", "cpu memory pids", {"1", kSelf});
  LimitsSurvey survey = survey_limits(host(own));
  EXPECT_EQ(survey.by, "in " + own);
  EXPECT_THAT(survey.had, IsEmpty());
  ASSERT_EQ(survey.missing.size(), 2U);
  EXPECT_EQ(survey.missing[0].keys, "io_weight");
  EXPECT_THAT(survey.missing[0].why.message, HasSubstr("has no io, it has"));
  EXPECT_EQ(survey.missing[1].keys, "cpu, memory");
  EXPECT_THAT(survey.missing[1].why.message, HasSubstr("other processes"));
  // In one where snug is alone.
  const std::string alone = files.group("alone", "cpu memory pids", {kSelf});
  EXPECT_EQ(keys_of(survey_limits(host(alone)).had), "cpu, memory");
  files.write(own + "/cgroup.procs", kSelf);
  // By systemd, as far as it has been given controllers.
  const std::string session = files.group("user@7.service", "cpu memory pids", {});
  systemd("echo 's \"/user@7.service\"'\n");
  survey = survey_limits(host(own));
  EXPECT_THAT(survey.by, HasSubstr("systemd"));
  EXPECT_EQ(keys_of(survey.had), "cpu, memory");
  ASSERT_EQ(survey.missing.size(), 1U);
  EXPECT_THAT(survey.missing[0].why.hint, HasSubstr("systemctl edit user@.service"));
  EXPECT_THAT(asked(), HasSubstr("|get-property|"));
  // None at all.
  survey = survey_limits({files, top_ + "/nothing", top_ + "/run"});
  EXPECT_THAT(survey.had, IsEmpty());
  ASSERT_EQ(survey.missing.size(), 1U);
}

TEST_F(Cgroup, Gauges) {
  EXPECT_FALSE(CgroupGauges().read().cpu_us);
  std::ofstream(top_ + "/cpu.stat") << "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\nnr_periods 40\n"
                                       "nr_throttled 7\nthrottled_usec 250000\nnr_bursts 0\nburst_usec 0\n";
  const auto gauges = CgroupGauges::open(top_);
  auto reading = gauges.read();
  EXPECT_EQ(reading.cpu_us, 1'500'000U);
  EXPECT_EQ(reading.periods, 40U);
  EXPECT_EQ(reading.throttled, 7U);
  EXPECT_EQ(reading.throttled_us, 250'000U);
  EXPECT_FALSE(reading.memory || reading.memory_hit || reading.killed);
  std::ofstream(top_ + "/memory.current") << "4096\n";
  std::ofstream(top_ + "/memory.events") << "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n";
  reading = CgroupGauges::open(top_).read();
  EXPECT_EQ(reading.memory, 4096U);
  EXPECT_EQ(reading.memory_hit, 3U);
  EXPECT_EQ(reading.killed, 2U);
  // They are read anew each time.
  std::ofstream(top_ + "/cpu.stat") << "usage_usec 2500000\n";
  EXPECT_EQ(gauges.read().cpu_us, 2'500'000U);
}

}  // namespace
}  // namespace snug
