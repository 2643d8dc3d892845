#include "vmm/control/vm_directory.h"

#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/unit/control/runtime_folder.h"
#include "vmm/base/cache_folder.h"

namespace snug {
namespace {

using testing::HasSubstr;

class VmDirectoryTest : public RuntimeFolder {};

std::vector<std::string> names(bool alive) {
  std::vector<std::string> found;
  const auto machines = list_machines();
  EXPECT_TRUE(machines);
  for (const auto& vm : *machines)
    if (vm.alive == alive) found.push_back(vm.name);
  return found;
}

// A process that holds a machine's directory until it is killed.
pid_t machine_process(const std::string& name, Keep keep) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  if (child != 0) {
    ::close(ends[1]);
    char made = 0;
    EXPECT_EQ(::read(ends[0], &made, 1), 1);
    ::close(ends[0]);
    return child;
  }
  const auto directory = VmDirectory::create(name, keep);
  (void)!::write(ends[1], "x", 1);
  for (;;) ::pause();
}

void kill_and_reap(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(VmDirectoryTest, IsThereWhileItsMachineLives) {
  {
    const auto vm = VmDirectory::create("web", Keep::kNo);
    ASSERT_TRUE(vm);
    EXPECT_EQ(names(true), std::vector<std::string>{"web"});
    const auto found = find_machine("web");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->pid, ::getpid());
    struct stat status {};
    ASSERT_EQ(::stat(vm->path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700U);
  }
  EXPECT_FALSE(exists("web"));
  EXPECT_TRUE(names(true).empty());
}

TEST_F(VmDirectoryTest, ANameIsTakenOnce) {
  const auto first = VmDirectory::create("web", Keep::kNo);
  ASSERT_TRUE(first);
  const auto second = VmDirectory::create("web", Keep::kNo);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr("a machine named web is running"));
  EXPECT_THAT(second.error().text(), HasSubstr("--name"));
}

TEST_F(VmDirectoryTest, OneOfManyThatRaceForANameGetsIt) {
  std::atomic<int> got = 0;
  std::atomic<int> refused = 0;
  std::atomic<bool> go = false;
  std::vector<std::thread> racers;
  for (int i = 0; i < 8; ++i)
    racers.emplace_back([&] {
      while (!go) std::this_thread::yield();
      const auto vm = VmDirectory::create("web", Keep::kNo);
      ++(vm ? got : refused);
      while (got + refused < 8) std::this_thread::yield();
    });
  go = true;
  for (auto& racer : racers) racer.join();
  EXPECT_EQ(got, 1);
  EXPECT_EQ(refused, 7);
  EXPECT_FALSE(exists("web"));
}

TEST_F(VmDirectoryTest, LookingDoesNotTakeANameAway) {
  std::atomic<bool> done = false;
  std::thread looker([&] {
    while (!done) (void)list_machines();
  });
  for (int i = 0; i < 200; ++i) {
    const auto vm = VmDirectory::create("web", i % 2 == 0 ? Keep::kNo : Keep::kYes);
    ASSERT_TRUE(vm) << vm.error().text();
    vm->record_end(0, "");
  }
  done = true;
  looker.join();
}

TEST_F(VmDirectoryTest, WhatAKilledMachineLeftIsRemovedByTheNextLook) {
  const pid_t child = machine_process("web", Keep::kNo);
  EXPECT_EQ(names(true), std::vector<std::string>{"web"});
  kill_and_reap(child);
  EXPECT_TRUE(exists("web"));
  EXPECT_TRUE(names(true).empty());
  EXPECT_FALSE(exists("web"));
}

TEST_F(VmDirectoryTest, AControlGroupGoesWithItsMachine) {
  namespace fs = std::filesystem;
  const std::string group = path_ + "/snug-web-1";
  const auto made_by = [&](const std::string& folder) {
    fs::create_directory(folder);
    std::ofstream(path_ + "/snug/web/cgroup") << folder;
  };
  // Of a killed machine, kept or not: with the next look.
  for (const Keep keep : {Keep::kNo, Keep::kYes}) {
    const pid_t child = machine_process("web", keep);
    made_by(group);
    EXPECT_EQ(names(true), std::vector<std::string>{"web"});
    EXPECT_TRUE(fs::exists(group));
    kill_and_reap(child);
    EXPECT_TRUE(names(true).empty());
    EXPECT_FALSE(fs::exists(group));
    EXPECT_EQ(exists("web"), keep == Keep::kYes);
    EXPECT_FALSE(exists("web/cgroup"));
  }
  // With the next of that name.
  kill_and_reap(machine_process("web", Keep::kYes));
  made_by(group);
  {
    const auto vm = VmDirectory::create("web", Keep::kNo);
    ASSERT_TRUE(vm);
    EXPECT_FALSE(fs::exists(group));
    // With its own end, where it could not remove it before.
    ASSERT_TRUE(vm->remember_cgroup(group));
    fs::create_directory(group);
  }
  EXPECT_FALSE(fs::exists(group));
  EXPECT_FALSE(exists("web"));
  // Nothing else is removed.
  kill_and_reap(machine_process("web", Keep::kNo));
  const std::string other = path_ + "/other";
  made_by(other);
  EXPECT_TRUE(names(true).empty());
  EXPECT_TRUE(fs::exists(other));
  EXPECT_FALSE(exists("web"));
}

TEST_F(VmDirectoryTest, AKeptMachineIsThereAfterItsEnd) {
  {
    const auto vm = VmDirectory::create("web", Keep::kYes);
    ASSERT_TRUE(vm);
    ASSERT_TRUE(vm->write_file("console.log", "hello"));
    ASSERT_TRUE(vm->listen("control.sock"));
    vm->record_end(7, "why");
  }
  const auto found = find_machine("web");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->alive);
  EXPECT_EQ(found->exit_status, 7);
  EXPECT_EQ(found->end_message, "why");
  EXPECT_FALSE(exists("web/control.sock"));
  ASSERT_TRUE(remove_machine(*found));
  EXPECT_FALSE(exists("web"));
}

