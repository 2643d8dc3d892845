// What a guest can make the server hold: inodes, descriptors, open files. And what becomes of inodes that
// have given their descriptors up.
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/unit/shares/fixture.h"

namespace snug::test {
namespace {

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& one : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

class Bounds : public Shared {
 protected:
  // Many files: in memory, where that can be had.
  Bounds() : Shared(std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "") {}

  static constexpr int kFiles = 600;
  static constexpr int kFolders = 30;

  void make_files(int count = kFiles) const {
    for (int i = 0; i < kFolders; ++i) std::filesystem::create_directory(scratch.shared(folder(i)));
    for (int i = 0; i < count; ++i) Scratch::write(scratch.shared(file(i)), std::to_string(i));
  }
  static std::string folder(int i) { return "folder" + std::to_string(i % kFolders); }
  static std::string file(int i) { return folder(i) + "/file" + std::to_string(i); }
  void begin_small() { begin({.descriptors = 64}); }
  // Uses so many inodes that all others lose their descriptors.
  void push_out() const {
    for (int i = 0; i < 200; ++i) driver->walk(file(i));
  }
};

TEST_P(Bounds, ManyFilesAndFewDescriptors) {
  constexpr int kMany = 4000;
  make_files(kMany);
  begin_small();
  const size_t before = open_descriptors();
  std::vector<uint64_t> nodes;
  for (int i = 0; i < kMany; ++i) nodes.push_back(driver->walk(file(i)));
  EXPECT_LE(open_descriptors(), before + 64);
  EXPECT_EQ(std::set(nodes.begin(), nodes.end()).size(), size_t{kMany});
  for (int i = 0; i < kMany; ++i) EXPECT_EQ(driver->content(nodes[i]), std::to_string(i));
  EXPECT_LE(open_descriptors(), before + 64);
  for (int i = 0; i < kMany; ++i)
    EXPECT_EQ(driver->walk(file(i)), nodes[i]) << "the same file, the same number";
}

TEST_P(Bounds, RenamedByTheGuestAreFoundAgain) {
  make_files();
  begin_small();
  const uint64_t from = driver->node(1, folder(7));
  const uint64_t node = driver->walk(file(7));
  const uint64_t to = driver->node(1, folder(8));
  ASSERT_TRUE(driver->rename(from, "file7", to, "moved"));
  ASSERT_TRUE(driver->rename(1, folder(8), 1, "renamed folder"));
  push_out();
  EXPECT_EQ(driver->content(node), "7");
  // Exchanged: each is found where the other was.
  const uint64_t other = driver->walk(file(9));
  ASSERT_TRUE(driver->rename(to, "moved", driver->node(1, folder(9)), "file9", 2));
  push_out();
  EXPECT_EQ(driver->content(node), "7");
  EXPECT_EQ(driver->content(other), "9");
  // A second name is as good when the first one goes.
  ASSERT_TRUE(driver->link(node, 1, "second"));
  ASSERT_TRUE(driver->call(FUSE_UNLINK, driver->node(1, folder(9)), text_of("file9")));
  push_out();
  EXPECT_EQ(driver->content(node), "7");
}

TEST_P(Bounds, WhatTheHostMovedIsStaleAndNeverAnother) {
  make_files();
  begin_small();
  const uint64_t moved = driver->walk(file(300));
  const uint64_t replaced = driver->walk(file(301));
  const uint64_t removed = driver->walk(file(302));
  std::filesystem::create_directory(scratch.shared("a folder"));
  Scratch::write(scratch.shared("a folder/below"), "below");
  const uint64_t below = driver->walk("a folder/below");
  const uint64_t linked = driver->walk(file(304));
  push_out();
  std::filesystem::rename(scratch.shared(file(300)), scratch.shared("elsewhere"));
  Scratch::write(scratch.shared("new"), "another file");
  std::filesystem::rename(scratch.shared("new"), scratch.shared(file(301)));
  std::filesystem::remove(scratch.shared(file(302)));
  std::filesystem::rename(scratch.shared("a folder"), scratch.shared("other folder"));
  std::filesystem::remove(scratch.shared(file(304)));
  std::filesystem::create_symlink("../elsewhere", scratch.shared(file(304)));
  for (const uint64_t node : {moved, replaced, removed, below, linked}) {
    expect_error(driver->open(node, O_RDONLY), ESTALE);
    expect_error(driver->call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})), ESTALE);
    expect_error(driver->setattr(node, {.valid = FATTR_SIZE, .size = 0}), ESTALE);
  }
  EXPECT_EQ(on_host(file(301)), "another file");
  EXPECT_EQ(driver->content(driver->walk(file(301))), "another file");
  EXPECT_NE(driver->walk(file(301)), replaced);
  // Looked up where they are now, they are who they were.
  EXPECT_EQ(driver->walk("elsewhere"), moved);
  EXPECT_EQ(driver->content(moved), "300");
  EXPECT_EQ(driver->walk("other folder/below"), below);
  EXPECT_EQ(driver->content(below), "below");
}

