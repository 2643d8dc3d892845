#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <random>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/overlay.h"
#include "devices/virtio/block/restrict_ring.h"
#include "devices/virtio/block/transfer.h"
#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/virtio_driver.h"

namespace snug::test {
namespace {

// --- on files ---------------------------------------------------------------------------------------

using Maker = Result<std::unique_ptr<BlockBackend>> (*)(std::vector<BlockFile>);

Result<std::unique_ptr<BlockBackend>> make_backend_of_threads(std::vector<BlockFile> files) {
  return make_thread_backend(std::move(files));
}

// Takes any file for one in memory.
Result<std::unique_ptr<BlockBackend>> make_backend_of_memory(std::vector<BlockFile> files) {
  for (BlockFile& file : files) file.in_memory = true;
  return make_uring_backend(std::move(files));
}

class BlockBackendTest : public testing::TestWithParam<Maker> {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/snug-disk-XXXXXX";
    file = UniqueFd(::mkstemp(path.data()));
    ASSERT_TRUE(file);
    ::unlink(path.c_str());
    ASSERT_EQ(::ftruncate(file.get(), 1 << 20), 0);
    auto made = GetParam()({{.fd = file.get()}});
    if (!made) GTEST_SKIP() << made.error().text();
    backend = std::move(*made);
  }
  int perform(BlockRequest& request) {
    EXPECT_TRUE(backend->submit(request));
    bool at_once = backend->kick();
    std::optional<int> result;
    for (int i = 0; i < 1000 && !result; ++i) {
      pollfd ready{backend->event_fd(), POLLIN, 0};
      if (!at_once) ::poll(&ready, 1, 100);
      at_once = false;
      take_count(backend->event_fd());
      backend->reap([&](uint64_t tag, int error) {
        EXPECT_EQ(tag, request.tag);
        result = error;
      });
    }
    EXPECT_TRUE(result) << "never reported";
    return result.value_or(-1);
  }
  BlockRequest request(BlockOperation operation, uint64_t offset, std::span<char> data) {
    BlockRequest made{
        .operation = operation, .offset = offset, .length = data.size(), .iovecs = {}, .tag = 5};
    // In two parts.
    const size_t half = data.size() / 2;
    made.iovecs = {{data.data(), half}, {data.data() + half, data.size() - half}};
    return made;
  }

  UniqueFd file;
  std::unique_ptr<BlockBackend> backend;
};

TEST_P(BlockBackendTest, WritesAndReads) {
  std::string out(8192, 'x');
  auto write = request(BlockOperation::kWrite, 4096, out);
  EXPECT_EQ(perform(write), 0);
  BlockRequest flush{.operation = BlockOperation::kFlush, .offset = 0, .length = 0, .iovecs = {}, .tag = 5};
  EXPECT_EQ(perform(flush), 0);
  std::string back(8192, ' ');
  auto read = request(BlockOperation::kRead, 4096, back);
  EXPECT_EQ(perform(read), 0);
  EXPECT_EQ(back, out);
}

TEST_P(BlockBackendTest, AFileThatEndsInTheMiddleOfASectorHasThatSector) {
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  const std::string bytes(1300, 'x');
  ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), 1300);
  std::string back(1536, 'n');
  auto read = request(BlockOperation::kRead, 0, back);
  EXPECT_EQ(perform(read), 0);
  EXPECT_EQ(back, bytes + std::string(236, '\0'));
  std::string beyond(1024, 'n');
  auto more = request(BlockOperation::kRead, 1024, beyond);
  EXPECT_EQ(perform(more), EIO) << "no such sector";
  std::string last(512, 'y');
  auto write = request(BlockOperation::kWrite, 1024, last);
  EXPECT_EQ(perform(write), 0);
  struct stat status {};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_EQ(status.st_size, 1536);
  auto again = request(BlockOperation::kRead, 0, back);
  EXPECT_EQ(perform(again), 0);
  EXPECT_EQ(back, std::string(1024, 'x') + last);
}

