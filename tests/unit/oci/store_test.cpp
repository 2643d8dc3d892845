// The cache, with a skopeo that a test makes: a script that lays down what it is asked for, or does not.
#include "vmm/oci/store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>

#include "vmm/base/sha256.h"
#include "vmm/oci/skopeo.h"

namespace snug::oci {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
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
    std::ofstream(folder_ / "skopeo")
        << "#!/bin/sh\ncase \" $* \" in *\" inspect \"*) cat " << (folder_ / "docker-config").string()
        << "; exit;; esac\necho \"$@\" >>" << (folder_ / "asked").string() << "\n"
        << script << "\n";
    fs::permissions(folder_ / "skopeo", fs::perms::owner_all);
  }
  // An image whose one layer is an empty tar, of another length for each letter.
  void brings(char letter) {
    layer_ = std::string(1024 + 512 * static_cast<size_t>(letter - 'a'), '\0');
    config_ = fmt::format(R"({{"config": {{"Cmd": ["{}"]}}}})", letter);
    manifest_ = fmt::format(R"({{"config": {}, "layers": [{}]}})", descriptor(config_), descriptor(layer_));
    std::string script = R"(for last; do :; done
layout=${last#oci:} layout=${layout%:image}
blobs=; for word; do [ -z "$blobs" ] || { blobs=$word; break; }; [ "$word" != --dest-shared-blob-dir ] || blobs=next; done
mkdir -p "$layout" "$blobs/sha256"
echo "Copying blob sha256:0"
)";
    script += fmt::format("echo '{{\"manifests\": [{}]}}' >\"$layout/index.json\"\n", descriptor(manifest_));
    for (const std::string& blob : {manifest_, config_, layer_}) {
      const fs::path file = folder_ / fmt::format("blob-{}", name_of(blob));
      std::ofstream(file) << blob;
      // As skopeo: one that is there is not brought again.
      script += fmt::format("[ -e \"$blobs/sha256/{0}\" ] || cp {1} \"$blobs/sha256/{0}\"\n", name_of(blob),
                            file.string());
    }
    skopeo(script);
  }
  static std::string digest(const std::string& blob) { return sha256_digest(std::as_bytes(std::span(blob))); }
  static std::string name_of(const std::string& blob) { return digest(blob).substr(7); }
  static std::string descriptor(const std::string& blob) {
    return fmt::format(R"({{"digest": "{}", "size": {}}})", digest(blob), blob.size());
  }
  fs::path place_of(const std::string& blob) const { return folder_ / "cache/blobs/sha256" / name_of(blob); }
  std::string asked() const {
    std::ifstream file(folder_ / "asked");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t times_asked() const {
    const std::string text = asked();
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  fs::path folder_;
  std::string layer_, config_, manifest_;
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
  EXPECT_EQ(
      store_->pull(reference_, PullPolicy::kMissing).error().text(),
      "pull quay.io/me/app:1: manifest unknown; are its name and tag right? those that are there: skopeo "
      "list-tags docker://quay.io/me/app");
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
  std::ofstream(place_of(config_)) << "not json";
  EXPECT_THAT(store_->find(reference_.name).error().text(),
              AllOf(HasSubstr("image quay.io/me/app:1: "), HasSubstr("is not what its name says"),
                    HasSubstr("snug image pull quay.io/me/app:1")));
  EXPECT_TRUE(store_->list().empty());
}

TEST_F(StoreTest, AWrongByteOfALayerNamesIt) {
  const auto image = store_->pull(reference_, PullPolicy::kMissing);
  ASSERT_TRUE(image);
  std::fstream(place_of(layer_), std::ios::in | std::ios::out).seekp(700) << 'x';
  const auto root = store_->root_of(*image, {});
  ASSERT_FALSE(root);
  EXPECT_THAT(root.error().text(),
              AllOf(HasSubstr("layer 1"), HasSubstr(digest(layer_)), HasSubstr("wrong-digest")));
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/work"));
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/roots"));
  // It has gone, and is brought again.
  EXPECT_FALSE(fs::exists(place_of(layer_)));
  EXPECT_TRUE(store_->root_of(*store_->pull(reference_, PullPolicy::kMissing), {}));
}

TEST_F(StoreTest, ALayerThatWasCutOffIsBroughtAgain) {
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  fs::resize_file(place_of(layer_), 100);
  const auto image = store_->pull(reference_, PullPolicy::kMissing);
  EXPECT_EQ(times_asked(), 2U);
  EXPECT_TRUE(store_->root_of(*image, {}));
  // Nobody needs it any more.
  fs::remove(place_of(layer_));
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  EXPECT_EQ(times_asked(), 2U);
}

TEST_F(StoreTest, ShowsWhatComes) {
  std::vector<PullProgress> seen;
  EXPECT_TRUE(
      store_->pull(reference_, PullPolicy::kMissing, [&](const PullProgress& now) { seen.push_back(now); }));
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().begun, 1U);
  EXPECT_EQ(seen.back().done, 3U);
  EXPECT_EQ(seen.back().bytes, layer_.size() + config_.size() + manifest_.size());
}