TEST_F(VmDirectoryTest, AKeptMachineThatWasKilledHasNoStatus) {
  kill_and_reap(machine_process("web", Keep::kYes));
  const auto found = find_machine("web");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->alive);
  EXPECT_FALSE(found->exit_status);
}

TEST_F(VmDirectoryTest, TheNextOfANameReplacesAllButTheLog) {
  {
    const auto vm = VmDirectory::create("web", Keep::kYes);
    ASSERT_TRUE(vm->write_file("console.log", "hello"));
    ASSERT_TRUE(vm->write_file("console.log.1", "hello"));
    ASSERT_TRUE(vm->write_file("output.log", "hello"));
    vm->record_end(0, "");
  }
  const auto again = VmDirectory::create("web", Keep::kNo);
  ASSERT_TRUE(again);
  EXPECT_TRUE(exists("web/console.log.before"));
  EXPECT_TRUE(exists("web/output.log.before"));
  EXPECT_FALSE(exists("web/console.log"));
  EXPECT_FALSE(exists("web/console.log.1"));
  EXPECT_FALSE(exists("web/exit.json"));
  EXPECT_FALSE(exists("web/keep"));
}

TEST_F(VmDirectoryTest, AMachineThatRunsIsNotRemoved) {
  const auto vm = VmDirectory::create("web", Keep::kNo);
  const auto removed = remove_machine(*find_machine("web"));
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().text(), HasSubstr("snug stop web"));
  EXPECT_TRUE(exists("web"));
}