using SharedNumbers = Shared;

TEST_P(SharedNumbers, OfTheHostAreUsedAnew) {
  begin({.descriptors = 64});
  for (int i = 0; i < 100; ++i) Scratch::write(scratch.shared("other" + std::to_string(i)), "");
  // ext4 gives the inode number of a file that is gone to the next: that must not be the old one again.
  std::set<uint64_t> given;
  for (int i = 0; i < 200; ++i) {
    Scratch::write(scratch.shared("reused"), std::to_string(i));
    const uint64_t node = driver->node(1, "reused");
    EXPECT_EQ(driver->content(node), std::to_string(i));
    EXPECT_TRUE(given.insert(node).second) << "a number was given out for two files";
    for (int other = 0; i % 10 == 0 && other < 100; ++other) driver->node(1, "other" + std::to_string(other));
    std::filesystem::remove(scratch.shared("reused"));
  }
}

TEST_P(Bounds, DeepFolders) {
  begin_small();
  uint64_t at = 1;
  std::vector<uint64_t> nodes;
  for (int i = 0; i < 300; ++i) {
    const Answer made = driver->mkdir(at, "d");
    ASSERT_TRUE(made) << i;
    nodes.push_back(at = made.as<fuse_entry_out>().nodeid);
  }
  ASSERT_TRUE(driver->mknod(at, "file", S_IFREG | 0644));
  const uint64_t file = driver->node(at, "file");
  for (int i = 0; i < 300; ++i) Scratch::write(scratch.shared("f" + std::to_string(i)), "");
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 300; ++i) driver->node(1, "f" + std::to_string(i));
    EXPECT_TRUE(driver->open(file, O_RDONLY));
    for (const uint64_t node : nodes) EXPECT_TRUE(S_ISDIR(driver->attributes(node).mode));
  }
}

TEST_P(Bounds, FoldersInACircle) {
  make_files();
  begin_small();
  // The guest sees a below b, then the host turns them round, and the guest sees b below a.
  std::filesystem::create_directories(scratch.shared("b/a"));
  const uint64_t b = driver->node(1, "b");
  const uint64_t a = driver->node(b, "a");
  std::filesystem::rename(scratch.shared("b/a"), scratch.shared("a"));
  std::filesystem::rename(scratch.shared("b"), scratch.shared("a/b"));
  EXPECT_EQ(driver->node(a, "b"), b);
  push_out();
  expect_error(driver->opendir(a), ESTALE);
  expect_error(driver->opendir(b), ESTALE);
  EXPECT_EQ(driver->node(1, "a"), a);
  EXPECT_TRUE(driver->opendir(b));
}

TEST_P(Bounds, OpenFilesAreLimited) {
  make_files();
  begin_small();
  const size_t before = open_descriptors();
  std::vector<std::pair<uint64_t, uint64_t>> opened;
  Answer answer;
  for (int i = 0; i < 100; ++i) {
    const uint64_t node = driver->walk(file(i));
    answer = driver->open(node, O_RDONLY);
    if (!answer) break;
    opened.emplace_back(node, answer.as<fuse_open_out>().fh);
  }
  EXPECT_EQ(answer.error, ENFILE);
  EXPECT_EQ(opened.size(), 24u);
  expect_error(driver->opendir(1), ENFILE);
  expect_error(driver->create(1, "new", 0644), ENFILE);
  EXPECT_EQ(on_host("new"), "(none)");
  EXPECT_LE(open_descriptors(), before + 64);
  push_out();
  for (size_t i = 0; i < opened.size(); ++i)
    EXPECT_EQ(driver->read(opened[i].first, opened[i].second, 0, 10).payload, std::to_string(i));
  for (const auto& [node, handle] : opened) EXPECT_TRUE(driver->release(node, handle));
  EXPECT_TRUE(driver->opendir(1));
}

TEST_P(Bounds, InodesAreLimited) {
  make_files();
  begin({.inodes = 100});
  uint64_t node = 0;
  int known = 0;
  while ((node = driver->walk(file(known))) != 0) ++known;
  EXPECT_GT(known, 50);
  expect_error(driver->lookup(driver->node(1, folder(0)), "file" + std::to_string(kFolders * 15)), ENOMEM);
  expect_error(driver->mkdir(1, "more"), ENOMEM);
  const uint64_t handle = driver->opendir(1).as<fuse_open_out>().fh;
  EXPECT_EQ(driver->list(1, handle, true).size(), size_t{kFolders} + 3) << "names are told all the same";
  driver->forget(driver->walk(file(0)), 2);
  EXPECT_NE(driver->node(1, "more"), 0u) << "a place that is free is used again";
}

