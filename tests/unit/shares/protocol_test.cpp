// Requests as such: what is no request, what comes too early, answers there is no room for.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "tests/unit/shares/driver.h"

namespace snug::test {
namespace {

class Protocol : public ::testing::Test {
 protected:
  Protocol() { begin({}); }
  void begin(ShareOptions options) {
    session_ = share(scratch_.shared(), std::move(options));
    driver_ = std::make_unique<Driver>(*session_);
  }
  static std::string header(uint32_t opcode, uint32_t length, uint64_t node = 1) {
    fuse_in_header header{};
    header.len = length;
    header.opcode = opcode;
    header.unique = 77;
    header.nodeid = node;
    return bytes_of(header);
  }
  fuse_init_out init(uint64_t flags = ~uint64_t{0}, uint32_t minor = 38) {
    const Answer answer = driver_->init(flags, minor);
    EXPECT_TRUE(answer) << answer.error;
    EXPECT_EQ(answer.payload.size(), sizeof(fuse_init_out));
    return answer.as<fuse_init_out>();
  }
  static uint64_t flags_of(const fuse_init_out& out) { return out.flags | uint64_t{out.flags2} << 32; }

  Scratch scratch_;
  std::unique_ptr<ShareSession> session_;
  std::unique_ptr<Driver> driver_;
};

TEST_F(Protocol, NothingIsServedBeforeInit) {
  for (uint32_t opcode = 0; opcode < 60; ++opcode) {
    if (opcode == FUSE_INIT) continue;
    const Answer answer = driver_->call(opcode, 1, std::string(16, '\0'));
    EXPECT_FALSE(answer && opcode != FUSE_DESTROY) << opcode;
    EXPECT_LE(answer.written, sizeof(fuse_out_header)) << opcode;
  }
  EXPECT_EQ(driver_->lookup(1, "x").error, EIO);
  EXPECT_TRUE(driver_->call(FUSE_DESTROY, 0));
}

TEST_F(Protocol, InitAgreesOnWhatBothKnow) {
  const auto out = init();
  EXPECT_EQ(out.major, 7u);
  EXPECT_EQ(out.minor, 38u);
  EXPECT_EQ(out.max_write, 1u << 20);
  EXPECT_EQ(out.max_pages, 256u);
  EXPECT_EQ(out.time_gran, 1u);
  EXPECT_EQ(out.max_readahead, 128u << 10);
  const uint64_t flags = flags_of(out);
  for (const uint64_t flag :
       {uint64_t{FUSE_ASYNC_READ}, uint64_t{FUSE_POSIX_LOCKS}, uint64_t{FUSE_FLOCK_LOCKS},
        uint64_t{FUSE_ATOMIC_O_TRUNC}, uint64_t{FUSE_DO_READDIRPLUS}, uint64_t{FUSE_READDIRPLUS_AUTO},
        uint64_t{FUSE_PARALLEL_DIROPS}, uint64_t{FUSE_AUTO_INVAL_DATA}, uint64_t{FUSE_HANDLE_KILLPRIV_V2},
        uint64_t{FUSE_MAX_PAGES}, uint64_t{FUSE_SETXATTR_EXT}, uint64_t{FUSE_INIT_EXT},
        uint64_t{FUSE_POSIX_ACL}, uint64_t{FUSE_DONT_MASK}})
    EXPECT_TRUE((flags & flag) != 0) << std::hex << flag;
  for (const uint64_t flag :
       {uint64_t{FUSE_WRITEBACK_CACHE}, uint64_t{FUSE_SUBMOUNTS}, uint64_t{FUSE_EXPORT_SUPPORT},
        uint64_t{FUSE_EXPLICIT_INVAL_DATA}, uint64_t{FUSE_MAP_ALIGNMENT}})
    EXPECT_TRUE((flags & flag) == 0) << std::hex << flag;
  EXPECT_EQ(flags_of(init(FUSE_ASYNC_READ)), uint64_t{FUSE_ASYNC_READ}) << "nothing that was not offered";
  for (const uint64_t flag : {uint64_t{FUSE_POSIX_ACL}, uint64_t{FUSE_DONT_MASK}})
    EXPECT_EQ(flags_of(init(flag)), 0u) << "neither without the other";
}

TEST_F(Protocol, FlagsFollowTheCache) {
  begin({.cache = ShareCache::kAlways});
  EXPECT_EQ(flags_of(init()) & (FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA), uint64_t{FUSE_WRITEBACK_CACHE});
  begin({.readonly = true, .cache = ShareCache::kAlways});
  EXPECT_EQ(flags_of(init()) & FUSE_WRITEBACK_CACHE, 0u);
  begin({.cache = ShareCache::kNone});
  EXPECT_EQ(flags_of(init()) & (FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA | fuse::kDirectIoAllowMmap),
            fuse::kDirectIoAllowMmap);
  begin({.submounts = true});
  EXPECT_NE(flags_of(init()) & FUSE_SUBMOUNTS, 0u);
}

TEST_F(Protocol, TimeoutsFollowTheCache) {
  Scratch::write(scratch_.shared("file"), "x");
  const auto opened_with = [this](ShareOptions options) {
    begin(std::move(options));
    init();
    const auto entry = driver_->lookup(1, "file").as<fuse_entry_out>();
    EXPECT_EQ(entry.entry_valid, entry.attr_valid);
    const auto flags = driver_->open(entry.nodeid, O_RDONLY).as<fuse_open_out>().open_flags;
    return std::pair(entry.entry_valid, flags);
  };
  const auto missing_for = [this] {
    const Answer none = driver_->call(FUSE_LOOKUP, 1, text_of("none"));
    EXPECT_EQ(none.as<fuse_entry_out>().nodeid, 0u);
    return std::pair(none.as<fuse_entry_out>().entry_valid, none.as<fuse_entry_out>().entry_valid_nsec);
  };
  EXPECT_EQ(opened_with({}), std::pair(uint64_t{1}, uint32_t{FOPEN_NOFLUSH}));
  EXPECT_EQ(missing_for(), std::pair(uint64_t{0}, uint32_t{100'000'000}));
  EXPECT_EQ(opened_with({.cache = ShareCache::kAlways}),
            std::pair(uint64_t{86'400}, uint32_t{FOPEN_KEEP_CACHE | FOPEN_NOFLUSH}));
  EXPECT_EQ(driver_->opendir(1).as<fuse_open_out>().open_flags, uint32_t{FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR});
  EXPECT_EQ(missing_for(), std::pair(uint64_t{86'400}, uint32_t{0}));
  EXPECT_EQ(opened_with({.cache = ShareCache::kNone}),
            std::pair(uint64_t{0}, uint32_t{FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH}));
  EXPECT_EQ(driver_->call(FUSE_LOOKUP, 1, text_of("none")).error, ENOENT) << "asked for each time";
}

TEST_F(Protocol, ClosingIsToldWhereThereMayBeLocks) {
  Scratch::write(scratch_.shared("file"), "x");
  init();
  uint64_t node = driver_->node(1, "file");
  const auto is_told = [&](uint32_t access) {
    return (driver_->open(node, access).as<fuse_open_out>().open_flags & FOPEN_NOFLUSH) == 0;
  };
  EXPECT_FALSE(is_told(O_RDONLY));
  EXPECT_TRUE(is_told(O_WRONLY));
  EXPECT_TRUE(is_told(O_RDWR));
  fuse_lk_in in{};
  in.fh = driver_->open(node, O_RDONLY).as<fuse_open_out>().fh;
  in.lk = {.start = 0, .end = 0, .type = F_RDLCK, .pid = 1};
  in.lk_flags = FUSE_LK_FLOCK;
  EXPECT_TRUE(driver_->call(FUSE_SETLK, node, bytes_of(in)));
  EXPECT_FALSE(is_told(O_RDONLY)) << "that one belongs to what is open";
  in.lk_flags = 0;
  EXPECT_TRUE(driver_->call(FUSE_SETLK, node, bytes_of(in)));
  EXPECT_TRUE(is_told(O_RDONLY));
  init();
  node = driver_->node(1, "file");
  EXPECT_FALSE(is_told(O_RDONLY));
}

TEST_F(Protocol, DataIsKeptWhileTheFileIsAsItWas) {
  Scratch::write(scratch_.shared("file"), "before");
  const timespec past[2] = {{1000, 0}, {1000, 0}};
  ::utimensat(AT_FDCWD, scratch_.shared("file").c_str(), past, 0);
  ::usleep(50'000);
  init();
  const uint64_t node = driver_->node(1, "file");
  const auto is_kept = [&] {
    return (driver_->open(node, O_RDONLY).as<fuse_open_out>().open_flags & FOPEN_KEEP_CACHE) != 0;
  };
  EXPECT_FALSE(is_kept());
  EXPECT_TRUE(is_kept());
  Scratch::write(scratch_.shared("file"), "behind");
  EXPECT_FALSE(is_kept());
  EXPECT_FALSE(is_kept()) << "a change of this very moment might not show";
  ::usleep(50'000);
  EXPECT_FALSE(is_kept());
  EXPECT_TRUE(is_kept());
}

TEST_F(Protocol, OtherVersions) {
  fuse_init_in in{};
  in.major = 6;
  EXPECT_EQ(driver_->call(FUSE_INIT, 0, bytes_of(in)).error, EPROTO);
  EXPECT_EQ(driver_->init(0, 23).error, EPROTO);
  in.major = 8;
  const auto out = driver_->call(FUSE_INIT, 0, bytes_of(in)).as<fuse_init_out>();
  EXPECT_EQ(out.major, 7u);
  EXPECT_EQ(driver_->lookup(1, "x").error, EIO) << "it has to say hello once more";
  // As Linux 5.4 does: 16 bytes.
  struct {
    uint32_t major = 7, minor = 31, readahead = 4096, flags = FUSE_ASYNC_READ;
  } const short_in;
  EXPECT_TRUE(driver_->call(FUSE_INIT, 0, bytes_of(short_in)));
  EXPECT_EQ(driver_->lookup(1, "x").error, ENOENT);
  EXPECT_EQ(driver_->init(0, 99).as<fuse_init_out>().minor, 38u);
}

TEST_F(Protocol, HeadersThatAreNone) {
  init();
  EXPECT_EQ(driver_->raw("", 100).written, 0u);
  EXPECT_EQ(driver_->raw(std::string(39, '\1'), 100).written, 0u);
  EXPECT_EQ(driver_->raw(header(FUSE_GETATTR, 0), 200).error, EINVAL);
  EXPECT_EQ(driver_->raw(header(FUSE_GETATTR, 39), 200).error, EINVAL);
  EXPECT_EQ(driver_->raw(header(FUSE_GETATTR, 41), 200).error, EINVAL) << "more than there is";
  EXPECT_EQ(driver_->raw(header(FUSE_GETATTR, UINT32_MAX), 200).error, EINVAL);
  EXPECT_EQ(driver_->raw(header(FUSE_LOOKUP, 40 + 300) + std::string(299, 'a') + '\0', 200).error,
            ENAMETOOLONG);
  EXPECT_EQ(driver_->raw(header(FUSE_LOOKUP, 40 + 5000) + std::string(4999, 'a') + '\0', 200).error, EINVAL);
  EXPECT_TRUE(driver_->raw(header(FUSE_GETATTR, 40) + "what is behind the request", 200));
}

TEST_F(Protocol, UnknownOpcodes) {
  init();
  for (const uint32_t opcode :
       {0u, 7u, 19u, uint32_t{FUSE_BMAP}, uint32_t{FUSE_POLL}, uint32_t{FUSE_NOTIFY_REPLY},
        uint32_t{FUSE_SETUPMAPPING}, uint32_t{FUSE_REMOVEMAPPING}, 60u, 4096u, UINT32_MAX})
    EXPECT_EQ(driver_->call(opcode, 1, std::string(64, '\0')).error, ENOSYS) << opcode;
  EXPECT_EQ(driver_->call(FUSE_IOCTL, 1, std::string(64, '\0')).error, ENOTTY);
}

TEST_F(Protocol, AnswersThatHaveNoRoom) {
  Scratch::write(scratch_.shared("file"), "data");
  init();
  const uint64_t node = driver_->node(1, "file");
  const std::string getattr = header(FUSE_GETATTR, 40 + 16, node) + std::string(16, '\0');
  EXPECT_EQ(driver_->raw(getattr, 0).written, 0u);
  EXPECT_EQ(driver_->raw(getattr, 15).written, 0u);
  EXPECT_EQ(driver_->raw(getattr, 16).error, EINVAL);
  EXPECT_EQ(driver_->raw(getattr, 16 + sizeof(fuse_attr_out) - 1).error, EINVAL);
  EXPECT_TRUE(driver_->raw(getattr, 16 + sizeof(fuse_attr_out)));
  EXPECT_EQ(driver_->call(FUSE_CREATE, 1, bytes_of(fuse_create_in{.flags = 2}) + text_of("new"), 100).error,
            EINVAL);
  EXPECT_EQ(Scratch::read(scratch_.shared("new")), "(none)") << "nothing is done whose answer cannot be told";
  const uint64_t handle = driver_->open(node, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(driver_->call(FUSE_READ, node, bytes_of(fuse_read_in{.fh = handle, .size = 4096}), 100).error,
            EINVAL);
  EXPECT_EQ(
      driver_->call(FUSE_READ, node, bytes_of(fuse_read_in{.fh = handle, .size = 2 << 20}), 3 << 20).error,
      EINVAL);
}

TEST_F(Protocol, EveryRequestInTooFewBytes) {
  Scratch::write(scratch_.shared("file"), "data");
  init();
  const uint64_t node = driver_->node(1, "file");
  for (uint32_t opcode = 1; opcode <= 51; ++opcode) {
    if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) continue;
    for (const size_t size : {0, 1, 3, 7, 8, 15, 16, 23, 31, 39}) {
      const Answer answer = driver_->call(opcode, node, std::string(size, '\0'), 4096);
      EXPECT_LE(answer.written, 16u + 4096u);
    }
  }
  EXPECT_TRUE(driver_->lookup(1, "file"));
  EXPECT_EQ(Scratch::read(scratch_.shared("file")), "data");
}

TEST_F(Protocol, RequestsInPieces) {
  Scratch::write(scratch_.shared("file"), std::string(5000, 'y'));
  init();
  const uint64_t node = driver_->node(1, "file");
  const uint64_t handle = driver_->open(node, O_RDONLY).as<fuse_open_out>().fh;
  const auto arguments = bytes_of(fuse_read_in{.fh = handle, .offset = 1, .size = 6000});
  const std::string request =
      header(FUSE_READ, static_cast<uint32_t>(40 + arguments.size()), node) + arguments;
  for (const size_t piece : {1, 2, 3, 5, 7, 4096})
    EXPECT_EQ(driver_->raw(request, 16 + 6000, piece).payload, std::string(4999, 'y')) << piece;
}

TEST_F(Protocol, ForgetsAndInterruptsHaveNoAnswer) {
  init();
  EXPECT_EQ(driver_->call(FUSE_FORGET, 1, bytes_of(fuse_forget_in{1})).written, 0u);
  EXPECT_EQ(driver_->call(FUSE_FORGET, 1, "").written, 0u);
  EXPECT_EQ(driver_->call(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{.count = UINT32_MAX})).written,
            0u);
  EXPECT_EQ(driver_->call(FUSE_INTERRUPT, 0, bytes_of(fuse_interrupt_in{77})).written, 0u);
}

TEST_F(Protocol, DestroyAndResetForget) {
  Scratch::write(scratch_.shared("file"), "data");
  init();
  const uint64_t node = driver_->node(1, "file");
  const uint64_t handle = driver_->open(node, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_TRUE(driver_->call(FUSE_DESTROY, 0));
  EXPECT_EQ(driver_->lookup(1, "file").error, EIO);
  init();
  EXPECT_EQ(driver_->read(node, handle, 0, 10).error, EBADF);
  EXPECT_EQ(driver_->call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).error, ESTALE);
  const uint64_t again = driver_->node(1, "file");
  EXPECT_NE(again, node);
  session_->reset();
  EXPECT_EQ(driver_->lookup(1, "file").error, EIO);
  init();
  EXPECT_EQ(driver_->open(again, O_RDONLY).error, ESTALE);
}

TEST_F(Protocol, RandomRequests) {
  Scratch::write(scratch_.shared("file"), "data");
  init();
  const uint64_t node = driver_->node(1, "file");
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string arguments(random() % 200, '\0');
    for (char& byte : arguments)
      if (random() % 4 == 0) byte = static_cast<char>(random());
    const auto opcode = static_cast<uint32_t>(random() % 54);
    if (opcode == FUSE_DESTROY || opcode == FUSE_SYNCFS) continue;
    const Answer answer = driver_->call(opcode, random() % 2 == 0 ? 1 : node, arguments, random() % 5000);
    EXPECT_FALSE(answer.later);
    if (opcode == FUSE_INIT) init();
  }
  EXPECT_TRUE(driver_->lookup(1, "file").error == 0 || driver_->lookup(1, "file").error == ENOENT);
}

TEST_F(Protocol, WhatCannotBeShared) {
  const auto attempt = [](const char* path, size_t descriptors) {
    UniqueFd root(::open(path, O_PATH | O_CLOEXEC));
    UniqueFd proc(::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return static_cast<bool>(
        ShareSession::create(std::move(root), std::move(proc), {.descriptors = descriptors}, {}));
  };
  EXPECT_TRUE(attempt(scratch_.shared().c_str(), 64));
  EXPECT_FALSE(attempt(scratch_.shared().c_str(), 63));
  EXPECT_FALSE(attempt("/dev/null", 64));
  EXPECT_FALSE(attempt("/nowhere", 64));
}

}  // namespace
}  // namespace snug::test