TEST_F(VmDirectoryTest, WaitsForTheEnd) {
  const pid_t child = machine_process("web", Keep::kNo);
  const auto vm = find_machine("web");
  EXPECT_FALSE(wait_for_end(*vm, 50));
  std::thread killer([&] {
    ::usleep(50'000);
    kill_and_reap(child);
  });
  EXPECT_TRUE(wait_for_end(*vm, std::nullopt));
  killer.join();
  EXPECT_TRUE(wait_for_end(*vm, 0));
}

TEST_F(VmDirectoryTest, SocketsWorkHoweverLongThePath) {
  std::string deep = path_;
  while (deep.size() < 300) {
    deep += "/a-rather-long-name-of-a-folder";
    std::filesystem::create_directory(deep);
  }
  ::setenv("XDG_RUNTIME_DIR", deep.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  const auto vm = VmDirectory::create("web", Keep::kNo);
  ASSERT_TRUE(vm);
  const auto listening = vm->listen("control.sock");
  ASSERT_TRUE(listening) << listening.error().text();
  EXPECT_TRUE(connect_to(*find_machine("web"), "control.sock"));
  struct stat status {};
  ASSERT_EQ(::stat((vm->path() + "/control.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(VmDirectoryTest, AFolderOthersMayWriteToIsRefused) {
  std::filesystem::create_directory(path_ + "/snug");
  ::chmod((path_ + "/snug").c_str(), 0777);
  const auto vm = VmDirectory::create("web", Keep::kNo);
  ASSERT_FALSE(vm);
  EXPECT_THAT(vm.error().text(), HasSubstr("only this user"));
}

// The session's folder comes and goes while machines run.
TEST_F(VmDirectoryTest, FoundWhetherOrNotThereIsASession) {
  const std::string session = path_ + "/session";
  const std::string lasting = path_ + "/lasting";
  const auto places = [&] { return machine_places(nullptr, session, lasting); };
  const auto early = VmDirectory::create("early", Keep::kNo, places());
  ASSERT_TRUE(early);
  std::filesystem::create_directory(session);
  EXPECT_TRUE(find_machine("early", places()));
  EXPECT_TRUE(find_machine("early", machine_places(session.c_str(), session, lasting)));
  const auto again = VmDirectory::create("early", Keep::kNo, places());
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().text(), HasSubstr("a machine named early is running"));
  const auto late = VmDirectory::create("late", Keep::kNo, machine_places(session.c_str(), session, lasting));
  ASSERT_TRUE(late);
  EXPECT_EQ(list_machines(places())->size(), 2U);
  std::filesystem::remove_all(session);
  const auto found = list_machines(places());
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 2U);
  EXPECT_EQ((*found)[0].name, "early");
  EXPECT_EQ((*found)[1].name, "late");
}

// An earlier snug's, or one of a time when the other could not be had.
TEST_F(VmDirectoryTest, FoundInTheSessionToo) {
  const std::string session = path_ + "/session";
  const std::string lasting = path_ + "/lasting";
  std::filesystem::create_directory(session);
  const auto places = machine_places(nullptr, session, lasting);
  const auto vm = VmDirectory::create("web", Keep::kNo, {session + "/snug"});
  ASSERT_TRUE(vm);
  EXPECT_TRUE(find_machine("web", places)->alive);
  const auto again = VmDirectory::create("web", Keep::kNo, places);
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().text(), HasSubstr("a machine named web is running"));
  EXPECT_FALSE(std::filesystem::exists(lasting + "/web"));
}

TEST_F(VmDirectoryTest, WhatAnEarlierOneLeftElsewhereIsReplaced) {
  const std::string session = path_ + "/session";
  const std::string lasting = path_ + "/lasting";
  std::filesystem::create_directory(session);
  const auto places = machine_places(nullptr, session, lasting);
  VmDirectory::create("web", Keep::kYes, {session + "/snug"})->record_end(3, "");
  EXPECT_EQ(find_machine("web", places)->exit_status, 3);
  const auto vm = VmDirectory::create("web", Keep::kNo, places);
  ASSERT_TRUE(vm);
  EXPECT_FALSE(std::filesystem::exists(session + "/snug/web"));
  EXPECT_EQ(list_machines(places)->size(), 1U);
}

TEST_F(VmDirectoryTest, AFolderThatCannotBeTakenIsPassedOver) {
  const std::string session = path_ + "/session";
  const std::string lasting = path_ + "/lasting";
  std::filesystem::create_directory(session);
  std::filesystem::create_directory(lasting);
  ::chmod(lasting.c_str(), 0777);
  const auto vm = VmDirectory::create("web", Keep::kNo, machine_places(nullptr, session, lasting));
  ASSERT_TRUE(vm);
  EXPECT_EQ(vm->path(), session + "/snug/web");
}

// As systemd-tmpfiles does it to what is old.
TEST_F(VmDirectoryTest, WhoCleansUpPassesItOver) {
  const auto vm = VmDirectory::create("web", Keep::kNo);
  ASSERT_TRUE(vm);
  const UniqueFd seen(::open(vm->path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_NE(::flock(seen.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(VmDirectoryTest, PlacesOfMachines) {
  using Places = std::vector<std::string>;
  const std::string session = path_ + "/session";
  const std::string mine = path_ + "/mine";
  EXPECT_EQ(machine_places(nullptr, session, "/tmp/x"), Places{"/tmp/x"});
  EXPECT_EQ(machine_places(session.c_str(), session, "/tmp/x"), Places{"/tmp/x"});
  EXPECT_EQ(machine_places("relative", session, "/tmp/x"), Places{"/tmp/x"});
  std::filesystem::create_directory(session);
  std::filesystem::create_directory(mine);
  EXPECT_EQ(machine_places(nullptr, session, "/tmp/x"), (Places{"/tmp/x", session + "/snug"}));
  EXPECT_EQ(machine_places((session + "/").c_str(), session, "/tmp/x"),
            (Places{"/tmp/x", session + "/snug"}));
  // Whoever says another one wants to be apart.
  EXPECT_EQ(machine_places(mine.c_str(), session, "/tmp/x"), Places{mine + "/snug"});
}

// Root with the environment of another user: su, sudo -E.
TEST_F(VmDirectoryTest, AnotherUsersFolderIsPassedOver) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make folders of others";
  const std::string theirs = path_ + "/theirs";
  std::filesystem::create_directory(theirs);
  ASSERT_EQ(::chown(theirs.c_str(), 12345, 12345), 0);
  EXPECT_EQ(machine_places(theirs.c_str(), path_ + "/session", "/tmp/x"), std::vector<std::string>{"/tmp/x"});
  EXPECT_TRUE(belongs_to_another(theirs));
  EXPECT_TRUE(belongs_to_another(theirs + "/.cache/snug/kernels"));
  EXPECT_FALSE(belongs_to_another(path_ + "/.cache/snug"));
  EXPECT_FALSE(belongs_to_another("/tmp/not/there"));
}

TEST_F(VmDirectoryTest, LookingMakesNothing) {
  EXPECT_TRUE(list_machines());
  EXPECT_FALSE(find_machine("web"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/snug"));
}

TEST_F(VmDirectoryTest, AnUnknownNameSaysWhichThereAre) {
  const auto one = VmDirectory::create("web", Keep::kNo);
  const auto found = find_machine("wbe");
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().text(), HasSubstr("there are: web"));
}

}  // namespace
}  // namespace snug
