#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <span>
#include <vector>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/file_status.h"
#include "vmm/base/log.h"
#include "vmm/base/mapping.h"
#include "vmm/base/sha256.h"
#include "vmm/base/socket_address.h"
#include "vmm/base/socket_io.h"
#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(Checked, SumsThatWrapAreNothing) {
  EXPECT_EQ(checked_add<uint64_t>(kMax - 1, 1), kMax);
  EXPECT_EQ(checked_add<uint64_t>(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_mul<uint32_t>(1u << 31, 2), std::nullopt);
  EXPECT_EQ(checked_align_up(4097, 4096), 8192u);
  EXPECT_EQ(checked_align_up(kMax, 4096), std::nullopt);
}

TEST(Checked, RangesAtTheEdges) {
  EXPECT_TRUE(range_within(0, 10, 10));
  EXPECT_TRUE(range_within(10, 0, 10));
  EXPECT_FALSE(range_within(11, 0, 10));
  EXPECT_FALSE(range_within(5, 6, 10));
  EXPECT_FALSE(range_within(5, kMax, 10));
  EXPECT_FALSE(range_within(kMax, kMax, 10));
}

TEST(Little, KeepsItsBytesInOrder) {
  struct Packed {
    std::byte pad;
    le32 value;
  };
  static_assert(sizeof(Packed) == 5);
  Packed packed{};
  packed.value = 0x04030201;
  const auto bytes = std::as_bytes(std::span(&packed, 1));
  EXPECT_EQ(bytes[1], std::byte{1});
  EXPECT_EQ(bytes[4], std::byte{4});
  EXPECT_EQ(load_le(bytes.subspan(1)), 0x04030201u);
}

TEST(Little, StoresOfAnyWidth) {
  std::array<std::byte, 12> bytes;
  bytes.fill(std::byte{0xee});
  store_le(bytes, 0x1122334455667788);
  EXPECT_EQ(bytes[7], std::byte{0x11});
  EXPECT_EQ(bytes[8], std::byte{0});
}

TEST(UniqueFd, ClosesOnceAndMovesAway) {
  auto opened = open_file("/dev/null", O_RDWR);
  ASSERT_TRUE(opened);
  const int number = opened->get();
  UniqueFd other = std::move(*opened);
  EXPECT_FALSE(*opened);
  EXPECT_EQ(other.get(), number);
  EXPECT_NE(::fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
  other.reset();
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

// In a process of its own, which has what this program was started with.
TEST(UniqueFd, WhatWasInheritedIsClosed) {
  const pid_t child = ::fork();
  if (child == 0) {
    const UniqueFd own = *open_file("/", O_RDONLY | O_DIRECTORY);
    std::vector<int> inherited;
    for (int i = 0; i < 100; ++i) inherited.push_back(::dup(own.get()));
    const int far = ::dup2(own.get(), 1000);
    const auto is_open = [](int fd) { return ::fcntl(fd, F_GETFD) >= 0; };
    if (!is_open(inherited.back()) || !is_open(far)) ::_exit(1);
    if (!close_inherited()) ::_exit(2);
    for (const int fd : inherited)
      if (is_open(fd)) ::_exit(3);
    if (is_open(far)) ::_exit(4);
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, own.get()})
      if (!is_open(fd)) ::_exit(5);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(UniqueFd, ErrorsNameTheFile) {
  const auto opened = open_file("/nonexistent/file", O_RDONLY);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().text(), "open /nonexistent/file: No such file or directory");
}

TEST(SocketAddress, PathsThatFitAndThoseThatDoNot) {
  const std::string longest(sizeof(sockaddr_un::sun_path) - 1, 'x');
  const auto address = socket_address(longest);
  ASSERT_TRUE(address);
  EXPECT_EQ(address->sun_family, AF_UNIX);
  EXPECT_EQ(address->sun_path, longest) << "with its end";
  const auto refused = socket_address(longest + "x");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("108 bytes are too long for a socket's path"), std::string::npos);
  EXPECT_EQ(refused.error().hint, "use one of at most 107 bytes");
}

TEST(SocketAddress, AFolderMayBeAnywhere) {
  std::string pattern = testing::TempDir() + "/snug-socket-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::string folder = pattern + "/" + std::string(150, 'f');
  ASSERT_TRUE(std::filesystem::create_directory(folder));
  {
    const auto opened = open_file(folder, O_PATH | O_DIRECTORY);
    ASSERT_TRUE(opened);
    const auto address = socket_address(opened->get(), "vm.sock");
    ASSERT_TRUE(address);
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
    EXPECT_FALSE(socket_address(opened->get(), std::string(100, 'x')));
  }
  EXPECT_TRUE(std::filesystem::is_socket(folder + "/vm.sock"));
  std::filesystem::remove_all(pattern);
}

