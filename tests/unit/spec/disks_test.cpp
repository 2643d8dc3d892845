#include "vmm/spec/disks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/unit/spec/problems.h"
#include "tests/unit/spec/temp_folder.h"
#include "vmm/spec/describe.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class DiskSpecs : public TempFolder {
 protected:
  std::vector<std::string> load(const std::string& yaml, const std::vector<std::string>& flags = {}) {
    write("vm.yaml", yaml);
    FlagValues values;
    for (const auto& flag : flags) values.add("disks", flag);
    auto outcome = load_spec("vm.yaml", values);
    spec_ = std::move(outcome.spec);
    return texts_of(outcome.problems);
  }
  void make(const std::string& name, uint64_t bytes) {
    write(name, "x");
    std::filesystem::resize_file(path(name), bytes);
  }
  Spec spec_;
};

TEST_F(DiskSpecs, ModeIsBlockUnlessItIsSaid) {
  make("a", kPmemGranule);
  EXPECT_THAT(load("disks: [a, {path: a, mode: pmem}, {path: a, mode: block}]\n"), IsEmpty());
  ASSERT_THAT(spec_.disks, SizeIs(3));
  EXPECT_EQ(spec_.disks[0].mode, DiskMode::kBlock);
  EXPECT_EQ(spec_.disks[1].mode, DiskMode::kPmem);
  EXPECT_EQ(spec_.disks[2].mode, DiskMode::kBlock);
  EXPECT_THAT(load("cpus: 1", {"a,mode=pmem,readonly=true"}), IsEmpty());
  EXPECT_EQ(spec_.disks[0].mode, DiskMode::kPmem);
  EXPECT_TRUE(spec_.disks[0].readonly);
  EXPECT_THAT(load("disks: {path: a, mode: dax}"),
              ElementsAre(HasSubstr("vm.yaml:1:24: disks.mode: expected block or pmem, got 'dax'")));
}

TEST_F(DiskSpecs, WhatDoesNotGoWithPmemIsSaidAtItsPlace) {
  make("a", kPmemGranule);
  EXPECT_THAT(
      load("disks:\n"
           "- path: a\n"
           "  mode: pmem\n"
           "  ephemeral: true\n"
           "  direct: true\n"
           "  thread: true\n"
           "  serial: s\n"
           "  queues: 2\n"
           "  queue_size: 64\n"),
      ElementsAre(HasSubstr("vm.yaml:4:14: disks[0].ephemeral: ephemeral does not go with mode: pmem"),
                  HasSubstr("vm.yaml:5:11: disks[0].direct: "), HasSubstr("vm.yaml:6:11: disks[0].thread: "),
                  HasSubstr("vm.yaml:7:11: disks[0].serial: "), HasSubstr("vm.yaml:8:11: disks[0].queues: "),
                  HasSubstr("vm.yaml:9:15: disks[0].queue_size: ")));
  EXPECT_THAT(load("disks: {path: a, mode: pmem, direct: false, io: threads}\n"), IsEmpty());
  EXPECT_THAT(load("disks: {path: a, mode: pmem, thread: true}\n"),
              ElementsAre(HasSubstr("vm.yaml:1:38: disks[0].thread: ")));
  EXPECT_THAT(load("cpus: 1", {"a,mode=pmem,direct=true"}),
              ElementsAre(HasSubstr("--disk: direct does not go with")));
}

TEST_F(DiskSpecs, AFileThatIsWrittenToAsMemoryHasItsSize) {
  make("odd", kPmemGranule + 512);
  EXPECT_THAT(load("disks:\n- {path: odd, mode: pmem}\n"),
              ElementsAre(AllOf(HasSubstr("vm.yaml:2:10: disks[0].path: "), HasSubstr("multiple of 2 MiB"),
                                HasSubstr("truncate -s %2M"))));
  EXPECT_THAT(load("disks:\n- {path: odd, mode: pmem, readonly: true}\n"), IsEmpty());
  EXPECT_THAT(load("disks: [odd]\n"), IsEmpty());
  write("empty", "");
  EXPECT_THAT(load("disks: [{path: empty, mode: pmem}]"), ElementsAre(HasSubstr("is empty")));
  EXPECT_THAT(load("disks: [{path: missing, mode: pmem}]"), ElementsAre(HasSubstr("no such file")));
}

TEST(PmemProblem, OfFilesThatAreNone) {
  struct stat status {};
  status.st_size = static_cast<off_t>(kPmemGranule);
  status.st_mode = S_IFREG;
  EXPECT_FALSE(pmem_problem(status, false));
  status.st_mode = S_IFBLK;
  EXPECT_THAT(pmem_problem(status, true)->what, HasSubstr("block device"));
  status.st_mode = S_IFCHR;
  EXPECT_TRUE(pmem_problem(status, true));
  status.st_mode = S_IFREG;
  status.st_size = 0;
  EXPECT_THAT(pmem_problem(status, true)->what, HasSubstr("empty"));
}

TEST_F(DiskSpecs, ProblemsOfDisksHaveAPlace) {
  make("a", 512);
  EXPECT_THAT(load("disks:\n- {path: a, readonly: true, ephemeral: true}\n"),
              ElementsAre(HasSubstr("vm.yaml:2:3: disks[0]: readonly and ephemeral exclude each other")));
}

}  // namespace
}  // namespace snug
