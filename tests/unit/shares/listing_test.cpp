// Folders that are read while they change.
#include <dirent.h>
#include <fcntl.h>

#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "tests/unit/shares/fixture.h"

namespace snug::test {
namespace {

class Listing : public Shared {
 protected:
  static std::string name(int i) { return "entry-" + std::to_string(i); }
  void make(int count) const {
    for (int i = 0; i < count; ++i) Scratch::write(scratch.shared(name(i)), "");
  }
  uint64_t open_root() const { return driver->opendir(1).as<fuse_open_out>().fh; }
};

TEST_P(Listing, EveryEntryOnceWhateverTheSize) {
  make(200);
  const uint64_t handle = open_root();
  for (const bool plus : {false, true}) {
    for (const uint32_t size : {400u, 1000u, 4096u, 65'536u, 1u << 20}) {
      std::map<std::string, int> seen;
      for (const Listed& one : driver->list(1, handle, plus, size)) ++seen[one.name];
      EXPECT_EQ(seen.size(), 202u);
      for (const auto& [entry, count] : seen) EXPECT_EQ(count, 1) << entry;
    }
  }
}

TEST_P(Listing, OffsetsLeadBackToWhereTheyWereTold) {
  make(100);
  const uint64_t handle = open_root();
  const auto all = driver->list(1, handle, false);
  for (const size_t from : {size_t{0}, size_t{1}, size_t{50}, size_t{100}}) {
    const fuse_read_in in{.fh = handle, .offset = all[from].next, .size = 4096};
    const auto rest = Driver::entries(driver->call(FUSE_READDIR, 1, bytes_of(in)), false);
    ASSERT_FALSE(rest.empty());
    EXPECT_EQ(rest.front().name, all[from + 1].name);
  }
  // Another handle knows the same offsets.
  const fuse_read_in in{.fh = open_root(), .offset = all[70].next, .size = 300};
  const auto rest = Driver::entries(driver->call(FUSE_READDIRPLUS, 1, bytes_of(in)), true);
  ASSERT_EQ(rest.size(), 1u) << "what there is room for";
  EXPECT_EQ(rest.front().name, all[71].name);
}

TEST_P(Listing, RewindingSeesWhatIsNew) {
  make(5);
  const uint64_t handle = open_root();
  EXPECT_EQ(driver->list(1, handle, false).size(), 7u);
  Scratch::write(scratch.shared("new"), "");
  EXPECT_EQ(driver->list(1, handle, false).size(), 8u);
  std::filesystem::remove(scratch.shared("new"));
  EXPECT_EQ(driver->list(1, handle, true).size(), 7u);
}

TEST_P(Listing, KindsAndNumbersAreThoseOfTheFiles) {
  make(3);
  std::filesystem::create_directory(scratch.shared("folder"));
  std::filesystem::create_symlink("x", scratch.shared("link"));
  ::mkfifo(scratch.shared("fifo").c_str(), 0600);
  for (const Listed& one : driver->list(1, open_root(), true)) {
    if (one.name == "." || one.name == "..") continue;
    const auto entry = driver->lookup(1, one.name).as<fuse_entry_out>();
    EXPECT_EQ(one.number, entry.attr.ino) << one.name;
    EXPECT_EQ(one.entry.nodeid, entry.nodeid) << one.name;
    EXPECT_EQ(one.entry.attr.mode, entry.attr.mode) << one.name;
    EXPECT_EQ(one.type, entry.attr.mode >> 12) << one.name;
    EXPECT_EQ(one.entry.attr_valid, 1u);
  }
}

TEST_P(Listing, WhatNeverMakesSense) {
  make(3);
  const uint64_t handle = open_root();
  const auto read = [&](uint64_t offset, uint32_t size, size_t room = 4096) {
    return driver->call(FUSE_READDIR, 1, bytes_of(fuse_read_in{.fh = handle, .offset = offset, .size = size}),
                        room);
  };
  EXPECT_EQ(read(0, 0).error, EINVAL);
  EXPECT_EQ(read(0, 23).error, EINVAL) << "not even one has room";
  EXPECT_EQ(read(0, 4096, 0).error, EINVAL);
  EXPECT_EQ(read(UINT64_MAX, 4096).error, EINVAL);
  EXPECT_EQ(read(uint64_t{1} << 63, 4096).error, EINVAL);
  (void)read(INT64_MAX, 4096);
  (void)read(0x123456789, 4096);
  EXPECT_EQ(driver->list(1, handle, false).size(), 5u) << "and goes on as if nothing had been";
}

TEST_P(Listing, WhileEntriesComeAndGo) {
  make(300);
  std::atomic<bool> done = false;
  std::thread host([&] {
    for (int round = 0; !done; ++round) {
      const std::string passing = scratch.shared("passing" + std::to_string(round % 50));
      if (round % 2 == 0)
        Scratch::write(passing, "");
      else
        std::filesystem::remove(scratch.shared("passing" + std::to_string((round - 1) % 50)));
      ::rename(scratch.shared("passing0").c_str(), scratch.shared("passing1").c_str());
    }
  });
  const uint64_t handle = open_root();
  for (int round = 0; round < 30; ++round) {
    const bool plus = round % 2 == 0;
    std::map<std::string, int> seen;
    for (const Listed& one : driver->list(1, handle, plus, 1500)) {
      ++seen[one.name];
      if (one.entry.nodeid != 0) driver->forget(one.entry.nodeid, 1);
    }
    for (int i = 0; i < 300; ++i) EXPECT_EQ(seen[name(i)], 1) << name(i);
  }
  done = true;
  host.join();
}

TEST_P(Listing, OneHandleAndSeveralThreads) {
  make(200);
  const uint64_t handle = open_root();
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      Driver guest(*session);
      for (int round = 0; round < 20; ++round) {
        std::set<std::string> seen;
        for (const Listed& one : guest.list(1, handle, i % 2 == 0, 900)) seen.insert(one.name);
        EXPECT_EQ(seen.size(), 202u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

SNUG_BOTH_RESOLVERS(Listing);

}  // namespace
}  // namespace snug::test