TEST(SocketIo, BytesThereAndItsEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  UniqueFd here(ends[0]);
  UniqueFd there(ends[1]);
  EXPECT_EQ(send_some(here.get(), "abc", 3), 3);
  std::array<char, 8> bytes{};
  EXPECT_EQ(receive_some(there.get(), bytes.data(), bytes.size(), MSG_PEEK), 3);
  EXPECT_EQ(receive_some(there.get(), bytes.data(), 2), 2);
  EXPECT_EQ(receive_some(there.get(), bytes.data(), bytes.size()), 1);
  EXPECT_EQ(receive_some(there.get(), bytes.data(), bytes.size(), MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  here.reset();
  EXPECT_EQ(receive_some(there.get(), bytes.data(), bytes.size()), 0);
  // No SIGPIPE.
  EXPECT_EQ(send_some(there.get(), "abc", 3), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST(FileStatus, AsTheLibrarysOwn) {
  struct stat ours {};
  struct stat theirs {};
  const auto fd = open_file("/", O_RDONLY).value();
  ASSERT_TRUE(file_status(fd.get(), ours));
  ASSERT_EQ(::fstat(fd.get(), &theirs), 0);
  EXPECT_EQ(ours.st_ino, theirs.st_ino);
  EXPECT_EQ(ours.st_mode, theirs.st_mode);
  EXPECT_FALSE(file_status(-1, ours));
  EXPECT_EQ(errno, EBADF);
}

// FIPS 180-4's examples, and lengths at which the padding changes.
TEST(Sha256, IsThatOfTheBook) {
  const auto digest = [](std::string_view text) { return sha256_digest(std::as_bytes(std::span(text))); };
  EXPECT_EQ(digest(""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(std::string(1'000'000, 'a')),
            "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, InWhateverPieces) {
  const std::string text(300, 'x');
  for (const size_t size : {1, 7, 55, 56, 63, 64, 65, 119, 120, 128}) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += size)
      hash.add(std::as_bytes(std::span(text).subspan(at, std::min(size, text.size() - at))));
    EXPECT_EQ("sha256:" + hash.hex_digest(), sha256_digest(std::as_bytes(std::span(text)))) << size;
  }
}

TEST(Sha256, IsTheSameWithAndWithoutInstructionsForIt) {
  if (!has_sha256_instructions()) GTEST_SKIP() << "this processor has none";
  std::vector<std::byte> blocks(50 * kSha256Block);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i * i * 37 >> 5);
  Sha256State plain{1, 2, 3, 4, 5, 6, 7, 8};
  Sha256State quick = plain;
  for (const size_t count : {0, 1, 2, 49, 50}) {
    const auto part = std::span(blocks).first(count * kSha256Block);
    sha256_blocks_plainly(plain, part);
    sha256_blocks_by_instructions(quick, part);
    EXPECT_EQ(plain, quick) << count;
  }
}

TEST(Result, ContextGoesInFrontAndTheHintStays) {
  const auto step = []() -> Result<int> { return fail_with_hint("no kernel", "give one"); };
  const auto outer = [&]() -> Result<void> {
    SNUG_TRY(with_context(step(), "boot"));
    return {};
  };
  EXPECT_EQ(outer().error().text(), "boot: no kernel; give one");
}

TEST(Mapping, AnonymousIsAlignedAndZero) {
  auto mapping = Mapping::anonymous(3 * 4096, 2 * kMiB);
  ASSERT_TRUE(mapping);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(mapping->data()) % (2 * kMiB), 0u);
  EXPECT_EQ(mapping->bytes()[3 * 4096 - 1], std::byte{0});
  EXPECT_FALSE(Mapping::anonymous(kMax - 4096));
}

TEST(RateLimit, HoldsBackAFloodAndCountsIt) {
  RateLimit limit(3);
  uint64_t suppressed = 0;
  int allowed = 0;
  for (int i = 0; i < 1000; ++i) allowed += limit.allow(suppressed) ? 1 : 0;
  EXPECT_GE(allowed, 3);
  EXPECT_LE(allowed, 10);
}

TEST(AssertionDeathTest, RunsTheHookAndNamesThePlace) {
  EXPECT_DEATH(
      {
        set_abort_hook([]() noexcept { [[maybe_unused]] auto n = ::write(2, "hook\n", 5); });
        SNUG_ASSERT(1 + 1 == 3);
      },
      "hook.*assertion failed: 1 \\+ 1 == 3 .*base_test");
}

}  // namespace
}  // namespace snug
