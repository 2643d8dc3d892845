// The cache, with a skopeo that a test makes: a script that lays down what it is asked for, or does not.
#include "vmm/oci/store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace snug::oci {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-oci-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    store_ = std::make_unique<Store>(folder_ / "cache");
    path_ = std::getenv("PATH");
    ::setenv("PATH", (folder_.string() + ":" + path_).c_str(), 1);
    brings('a');
  }
  void TearDown() override {
    ::setenv("PATH", path_.c_str(), 1);
    fs::remove_all(folder_);
  }

  // From now on skopeo does that.
  void skopeo(const std::string& script) {
    std::ofstream(folder_ / "skopeo") << "#!/bin/sh\necho \"$@\" >>" << (folder_ / "asked").string() << "\n"
                                      << script << "\n";
    fs::permissions(folder_ / "skopeo", fs::perms::owner_all);
  }
  // An image whose layer is an empty tar.
  void brings(char layer) {
    const auto digest = [](char c) { return std::string(64, c); };
    const auto descriptor = [&](char c) {
      return fmt::format(R"({{"digest": "sha256:{}", "size": 1}})", digest(c));
    };
    skopeo(fmt::format(R"(for last; do :; done
layout=${{last#oci:}} layout=${{layout%:image}}
blobs=; for word; do [ -z "$blobs" ] || {{ blobs=$word; break; }}; [ "$word" != --dest-shared-blob-dir ] || blobs=next; done
mkdir -p "$layout" "$blobs/sha256"
echo '{{"manifests": [{0}]}}' >"$layout/index.json"
echo '{{"config": {1}, "layers": [{2}]}}' >"$blobs/sha256/{3}"
echo '{{"config": {{"Cmd": ["{4}"]}}}}' >"$blobs/sha256/{5}"
head -c 1024 /dev/zero >"$blobs/sha256/{6}")",
                       descriptor('0'), descriptor('1'), descriptor(layer), digest('0'), layer, digest('1'),
                       digest(layer)));
  }
  std::string asked() const {
    std::ifstream file(folder_ / "asked");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t times_asked() const {
    const std::string text = asked();
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  fs::path folder_;
  std::unique_ptr<Store> store_;
  std::string path_;
  Reference reference_ = *Reference::parse("quay.io/me/app:1", "/");
};

TEST_F(StoreTest, BroughtOnceUnlessAlways) {
  const auto image = store_->pull(reference_, PullPolicy::kMissing);
  ASSERT_TRUE(image) << image.error().text();
  EXPECT_EQ(image->name, "quay.io/me/app:1");
  EXPECT_THAT(image->config.command, testing::ElementsAre("a"));
  EXPECT_THAT(asked(), HasSubstr("docker://quay.io/me/app:1 oci:"));
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kNever));
  EXPECT_EQ(times_asked(), 1U);
  brings('b');
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kAlways)->config.command, testing::ElementsAre("b"));
  EXPECT_EQ(times_asked(), 2U);
}

TEST_F(StoreTest, AContentThatIsNamedDoesNotChange) {
  const auto pinned = *Reference::parse("quay.io/me/app@sha256:" + std::string(64, 'c'), "/");
  EXPECT_TRUE(store_->pull(pinned, PullPolicy::kAlways));
  EXPECT_TRUE(store_->pull(pinned, PullPolicy::kAlways));
  EXPECT_EQ(times_asked(), 1U);
}

TEST_F(StoreTest, WhatCannotBeHad) {
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kNever).error().text(),
              HasSubstr("snug image pull quay.io/me/app:1"));
  skopeo("echo 'level=fatal msg=\"manifest unknown\"' >&2; exit 1");
  EXPECT_EQ(store_->pull(reference_, PullPolicy::kMissing).error().text(),
            "pull quay.io/me/app:1: manifest unknown");
  skopeo("kill -9 $$");
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kMissing).error().text(), HasSubstr("killed by signal 9"));
  EXPECT_TRUE(store_->list().empty());
  // What was here before is here still.
  brings('a');
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  skopeo("exit 3");
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kAlways).error().text(), HasSubstr("status 3"));
  EXPECT_TRUE(store_->find("quay.io/me/app:1"));
  ::setenv("PATH", "/nowhere", 1);
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kAlways).error().text(), HasSubstr("apt install skopeo"));
}

TEST_F(StoreTest, ARootIsMadeOnce) {
  const auto image = store_->pull(reference_, PullPolicy::kMissing);
  const auto root = store_->root_of(*image, {});
  ASSERT_TRUE(root) << root.error().text();
  const auto before = fs::last_write_time(*root);
  EXPECT_GT(fs::file_size(*root), 0U);
  EXPECT_EQ(*store_->root_of(*image, {}), *root);
  EXPECT_EQ(fs::last_write_time(*root), before);
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/work"));
}

TEST_F(StoreTest, WhatIsNotNeededIsRemoved) {
  const auto other = *Reference::parse("other", "/");
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  EXPECT_TRUE(store_->pull(other, PullPolicy::kMissing));
  const auto all = store_->list();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].name, "docker.io/library/other:latest");
  const auto bytes = store_->bytes_of(all[0], all);
  EXPECT_GT(bytes.shared, 0U);
  EXPECT_EQ(bytes.total, bytes.shared);
  EXPECT_TRUE(store_->remove(other.name));
  EXPECT_FALSE(store_->remove(other.name));
  EXPECT_EQ(*store_->prune(), 0U) << "the other image has them";
  EXPECT_TRUE(store_->remove(reference_.name));
  EXPECT_GT(*store_->prune(), 0U);
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/blobs/sha256"));
}

TEST_F(StoreTest, WhatIsBrokenIsSaid) {
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  std::ofstream(folder_ / "cache/blobs/sha256" / std::string(64, '1')) << "not json";
  EXPECT_THAT(store_->find(reference_.name).error().text(),
              HasSubstr("image quay.io/me/app:1: the configuration is not a JSON object"));
  EXPECT_TRUE(store_->list().empty());
}

}  // namespace
}  // namespace snug::oci