TEST_F(StoreTest, WhatHasNotComeIsGivenUp) {
  skopeo("echo 'Copying blob sha256:0'; exec sleep 1000");
  HeldSignals signals;
  const CopyRequest request{"docker://x", folder_ / "layout", folder_ / "blobs",
                            std::chrono::milliseconds(300)};
  EXPECT_THAT(copy_image(request, signals, {}).error().text(), HasSubstr("nothing has come for"));
}

// In a process of its own, which dies of the signal.
TEST_F(StoreTest, ASignalEndsItWhenNothingHalfMadeIsLeft) {
  skopeo("for last; do :; done; layout=${last#oci:}; mkdir -p ${layout%:image}; echo $$ >" +
         (folder_ / "pid").string() + "; echo 'Copying blob sha256:0'; exec sleep 1000");
  const pid_t child = ::fork();
  if (child == 0) {
    (void)store_->pull(reference_, PullPolicy::kMissing);
    ::_exit(0);
  }
  pid_t skopeo_pid = 0;
  for (int attempt = 0; attempt < 1000 && skopeo_pid == 0; ++attempt) {
    ::usleep(10'000);
    std::ifstream(folder_ / "pid") >> skopeo_pid;
  }
  ASSERT_NE(skopeo_pid, 0);
  EXPECT_FALSE(fs::is_empty(folder_ / "cache/work"));
  ::kill(child, SIGTERM);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  EXPECT_NE(::kill(skopeo_pid, 0), 0) << "skopeo lives on";
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/work"));
  EXPECT_TRUE(store_->list().empty());
}

TEST_F(StoreTest, WhatAKilledOneLeavesGoesWithTheNext) {
  fs::create_directories(folder_ / "cache/work/docker.io%2Fother");
  fs::create_directories(folder_ / "cache/locks");
  std::ofstream(folder_ / "cache/locks/name docker.io%2Fother");
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kMissing));
  EXPECT_TRUE(fs::is_empty(folder_ / "cache/work"));
}

TEST_F(StoreTest, AFullDiskSaysWhatToDo) {
  skopeo(
      "echo 'level=fatal msg=\"writing blob: write /x/oci-put-blob1: no space left on device\"' >&2; exit 1");
  EXPECT_THAT(store_->pull(reference_, PullPolicy::kMissing).error().text(),
              AllOf(HasSubstr("no space left"), HasSubstr("snug image prune")));
}

// The specification of OCI has no place for it, and skopeo makes another configuration of docker's.
TEST_F(StoreTest, DockersHealthCheckIsKept) {
  std::ofstream(folder_ / "docker-config")
      << R"({"config": {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Retries": 5}}})";
  const auto image = store_->pull(reference_, PullPolicy::kMissing);
  ASSERT_TRUE(image) << image.error().text();
  EXPECT_THAT(image->config.health.command, testing::ElementsAre("/bin/sh", "-c", "curl -f localhost"));
  EXPECT_EQ(image->config.health.retries, 5U);
  EXPECT_THAT(image->config.command, testing::ElementsAre("a"));
  // One without, in its place.
  std::ofstream(folder_ / "docker-config") << "{}";
  EXPECT_TRUE(store_->pull(reference_, PullPolicy::kAlways)->config.health.command.empty());
}

}  // namespace
}  // namespace snug::oci
