#include "vmm/host/template_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace snug {
namespace {

namespace fs = std::filesystem;

class TemplateStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-templates-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    store_path_ = folder_ + "/templates";
  }
  void TearDown() override { fs::remove_all(folder_); }

  TemplateStore open(const std::string& name) {
    auto store = TemplateStore::open(store_path_, name);
    EXPECT_TRUE(store) << store.error().text();
    return std::move(*store);
  }
  void make(const std::string& name) {
    TemplateStore store = open(name);
    EXPECT_FALSE(store.find().state);
    auto files = store.begin();
    ASSERT_TRUE(files) << files.error().text();
    EXPECT_EQ(::write(files->state.get(), "state", 5), 5);
    ASSERT_TRUE(store.keep());
  }
  std::vector<std::string> kept() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(store_path_))
      names.push_back(entry.path().filename().string());
    return names;
  }

  std::string folder_;
  std::string store_path_;
};

TEST_F(TemplateStoreTest, IsFoundOnceItIsKept) {
  TemplateStore store = open("kind");
  EXPECT_FALSE(store.find().state);
  auto files = store.begin();
  ASSERT_TRUE(files);
  EXPECT_TRUE(store.begun());
  EXPECT_FALSE(store.find().state);
  ASSERT_TRUE(store.keep());
  EXPECT_FALSE(store.begun());
  EXPECT_TRUE(store.find().state);
  EXPECT_FALSE(open("other").find().state);
  store.forget();
  EXPECT_FALSE(store.find().state);
  EXPECT_THAT(kept(), testing::IsEmpty());
}

TEST_F(TemplateStoreTest, WhatItsGuestsWriteToIsKeptBesideIt) {
  make("kind");
  EXPECT_FALSE(open("kind").find().touched);
  open("kind").keep_touched("pages");
  const auto files = open("kind").find();
  ASSERT_TRUE(files.touched);
  std::array<char, 8> text{};
  EXPECT_EQ(::read(files.touched.get(), text.data(), text.size()), 5);
  EXPECT_STREQ(text.data(), "pages");
  open("gone").keep_touched("pages");
  open("kind").forget();
  EXPECT_THAT(kept(), testing::IsEmpty());
}

TEST_F(TemplateStoreTest, OneThatIsNotWantedLeavesNothing) {
  {
    TemplateStore store = open("kind");
    ASSERT_TRUE(store.begin());
  }
  EXPECT_THAT(kept(), testing::IsEmpty());
  EXPECT_FALSE(open("kind").keep());
}

TEST_F(TemplateStoreTest, OfTwoThatAreMadeAtOnceTheFirstStays) {
  TemplateStore store = open("kind");
  ASSERT_TRUE(store.begin());
  // Another process's has another name.
  const std::string begun = store_path_ + "/" + kept().front();
  fs::rename(begun, store_path_ + "/new-0");
  make("kind");
  fs::rename(store_path_ + "/new-0", begun);
  EXPECT_TRUE(store.keep());
  EXPECT_FALSE(store.begun());
  EXPECT_THAT(kept(), testing::ElementsAre("kind"));
}

TEST_F(TemplateStoreTest, OneThatOthersMayHaveWrittenToGoes) {
  for (const char* file : {"state", "memory"}) {
    make("kind");
    ASSERT_EQ(::chmod(fmt::format("{}/kind/{}", store_path_, file).c_str(), 0620), 0);
    EXPECT_FALSE(open("kind").find().state);
    EXPECT_THAT(kept(), testing::IsEmpty());
  }
  make("kind");
  fs::remove(store_path_ + "/kind/memory");
  fs::create_symlink("state", store_path_ + "/kind/memory");
  EXPECT_FALSE(open("kind").find().state);
  EXPECT_THAT(kept(), testing::IsEmpty());
}

