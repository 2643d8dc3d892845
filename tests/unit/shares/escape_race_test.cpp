// A guest that wants out while somebody on the host changes what it looks at: a folder that is a link to
// elsewhere the next moment, and the like. Nothing outside of the share is read, made, changed or lost.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "tests/unit/shares/escape_fixture.h"

namespace snug::test {
namespace {

// While `attack` runs over and over on another thread, the guest does `work` for a while.
void race(const std::function<void()>& attack, const std::function<void()>& work) {
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) attack();
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(250);
  while (std::chrono::steady_clock::now() < end) work();
  done = true;
  other.join();
}

class EscapeRace : public Escape {
 protected:
  // "swap" is a folder of the share one moment and a link that leads out the next.
  EscapeRace() {
    std::filesystem::create_directory(scratch.shared("swap"));
    Scratch::write(scratch.shared("swap/secret"), "a decoy");
    std::filesystem::create_symlink("../outside", scratch.shared("swapped"));
  }
  void swap() const {
    ::renameat2(AT_FDCWD, scratch.shared("swap").c_str(), AT_FDCWD, scratch.shared("swapped").c_str(),
                RENAME_EXCHANGE);
  }
  void during_swaps(const std::function<void()>& work) {
    race([this] { swap(); }, work);
  }
};

TEST_P(EscapeRace, WhileLookingUp) {
  int found = 0;
  during_swaps([&] {
    const uint64_t node = driver->walk("swap/secret");
    if (node == 0) return;
    ++found;
    EXPECT_EQ(driver->content(node), "a decoy");
  });
  EXPECT_GT(found, 0);
}

TEST_P(EscapeRace, WhileListing) {
  during_swaps([&] {
    const uint64_t folder = driver->node(1, "swap");
    const Answer opened = driver->opendir(folder);
    if (!opened) return;
    const uint64_t handle = opened.as<fuse_open_out>().fh;
    for (const Listed& one : driver->list(folder, handle, true)) {
      EXPECT_NE(one.name, "folder") << "of what is outside";
      if (one.name == "secret") {
        EXPECT_EQ(driver->content(one.entry.nodeid), "a decoy");
      }
      if (one.entry.nodeid != 0) driver->forget(one.entry.nodeid, 1);
    }
    driver->releasedir(folder, handle);
  });
}

TEST_P(EscapeRace, WhileMaking) {
  int number = 0;
  during_swaps([&] {
    const uint64_t folder = driver->node(1, "swap");
    const std::string name = "new" + std::to_string(number++);
    driver->create(folder, name, 0644, O_RDWR | O_CREAT);
    driver->mkdir(folder, name + "d");
    driver->symlink(folder, name + "l", "x");
    driver->mknod(folder, name + "f", S_IFIFO | 0600);
    driver->link(driver->walk("folder/file"), folder, name + "h");
    session->reset();
    driver->init();
  });
}

TEST_P(EscapeRace, WhileRemoving) {
  during_swaps([&] {
    const uint64_t folder = driver->node(1, "swap");
    driver->call(FUSE_UNLINK, folder, text_of("secret"));
    driver->call(FUSE_RMDIR, folder, text_of("folder"));
  });
}

TEST_P(EscapeRace, WhileRenaming) {
  during_swaps([&] {
    const uint64_t folder = driver->node(1, "swap");
    if (driver->rename(folder, "secret", 1, "taken")) driver->rename(1, "taken", folder, "secret");
    driver->rename(1, "folder", folder, "given");
    driver->rename(folder, "given", 1, "folder");
  });
  EXPECT_NE(on_host("taken"), kSecret);
}

TEST_P(EscapeRace, WhileOpeningAndTruncating) {
  std::filesystem::create_symlink("../outside/secret", scratch.shared("file_link"));
  Scratch::write(scratch.shared("file"), "inside");
  race(
      [&] {
        ::renameat2(AT_FDCWD, scratch.shared("file").c_str(), AT_FDCWD, scratch.shared("file_link").c_str(),
                    RENAME_EXCHANGE);
      },
      [&] {
        const uint64_t node = driver->node(1, "file");
        const Answer opened = driver->open(node, O_RDWR | O_TRUNC);
        if (opened) {
          driver->write(node, opened.as<fuse_open_out>().fh, 0, "overwritten");
          driver->release(node, opened.as<fuse_open_out>().fh);
        }
        driver->chmod(node, 0600);
        driver->chown(node, 5, 5);
        const Answer created = driver->create(1, "file", 0644, O_RDWR | O_CREAT | O_TRUNC);
        if (created) {
          const uint64_t handle = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
          driver->write(created.as<fuse_entry_out>().nodeid, handle, 0, "overwritten");
          driver->release(created.as<fuse_entry_out>().nodeid, handle);
        }
      });
}

TEST_P(EscapeRace, WhileFindingAgainWhatGaveItsDescriptorUp) {
  begin({.descriptors = 64});
  for (int i = 0; i < 100; ++i) Scratch::write(scratch.shared("other" + std::to_string(i)), "");
  during_swaps([&] {
    const uint64_t node = driver->walk("swap/secret");
    // More than are kept open: swap and secret lose theirs.
    for (int i = 0; i < 100; ++i) driver->node(1, "other" + std::to_string(i));
    if (node == 0) return;
    const std::string content = driver->content(node);
    EXPECT_TRUE(content == "a decoy" || content == "(none)") << content;
  });
}

TEST_P(EscapeRace, WhileAFolderIsMovedOutAndBack) {
  race(
      [&] {
        ::rename(scratch.shared("folder").c_str(), scratch.path("outside/visiting").c_str());
        ::rename(scratch.path("outside/visiting").c_str(), scratch.shared("folder").c_str());
      },
      [&] {
        const uint64_t inner = driver->walk("folder/inner");
        if (inner == 0) return;
        EXPECT_EQ(driver->lookup(inner, "..").error, EINVAL);
        EXPECT_EQ(driver->node(inner, "secret"), 0u);
        driver->rename(1, "swap", inner, "x");
        driver->rename(inner, "x", 1, "swap");
      });
}

SNUG_BOTH_RESOLVERS(EscapeRace);

}  // namespace
}  // namespace snug::test