TEST_P(BlockBackendTest, DurableRequestsAreDoneAsOthers) {
  std::string out(8192, 'x');
  auto write = request(BlockOperation::kWrite, 4096, out);
  write.durable = true;
  EXPECT_EQ(perform(write), 0);
  BlockRequest zero{.operation = BlockOperation::kZeroAndFree,
                    .offset = 4096,
                    .length = 4096,
                    .iovecs = {},
                    .tag = 5,
                    .durable = true};
  const int result = perform(zero);
  if (result == EOPNOTSUPP) GTEST_SKIP() << "the file system cannot make holes";
  EXPECT_EQ(result, 0);
  std::string back(8192, ' ');
  auto read = request(BlockOperation::kRead, 4096, back);
  EXPECT_EQ(perform(read), 0);
  EXPECT_EQ(back, std::string(4096, '\0') + std::string(4096, 'x'));
}

TEST_P(BlockBackendTest, ZeroesAndFrees) {
  std::string out(65536, 'x');
  auto write = request(BlockOperation::kWrite, 0, out);
  ASSERT_EQ(perform(write), 0);
  BlockRequest zero{
      .operation = BlockOperation::kZeroAndFree, .offset = 4096, .length = 8192, .iovecs = {}, .tag = 5};
  const int error = perform(zero);
  if (error == EOPNOTSUPP) GTEST_SKIP() << "this file system punches no holes";
  EXPECT_EQ(error, 0);
  std::string back(16384, ' ');
  auto read = request(BlockOperation::kRead, 0, back);
  ASSERT_EQ(perform(read), 0);
  EXPECT_EQ(back, std::string(4096, 'x') + std::string(8192, '\0') + std::string(4096, 'x'));
}

TEST_P(BlockBackendTest, AFileThatHasBecomeShorterIsAnError) {
  ASSERT_EQ(::ftruncate(file.get(), 6000), 0);
  std::string back(4096, ' ');
  auto read = request(BlockOperation::kRead, 4096, back);
  EXPECT_EQ(perform(read), EIO);
}

TEST_P(BlockBackendTest, EndsWithRequestsUnderWay) {
  std::string out(1 << 16, 'y');
  std::vector<BlockRequest> requests;
  requests.reserve(16);
  for (uint64_t i = 0; i < 16; ++i) {
    requests.push_back(request(BlockOperation::kWrite, i << 16, out));
    EXPECT_TRUE(backend->submit(requests.back()));
  }
  backend->kick();
  backend.reset();
  std::string back(1 << 16, ' ');
  EXPECT_EQ(::pread(file.get(), back.data(), back.size(), 15 << 16), 1 << 16);
  EXPECT_EQ(back, out);
}

constexpr std::array kBackendNames{"Uring", "Threads", "Memory"};

INSTANTIATE_TEST_SUITE_P(, BlockBackendTest,
                         testing::Values(&make_uring_backend, &make_backend_of_threads,
                                         &make_backend_of_memory),
                         [](const auto& test) { return kBackendNames.at(test.index); });

// --- the overlay ---------------------------------------------------------------------------------------

// --- the ring ---------------------------------------------------------------------------------------

class RestrictedRing : public testing::Test {
 protected:
  void SetUp() override {
    if (::io_uring_queue_init(8, &ring, IORING_SETUP_R_DISABLED) < 0) GTEST_SKIP() << "no io_uring here";
    there = true;
    std::string path = testing::TempDir() + "/snug-ring-XXXXXX";
    file = UniqueFd(::mkstemp(path.data()));
    ASSERT_TRUE(file);
    ::unlink(path.c_str());
    const int fd = file.get();
    ASSERT_EQ(::io_uring_register_files(&ring, &fd, 1), 0);
    ASSERT_EQ(restrict_ring(ring), 0);
  }
  void TearDown() override {
    if (there) ::io_uring_queue_exit(&ring);
  }
  int perform(const std::function<void(io_uring_sqe*)>& prepare) {
    prepare(::io_uring_get_sqe(&ring));
    ::io_uring_submit(&ring);
    io_uring_cqe* done = nullptr;
    EXPECT_EQ(::io_uring_wait_cqe(&ring, &done), 0);
    const int result = done->res;
    ::io_uring_cqe_seen(&ring, done);
    return result;
  }

  io_uring ring{};
  bool there = false;
  UniqueFd file;
  std::array<char, 5> bytes{'h', 'e', 'l', 'l', 'o'};
  iovec part{bytes.data(), bytes.size()};
};