TEST_F(TemplateStoreTest, AFolderThatOthersMayWriteToIsNone) {
  make("kind");
  ASSERT_EQ(::chmod(store_path_.c_str(), 0777), 0);
  EXPECT_FALSE(TemplateStore::open(store_path_, "kind"));
}

TEST_F(TemplateStoreTest, TheLongestUnusedMakeRoom) {
  for (int i = 0; i < 8; ++i) {
    const std::string name = fmt::format("kind{}", i);
    make(name);
    const timespec used[2] = {{1'000'000 + i, 0}, {1'000'000 + i, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, (store_path_ + "/" + name).c_str(), used, 0), 0);
  }
  EXPECT_TRUE(open("kind0").find().state);  // is used
  make("kind8");
  EXPECT_EQ(kept().size(), 8U);
  EXPECT_TRUE(open("kind0").find().state);
  EXPECT_FALSE(open("kind1").find().state);
}

TEST_F(TemplateStoreTest, AKindThatComesAgainIsKnown) {
  EXPECT_FALSE(open("kind").seen());
  EXPECT_TRUE(open("kind").seen());
  EXPECT_FALSE(open("other").seen());
  // Those that are kept are beside it.
  make("kind");
  EXPECT_TRUE(open("kind").seen());
  EXPECT_THAT(kept(), testing::UnorderedElementsAre("kind", "kind.seen", "other.seen"));
}

TEST_F(TemplateStoreTest, AKindThatIsRefusedIsSoForADay) {
  EXPECT_FALSE(open("kind").seen());
  open("kind").refuse();
  EXPECT_FALSE(open("kind").seen());
  open("other").refuse();
  EXPECT_FALSE(open("other").seen());
  const timespec long_ago[2] = {{1'000'000, 0}, {1'000'000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (store_path_ + "/kind.seen").c_str(), long_ago, 0), 0);
  EXPECT_TRUE(open("kind").seen());
}

TEST_F(TemplateStoreTest, KindsThatCameOnceAreForgottenInTheEnd) {
  for (int i = 0; i < 300; ++i) {
    const std::string name = fmt::format("kind{}", i);
    EXPECT_FALSE(open(name).seen());
    const timespec then[2] = {{1'000'000 + i, 0}, {1'000'000 + i, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, (store_path_ + "/" + name + ".seen").c_str(), then, 0), 0);
  }
  EXPECT_EQ(kept().size(), 256U);
  EXPECT_TRUE(open("kind299").seen());
  EXPECT_FALSE(open("kind0").seen());
}

TEST_F(TemplateStoreTest, AKindIsAllThatIsSaidOfIt) {
  const auto name_of = [](std::initializer_list<std::pair<const char*, const char*>> parts) {
    TemplateKind kind;
    for (const auto& [what, value] : parts) kind.add(what, value);
    return kind.name();
  };
  EXPECT_EQ(name_of({{"a", "b"}}), name_of({{"a", "b"}}));
  EXPECT_NE(name_of({{"a", "b"}}), name_of({{"a", "c"}}));
  EXPECT_NE(name_of({{"a", "b"}, {"c", ""}}), name_of({{"a", ""}, {"c", "b"}}));
  EXPECT_EQ(name_of({}).size(), 32U);
}

TEST_F(TemplateStoreTest, AFileIsKnownByItsContentsOnceTheyHaveSettled) {
  const std::string path = folder_ + "/kernel";
  std::ofstream(path) << "contents";
  const UniqueFd file(::open(path.c_str(), O_RDONLY));
  TemplateKind kind;
  EXPECT_FALSE(kind.add_file("kernel", file.get()));  // it may be written to at this moment
  const UniqueFd folder(::open(folder_.c_str(), O_RDONLY));
  EXPECT_FALSE(kind.add_file("folder", folder.get()));
  const UniqueFd shell(::open("/bin/sh", O_RDONLY));
  EXPECT_TRUE(kind.add_file("shell", shell.get()));
}

}  // namespace
}  // namespace snug
