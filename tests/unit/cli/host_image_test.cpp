#include "vmm/cli/host_image.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kDep =
    "kernel/drivers/virtio/virtio.ko:\n"
    "kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n"
    "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko "
    "kernel/drivers/virtio/virtio.ko\n"
    "kernel/net/a-name.ko:\n";
constexpr const char* kBuiltin = "kernel/fs/fuse/fuse.ko\nkernel/drivers/acpi/button.ko\n";

TEST(HostModules, WhatTheyNeedComesFirst) {
  EXPECT_THAT(*modules_of("virtio_pci", kDep, kBuiltin),
              ElementsAre("kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko",
                          "kernel/drivers/virtio/virtio_pci.ko.xz"));
  EXPECT_THAT(*modules_of("a_name", kDep, kBuiltin), ElementsAre("kernel/net/a-name.ko"));
  EXPECT_THAT(*modules_of("button", kDep, kBuiltin), IsEmpty());
  EXPECT_EQ(modules_of("overlay", kDep, kBuiltin).error().message,
            "this host's kernel has no driver overlay");
  EXPECT_FALSE(modules_of("virtio", "", ""));
}

TEST(InitrdArchives, AreWhatLinuxReads) {
  InitrdArchive archive;
  archive.add_folder("dev");
  archive.add_device("dev/console", 5, 1);
  archive.add_file("init", "12345", 0755);
  const std::string bytes = archive.finish();
  EXPECT_EQ(bytes.size() % 4, 0U);
  EXPECT_EQ(bytes.substr(0, 6), "070701");
  EXPECT_EQ(bytes.substr(6 + 8, 8), "000041ED");
  EXPECT_THAT(bytes, HasSubstr("TRAILER!!!"));
  // By another's eyes.
  std::string pattern = testing::TempDir() + "/snug-initrd-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  std::ofstream(folder / "archive") << bytes;
  const std::string command =
      "cd " + folder.string() + " && cpio -t <archive >list 2>/dev/null && cpio -i init <archive 2>/dev/null";
  if (std::system("cpio --version >/dev/null 2>&1") == 0) {
    EXPECT_EQ(std::system(command.c_str()), 0);
    std::stringstream list, init;
    list << std::ifstream(folder / "list").rdbuf();
    init << std::ifstream(folder / "init").rdbuf();
    EXPECT_EQ(list.str(), "dev\ndev/console\ninit\n");
    EXPECT_EQ(init.str(), "12345");
    EXPECT_EQ(fs::status(folder / "init").permissions() & fs::perms::owner_exec, fs::perms::owner_exec);
  }
  fs::remove_all(folder);
}

class HostImage : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-host-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    host_ = {folder_ / "boot", folder_ / "modules", "6.1.0-test"};
    fs::create_directories(host_.boot);
    fs::create_directories(host_.modules / host_.release);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  fs::path folder_;
  HostKernels host_;
};

TEST_F(HostImage, IsMadeOnceForEachKernel) {
  write(host_.boot / "vmlinuz-6.1.0-test", "kernel");
  write(host_.modules / "6.1.0-test/modules.dep",
        "k/virtio_pci.ko:\nk/virtiofs.ko: k/fuse.ko\nk/overlay.ko:\n");
  write(host_.modules / "6.1.0-test/modules.builtin", "k/vmw_vsock_virtio_transport.ko\n");
  for (const char* name : {"virtio_pci", "virtiofs", "fuse", "overlay"})
    write(host_.modules / "6.1.0-test/k" / (std::string(name) + ".ko"),
          "\x7f"
          "ELF and more than sixteen bytes");
  write(folder_ / "cache/snug/host/of-an-older-kernel.initrd", "");
  const auto image = host_image(host_);
  ASSERT_TRUE(image) << image.error().text();
  EXPECT_EQ(image->kernel, host_.boot / "vmlinuz-6.1.0-test");
  ASSERT_EQ(image->initrds.size(), 1U);
  std::stringstream bytes;
  bytes << std::ifstream(image->initrds[0]).rdbuf();
  EXPECT_THAT(bytes.str(), HasSubstr(std::string("virtio_pci\nvirtiofs\n").substr(0, 11)));
  EXPECT_THAT(bytes.str(), HasSubstr("virtio_pci\nfuse\nvirtiofs\noverlay\n"));
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "cache/snug/host"))
    files += entry.exists() ? 1 : 0;
  EXPECT_EQ(files, 1U);
  const auto before = fs::last_write_time(image->initrds[0]);
  EXPECT_TRUE(host_image(host_));
  EXPECT_EQ(fs::last_write_time(image->initrds[0]), before);
}

TEST_F(HostImage, WhatIsMissingIsNamed) {
  EXPECT_THAT(host_image(host_).error().text(),
              HasSubstr("there is no " + (host_.boot / "vmlinuz-6.1.0-test").string()));
  write(host_.boot / "vmlinuz-6.1.0-test", "kernel");
  EXPECT_THAT(host_image(host_).error().text(), HasSubstr("modules.dep: No such file"));
  write(host_.modules / "6.1.0-test/modules.dep", "k/virtio_pci.ko:\n");
  write(host_.modules / "6.1.0-test/modules.builtin", "");
  EXPECT_THAT(host_image(host_).error().text(), HasSubstr("k/virtio_pci.ko: No such file"));
  write(host_.modules / "6.1.0-test/k/virtio_pci.ko", "neither ELF nor anything else");
  EXPECT_THAT(host_image(host_).error().text(), HasSubstr("neither a module nor packed"));
  write(host_.modules / "6.1.0-test/k/virtio_pci.ko",
        "\x7f"
        "ELF and more than sixteen bytes");
  EXPECT_THAT(host_image(host_).error().text(), HasSubstr("no driver vmw_vsock_virtio_transport"));
  if (::geteuid() != 0) {
    fs::permissions(host_.boot / "vmlinuz-6.1.0-test", fs::perms::none);
    EXPECT_THAT(host_image(host_).error().text(), HasSubstr("sudo chmod +r"));
  }
}

}  // namespace
}  // namespace snug::cli
