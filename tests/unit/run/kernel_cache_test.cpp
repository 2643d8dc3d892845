// The store and the cache together, as a run has them.
#include "vmm/machine/kernel_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/host/kernel_store.h"

namespace snug {
namespace {

namespace fs = std::filesystem;

// The least that load_kernel takes: an ELF64 with one segment of one page at 1 MiB.
std::vector<std::byte> small_elf(uint8_t fill) {
  std::vector<std::byte> file(0x2000);
  const auto put = [&file](size_t at, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) file[at + i] = static_cast<std::byte>(value >> (8 * i));
  };
  put(0, 0x00010102464c457f, 8);
  put(16, 2, 2);         // e_type: executable
  put(18, 62, 2);        // e_machine: x86-64
  put(20, 1, 4);         // e_version
  put(24, 0x100000, 8);  // e_entry
  put(32, 64, 8);        // e_phoff
  put(52, 64, 2);        // e_ehsize
  put(54, 56, 2);        // e_phentsize
  put(56, 1, 2);         // e_phnum
  put(64, 1, 4);         // p_type: load
  put(72, 0x1000, 8);    // p_offset
  put(80, 0x100000, 8);  // p_vaddr
  put(88, 0x100000, 8);  // p_paddr
  put(96, 0x1000, 8);    // p_filesz
  put(104, 0x2000, 8);   // p_memsz
  put(112, 0x1000, 8);   // p_align
  std::fill(file.begin() + 0x1000, file.end(), std::byte{fill});
  return file;
}

class KernelCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "snug-kernel-cache-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    cache_folder_ = folder_ / "cache" / "kernels";
  }
  void TearDown() override { fs::remove_all(folder_); }

  // A kernel whose last change lies `age` seconds back. The time of change of the inode can't be set, so the
  // cache takes nothing before the test has waited; see settle().
  UniqueFd kernel(const std::string& name, uint8_t fill) {
    const auto content = small_elf(fill);
    std::ofstream(folder_ / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return *open_file(folder_ / name, O_RDONLY);
  }
  static void settle() { ::sleep(3); }
  KernelStore open() {
    auto store = KernelStore::open(cache_folder_);
    EXPECT_TRUE(store) << store.error().text();
    return std::move(*store);
  }
  // The byte that the loaded kernel begins with, in a run of its own.
  static uint8_t load(KernelStore& store, const UniqueFd& file) {
    store.choose(file.get());
    KernelCache::Files files;
    files.kept = store.find();
    if (store.chosen()) {
      files.begin = [&store] { return store.begin(); };
      files.keep = [&store] { return store.keep(); };
    }
    KernelCache cache(std::move(files));
    const uint8_t first = load(cache, file);
    EXPECT_EQ(load(cache, file), first) << "the next boot";
    return first;
  }
  static uint8_t load(KernelCache& cache, const UniqueFd& file) {
    const GuestMemory memory = *GuestMemory::create(4 * kMiB);
    const auto loaded = cache.load(file.get(), memory);
    EXPECT_TRUE(loaded) << loaded.error().text();
    EXPECT_EQ(memory.load<uint8_t>(0x101000), uint8_t{0});
    return *memory.load<uint8_t>(0x100000);
  }
  std::vector<fs::path> kept() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(cache_folder_)) found.push_back(entry.path());
    return found;
  }

  fs::path folder_, cache_folder_;
};

TEST_F(KernelCacheTest, OffIsAPlainLoad) {
  KernelStore none;
  EXPECT_EQ(load(none, kernel("k", 7)), 7);
}

TEST_F(KernelCacheTest, SealedKeepsNothingMore) {
  KernelStore store = open();
  const UniqueFd file = kernel("k", 3);
  settle();
  store.choose(file.get());
  KernelCache cache(
      KernelCache::Files{{}, [&store] { return store.begin(); }, [&store] { return store.keep(); }});
  cache.seal();
  EXPECT_EQ(load(cache, file), 3);
  EXPECT_TRUE(kept().empty());
}

TEST_F(KernelCacheTest, WhatWasNeverWholeIsRemoved) {
  {
    KernelStore store = open();
    const UniqueFd file = kernel("k", 3);
    settle();
    store.choose(file.get());
    EXPECT_FALSE(store.keep());
    ASSERT_TRUE(store.begin());
    EXPECT_EQ(kept().size(), 1u);
  }
  EXPECT_TRUE(kept().empty());
}

// Root with another user's environment (su, sudo -E).
TEST_F(KernelCacheTest, AnotherUsersCacheIsLeftAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make folders of others";
  ASSERT_EQ(::chown(folder_.c_str(), 12345, 12345), 0);
  EXPECT_FALSE(KernelStore::open(cache_folder_));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(KernelCacheTest, SecondLoadMapsAndAChangedKernelIsAnother) {
  KernelStore cache = open();
  const UniqueFd first = kernel("a", 1);
  EXPECT_EQ(load(cache, first), 1);
  EXPECT_TRUE(kept().empty()) << "a kernel written this moment may change unseen";
  settle();
  EXPECT_EQ(load(cache, first), 1);
  ASSERT_EQ(kept().size(), 1u);
  // What is mapped is the kept file and not the kernel: its content tells.
  std::fstream file(kept().front(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096).put(9);
  file.close();
  EXPECT_EQ(load(cache, first), 9);

  const UniqueFd second = kernel("a", 2);
  settle();
  EXPECT_EQ(load(cache, second), 2);
  EXPECT_EQ(kept().size(), 2u);
}

TEST_F(KernelCacheTest, DamageLeadsToALoadAndANewFile) {
  KernelStore cache = open();
  const UniqueFd file = kernel("a", 1);
  settle();
  EXPECT_EQ(load(cache, file), 1);
  ASSERT_EQ(kept().size(), 1u);
  fs::resize_file(kept().front(), 4096);
  EXPECT_EQ(load(cache, file), 1);
  ASSERT_EQ(kept().size(), 1u);
  EXPECT_EQ(fs::file_size(kept().front()), 8192u);
  fs::permissions(kept().front(), fs::perms::others_write, fs::perm_options::add);
  EXPECT_EQ(load(cache, file), 1);
  EXPECT_EQ(fs::status(kept().front()).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(KernelCacheTest, KeepsTheSixteenLastUsed) {
  KernelStore cache = open();
  std::vector<UniqueFd> files;
  for (int i = 0; i < 20; ++i) files.push_back(kernel("k" + std::to_string(i), static_cast<uint8_t>(i)));
  settle();
  for (int i = 0; i < 16; ++i) EXPECT_EQ(load(cache, files[static_cast<size_t>(i)]), i);
  for (const auto& path : kept())
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(load(cache, files[0]), 0);
  for (int i = 16; i < 20; ++i) EXPECT_EQ(load(cache, files[static_cast<size_t>(i)]), i);
  EXPECT_EQ(kept().size(), 16u);
}

TEST_F(KernelCacheTest, FolderThatOthersMayWriteToIsRefused) {
  fs::create_directories(cache_folder_);
  fs::permissions(cache_folder_, fs::perms::all);
  EXPECT_FALSE(KernelStore::open(cache_folder_));
}

}  // namespace
}  // namespace snug