TEST_P(Bounds, ForgettingIsExact) {
  make_files();
  const uint64_t node = driver->walk(file(3));
  for (int i = 0; i < 4; ++i) driver->walk(file(3));  // 5 in all
  driver->forget(node, 4);
  EXPECT_TRUE(driver->open(node, O_RDONLY));
  driver->forget(node, 1);
  // Open, so the inode stays; but its number is the guest's no more.
  expect_error(driver->open(node, O_RDONLY), ESTALE);
  const uint64_t again = driver->walk(file(3));
  driver->forget(again, UINT64_MAX);
  expect_error(driver->open(again, O_RDONLY), ESTALE);
  driver->forget(1, UINT64_MAX);
  EXPECT_TRUE(driver->opendir(1)) << "the root stays";
}

TEST_P(Bounds, EntriesOfAListingAreLookups) {
  make_files();
  const uint64_t folder = driver->node(1, "folder0");
  const uint64_t handle = driver->opendir(folder).as<fuse_open_out>().fh;
  std::map<uint64_t, uint64_t> counts;
  for (int round = 0; round < 3; ++round)
    for (const Listed& one : driver->list(folder, handle, true, 700))
      if (one.entry.nodeid != 0) ++counts[one.entry.nodeid];
  EXPECT_EQ(counts.size(), size_t{kFiles / kFolders});
  for (const auto& [node, count] : counts) {
    EXPECT_EQ(count, 3u);
    driver->forget(node, count - 1);
    EXPECT_TRUE(driver->call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})));
    driver->forget(node, 1);
    expect_error(driver->call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})), ESTALE);
  }
}

TEST_P(Bounds, ForgetStorms) {
  make_files();
  const size_t before = open_descriptors();
  for (int round = 0; round < 5; ++round) {
    std::string all;
    for (int i = 0; i < kFiles; ++i) all += bytes_of(fuse_forget_one{driver->walk(file(i)), 1});
    std::string request = bytes_of(fuse_batch_forget_in{.count = kFiles});
    driver->call(FUSE_BATCH_FORGET, 0, request + all, 0);
    // Once more, and numbers that nobody has.
    driver->call(FUSE_BATCH_FORGET, 0, request + all, 0);
  }
  for (int i = 0; i < kFolders; ++i) driver->forget(driver->node(1, folder(i)), UINT64_MAX);
  EXPECT_EQ(open_descriptors(), before) << "nothing is kept of what was forgotten";
  std::thread walker([this] {
    Driver other(*session);
    for (int i = 0; i < 2000; ++i) other.walk(file(i % 50));
  });
  for (int i = 0; i < 20'000; ++i) driver->forget((static_cast<uint64_t>(i) << 20) + i % 100, 1000);
  walker.join();
  EXPECT_NE(driver->walk(file(1)), 0u);
}

TEST_P(Bounds, ManyThreads) {
  make_files();
  begin_small();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread] {
      Driver guest(*session);
      for (int i = 0; i < 400; ++i) {
        const int which = (i * 7 + thread * 31) % 300;
        const uint64_t node = guest.walk(file(which));
        if (node == 0) continue;
        const std::string content = guest.content(node);
        EXPECT_TRUE(content == std::to_string(which) || content == "(none)") << content;
        if (i % 3 == 0) guest.forget(node, 1);
        const std::string own = "own" + std::to_string(thread);
        const Answer made = guest.create(1, own, 0600, O_RDWR);
        if (made) {
          const auto entry = made.as<fuse_entry_out>();
          const uint64_t handle = made.as<fuse_open_out>(sizeof entry).fh;
          guest.write(entry.nodeid, handle, 0, own);
          EXPECT_EQ(guest.read(entry.nodeid, handle, 0, 100).payload, own);
          guest.release(entry.nodeid, handle);
          guest.rename(1, own, 1, own + "moved");
          guest.call(FUSE_UNLINK, 1, text_of(own + "moved"));
          guest.forget(entry.nodeid, 1);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(Bounds, ResetAmidRequests) {
  make_files();
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      Driver guest(*session);
      while (!done) {
        guest.init();
        const uint64_t node = guest.walk(file(thread));
        guest.content(node);
      }
    });
  }
  for (int i = 0; i < 200; ++i) session->reset();
  done = true;
  for (std::thread& thread : threads) thread.join();
}

SNUG_BOTH_RESOLVERS(Bounds);
SNUG_BOTH_RESOLVERS(SharedNumbers);

}  // namespace
}  // namespace snug::test