TEST_F(RestrictedRing, WorksOnItsFiles) {
  const auto fixed = [](io_uring_sqe* entry) { entry->flags |= IOSQE_FIXED_FILE; };
  EXPECT_EQ(perform([&](auto* entry) { ::io_uring_prep_writev(entry, 0, &part, 1, 0), fixed(entry); }), 5);
  bytes.fill(0);
  EXPECT_EQ(perform([&](auto* entry) { ::io_uring_prep_readv(entry, 0, &part, 1, 0), fixed(entry); }), 5);
  EXPECT_EQ(bytes[0], 'h');
  EXPECT_EQ(perform([&](auto* entry) { ::io_uring_prep_fsync(entry, 0, 0), fixed(entry); }), 0);
  const int fallocated =
      perform([&](auto* entry) { ::io_uring_prep_fallocate(entry, 0, 0, 0, 4096), fixed(entry); });
  EXPECT_TRUE(fallocated == 0 || fallocated == -EOPNOTSUPP) << fallocated;
  EXPECT_EQ(perform([&](auto* entry) { ::io_uring_prep_readv(entry, 1, &part, 1, 0), fixed(entry); }),
            -EBADF);
}

TEST_F(RestrictedRing, DoesNothingElse) {
  EXPECT_EQ(perform([](auto* entry) { ::io_uring_prep_openat(entry, AT_FDCWD, "/etc/passwd", O_RDONLY, 0); }),
            -EACCES);
  EXPECT_EQ(perform([](auto* entry) {
              ::io_uring_prep_openat(entry, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
              entry->flags |= IOSQE_FIXED_FILE;
            }),
            -EACCES);
  EXPECT_EQ(perform([](auto* entry) { ::io_uring_prep_socket(entry, AF_INET, SOCK_STREAM, 0, 0); }), -EACCES);
  EXPECT_EQ(perform([](auto* entry) { ::io_uring_prep_nop(entry); }), -EACCES);
  EXPECT_EQ(perform([](auto* entry) { ::io_uring_prep_close(entry, 0); }), -EACCES);
  // Another descriptor of the process.
  EXPECT_EQ(perform([&](auto* entry) { ::io_uring_prep_readv(entry, file.get(), &part, 1, 0); }), -EACCES);
  EXPECT_EQ(perform([&](auto* entry) {
              ::io_uring_prep_readv(entry, 0, &part, 1, 0);
              entry->flags |= IOSQE_FIXED_FILE | IOSQE_ASYNC;
            }),
            -EACCES);
}

TEST_F(RestrictedRing, TakesNoMoreFiles) {
  const int fd = file.get();
  EXPECT_EQ(::io_uring_register_files_update(&ring, 0, &fd, 1), -EACCES);
  EXPECT_EQ(::io_uring_register_buffers(&ring, &part, 1), -EACCES);
  EXPECT_EQ(::io_uring_register_personality(&ring), -EACCES);
  EXPECT_EQ(::io_uring_unregister_files(&ring), -EACCES);
}

// --- overlays ---------------------------------------------------------------------------------------

TEST(SectorMap, RunsAcrossWords) {
  auto made = SectorMap::create(1000);
  ASSERT_TRUE(made);
  SectorMap& map = *made;
  EXPECT_EQ(map.run(0, 1000), 1000u);
  map.set(60, 10);
  EXPECT_FALSE(map.has(59));
  EXPECT_TRUE(map.has(60));
  EXPECT_TRUE(map.has(69));
  EXPECT_FALSE(map.has(70));
  EXPECT_EQ(map.run(0, 1000), 60u);
  EXPECT_EQ(map.run(60, 1000), 10u);
  EXPECT_EQ(map.run(60, 3), 3u);
  EXPECT_EQ(map.run(70, 900), 900u);
  map.set(0, 1000);
  EXPECT_EQ(map.run(0, 1000), 1000u);
  EXPECT_EQ(map.run(999, 1), 1u);
}

// For another process that has the same overlay: 64 GiB, of which little is told.
TEST(SectorMap, IsToldAndReadAgain) {
  constexpr uint64_t kSectors = (uint64_t{64} << 30) / 512;
  auto map = SectorMap::create(kSectors);
  ASSERT_TRUE(map);
  for (const uint64_t at : {uint64_t{0}, uint64_t{77}, uint64_t{1} << 20, kSectors - 3}) map->set(at, 3);
  StateWriter writer;
  save_map(*map, writer.section("map", 1));
  const auto told = writer.finish();
  EXPECT_LT(told.size(), size_t{16} << 10);
  const auto read = [](std::vector<std::byte> bytes, SectorMap& into) {
    auto state = StateReader::parse(std::move(bytes));
    if (!state) return false;
    auto section = state->section("map", 1);
    restore_map(into, *section);
    return section->finish().has_value();
  };
  auto again = SectorMap::create(kSectors);
  ASSERT_TRUE(again && read(told, *again));
  EXPECT_TRUE(std::ranges::equal(map->bits(), again->bits()));
  // Of another disk; and pieces where there are none.
  auto smaller = SectorMap::create(kSectors / 2);
  ASSERT_TRUE(smaller);
  EXPECT_FALSE(read(told, *smaller));
  StateWriter wrong;
  SectionWriter& out = wrong.section("map", 1);
  out.number(uint64_t{smaller->bits().size()});
  out.number(uint64_t{1});
  out.number(~uint64_t{0});
  EXPECT_FALSE(read(wrong.finish(), *smaller));
}

class OverlayTest : public testing::TestWithParam<Maker> {
 protected:
  static constexpr size_t kSize = 256 * 512;

  void SetUp() override {
    base = file_of(std::string(kSize, 'b'));
    over = file_of(std::string(kSize, '\0'));
    auto map = SectorMap::create(kSize / 512);
    ASSERT_TRUE(map);
    written = std::move(*map);
    auto inner = GetParam()({{.fd = base.get()}, {.fd = over.get()}});
    if (!inner) GTEST_SKIP() << inner.error().text();
    backend = make_overlay_backend(std::move(*inner), written);
  }
  static UniqueFd file_of(const std::string& content) {
    std::string path = testing::TempDir() + "/snug-disk-XXXXXX";
    UniqueFd fd(::mkstemp(path.data()));
    ::unlink(path.c_str());
    EXPECT_EQ(::pwrite(fd.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
    return fd;
  }
  static std::string content(int fd) {
    std::string all(kSize, ' ');
    EXPECT_EQ(::pread(fd, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    return all;
  }
  // All of them under way at once; their errors in order.
  std::vector<int> perform(std::vector<BlockRequest>& requests) {
    std::vector<int> errors(requests.size(), -1);
    size_t left = requests.size();
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].tag = i;
      EXPECT_TRUE(backend->submit(requests[i]));
    }
    bool at_once = backend->kick();
    for (int i = 0; i < 1000 && left > 0; ++i) {
      pollfd ready{backend->event_fd(), POLLIN, 0};
      if (!at_once) ::poll(&ready, 1, 100);
      at_once = false;
      take_count(backend->event_fd());
      backend->reap([&](uint64_t tag, int error) {
        EXPECT_EQ(errors[tag], -1) << "reported twice";
        errors[tag] = error;
        --left;
      });
    }
    EXPECT_EQ(left, 0u) << "never reported";
    return errors;
  }
  int perform(BlockOperation operation, uint64_t sector, std::span<char> data) {
    std::vector<BlockRequest> one{request(operation, sector, data)};
    return perform(one).front();
  }
  // In buffers of 512 and 1536 bytes, so that parts begin inside of one.
  static BlockRequest request(BlockOperation operation, uint64_t sector, std::span<char> data) {
    BlockRequest made{.operation = operation, .offset = sector * 512, .length = data.size()};
    for (size_t at = 0, length = 512; at < data.size(); at += length, length = 2048 - length) {
      length = std::min(length, data.size() - at);
      made.iovecs.push_back({data.data() + at, length});
    }
    return made;
  }

  UniqueFd base;
  UniqueFd over;
  SectorMap written;
  std::unique_ptr<BlockBackend> backend;
};

TEST_P(OverlayTest, ReadsTheBaseUntilWritten) {
  std::string data(4096, ' ');
  EXPECT_EQ(perform(BlockOperation::kRead, 8, data), 0);
  EXPECT_EQ(data, std::string(4096, 'b'));
  std::string out(1024, 'n');
  EXPECT_EQ(perform(BlockOperation::kWrite, 10, out), 0);
  EXPECT_EQ(perform(BlockOperation::kWrite, 13, std::span(out).first(512)), 0);
  EXPECT_EQ(perform(BlockOperation::kRead, 8, data), 0);
  const std::string old(512, 'b');
  const std::string fresh(512, 'n');
  EXPECT_EQ(data, old + old + fresh + fresh + old + fresh + old + old);
  EXPECT_EQ(content(base.get()), std::string(kSize, 'b')) << "the base stays as it is";
}

TEST_P(OverlayTest, ZeroesAndDiscardsHideTheBase) {
  for (const auto operation :
       {BlockOperation::kWriteZeroes, BlockOperation::kZeroAndFree, BlockOperation::kDiscard}) {
    std::string out(2048, 'n');
    EXPECT_EQ(perform(BlockOperation::kWrite, 0, out), 0);
    std::vector<BlockRequest> one{{.operation = operation, .offset = 512, .length = 2048}};
    EXPECT_EQ(perform(one).front(), 0);
    std::string data(3072, ' ');
    EXPECT_EQ(perform(BlockOperation::kRead, 0, data), 0);
    EXPECT_EQ(data, std::string(512, 'n') + std::string(2048, '\0') + std::string(512, 'b'));
  }
  EXPECT_EQ(content(base.get()), std::string(kSize, 'b'));
}

TEST_P(OverlayTest, ManyAtATimeAgreeWithAModel) {
  std::string model(kSize, 'b');
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    // Requests under way together touch different eighths of the disk.
    std::vector<BlockRequest> requests;
    std::vector<std::string> data(8);
    std::vector<std::string> expected(8);
    for (size_t i = 0; i < 8; ++i) {
      const uint64_t first = i * 32 + random() % 16;
      const size_t length = (1 + random() % 16) * 512;
      if (random() % 2 == 0) {
        data[i] = std::string(length, static_cast<char>('c' + random() % 20));
        model.replace(first * 512, length, data[i]);
        requests.push_back(request(BlockOperation::kWrite, first, data[i]));
      } else {
        data[i] = std::string(length, ' ');
        expected[i] = model.substr(first * 512, length);
        requests.push_back(request(BlockOperation::kRead, first, data[i]));
      }
    }
    for (const int error : perform(requests)) EXPECT_EQ(error, 0);
    for (size_t i = 0; i < 8; ++i)
      if (!expected[i].empty()) {
        EXPECT_EQ(data[i], expected[i]);
      }
  }
  EXPECT_EQ(content(base.get()), std::string(kSize, 'b'));
}

TEST_P(OverlayTest, AFailedWriteLeavesTheBaseInSight) {
  std::string out(512, 'n');
  // A backend that can only read its second file.
  UniqueFd reader(::open(fmt::format("/proc/self/fd/{}", over.get()).c_str(), O_RDONLY));
  auto inner = GetParam()({{.fd = base.get()}, {.fd = reader.get()}});
  ASSERT_TRUE(inner);
  backend = make_overlay_backend(std::move(*inner), written);
  EXPECT_NE(perform(BlockOperation::kWrite, 3, out), 0);
  EXPECT_FALSE(written.has(3));
}

INSTANTIATE_TEST_SUITE_P(, OverlayTest,
                         testing::Values(&make_uring_backend, &make_backend_of_threads,
                                         &make_backend_of_memory),
                         [](const auto& test) { return kBackendNames.at(test.index); });

// --- direct I/O ----------------------------------------------------------------------------------------

TEST(BlockTransfer, GoesDirectOnlyWhenAllOfItIsAligned) {
  const BlockFile file{.fd = 3, .direct_fd = 4, .alignment = 4096};
  auto* page = reinterpret_cast<void*>(uintptr_t{0x10000});
  auto* odd = reinterpret_cast<void*>(uintptr_t{0x10200});
  BlockRequest request{.operation = BlockOperation::kRead, .offset = 8192, .iovecs = {{page, 4096}}};
  EXPECT_EQ(transfer_fd(file, request), 4);
  request.offset = 512;
  EXPECT_EQ(transfer_fd(file, request), 3);
  request.offset = 8192;
  request.iovecs.push_back({page, 512});
  EXPECT_EQ(transfer_fd(file, request), 3);
  request.iovecs.back() = {odd, 4096};
  EXPECT_EQ(transfer_fd(file, request), 3);
  request.iovecs.back() = {page, 4096};
  EXPECT_EQ(transfer_fd({.fd = 3}, request), 3);
}

}  // namespace
}  // namespace snug::test
