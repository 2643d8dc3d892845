// A guest that goes on with another server: what it knows and has open, on a host where things have changed.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <random>

#include "tests/unit/shares/fixture.h"
#include "tests/unit/shares/service_fixture.h"

namespace snug::test {
namespace {

using testing::HasSubstr;

class ShareState : public ::testing::Test {
 protected:
  ShareState() {
    Scratch::write(scratch.shared("file"), "of the host");
    EXPECT_EQ(::mkdir(scratch.shared("folder").c_str(), 0755), 0);
    EXPECT_EQ(::mkdir(scratch.shared("folder/below").c_str(), 0755), 0);
    Scratch::write(scratch.shared("folder/below/deep"), "far down");
    begin();
    EXPECT_TRUE(driver->init());
  }
  void begin() {
    session = share(scratch.shared(), options);
    driver = std::make_unique<Driver>(*session);
  }
  std::vector<std::byte> save() {
    StateWriter state;
    EXPECT_EQ(session->save(state.section("session", 1)), "");
    return state.finish();
  }
  std::string why_not() {
    StateWriter state;
    return session->save(state.section("session", 1));
  }
  // "" or what is wrong with it.
  std::string restore(std::vector<std::byte> bytes) {
    auto state = StateReader::parse(std::move(bytes));
    if (!state) return state.error().text();
    auto in = state->section("session", 1);
    if (!in) return in.error().text();
    session->restore(*in);
    const auto done = in->finish();
    return done ? "" : done.error().text();
  }
  // Another server. `meanwhile`: on the host.
  void go_on(const std::function<void()>& meanwhile = {}) {
    auto bytes = save();
    driver.reset();
    session.reset();
    if (meanwhile) meanwhile();
    begin();
    EXPECT_EQ(restore(std::move(bytes)), "");
  }
  std::string read(uint64_t node, uint64_t handle) { return driver->read(node, handle, 0, 100).payload; }

  Scratch scratch;
  ShareOptions options;
  std::unique_ptr<ShareSession> session;
  std::unique_ptr<Driver> driver;
};

TEST_F(ShareState, NumbersAndOpenFilesGoOn) {
  const uint64_t file = driver->node(1, "file");
  const uint64_t deep = driver->walk("folder/below/deep");
  const uint64_t folder = driver->walk("folder");
  const uint64_t reads = driver->open(file, O_RDONLY).as<fuse_open_out>().fh;
  const uint64_t writes = driver->open(deep, O_RDWR).as<fuse_open_out>().fh;
  const uint64_t lists = driver->opendir(folder).as<fuse_open_out>().fh;
  go_on();
  EXPECT_EQ(driver->node(1, "file"), file) << "the same file has the same number";
  EXPECT_EQ(driver->walk("folder/below/deep"), deep);
  EXPECT_EQ(read(file, reads), "of the host");
  EXPECT_TRUE(driver->write(deep, writes, 0, "near"));
  EXPECT_EQ(Scratch::read(scratch.shared("folder/below/deep")), "neardown");
  EXPECT_EQ(driver->write(file, reads, 0, "x").error, EBADF) << "it is open as it was";
  EXPECT_EQ(driver->list(folder, lists, false).size(), 3U);
  // New numbers are new.
  EXPECT_GT(driver->open(file, O_RDONLY).as<fuse_open_out>().fh, lists);
  Scratch::write(scratch.shared("new"), "");
  const uint64_t made = driver->node(1, "new");
  EXPECT_TRUE(made != file && made != deep && made != folder);
  EXPECT_TRUE(driver->release(file, reads));
  EXPECT_EQ(driver->release(file, reads).error, EBADF);
  // Given back as often as it was looked up: the count went along.
  driver->forget(file, 1);
  EXPECT_EQ(driver->attributes(file).size, 11U) << "looked up once more since";
  driver->forget(file, 1);
  EXPECT_EQ(driver->open(file, O_RDONLY).error, ESTALE);
}

// Another machine that goes on from the same state has written meanwhile.
TEST_F(ShareState, WhatIsOpenForAppendingAppends) {
  const uint64_t file = driver->node(1, "file");
  constexpr uint32_t kFlags = O_WRONLY | O_APPEND;
  const uint64_t handle = driver->open(file, kFlags).as<fuse_open_out>().fh;
  EXPECT_TRUE(driver->write(file, handle, 11, ".", 0, kFlags));
  go_on([this] { Scratch::write(scratch.shared("file"), "of the host, and longer"); });
  EXPECT_TRUE(driver->write(file, handle, 12, "!", 0, kFlags));
  EXPECT_EQ(Scratch::read(scratch.shared("file")), "of the host, and longer!");
}

TEST_F(ShareState, AsOftenAsOneLikes) {
  const uint64_t deep = driver->walk("folder/below/deep");
  const uint64_t handle = driver->open(deep, O_RDWR).as<fuse_open_out>().fh;
  for (int round = 0; round < 5; ++round) {
    go_on();
    ASSERT_EQ(read(deep, handle), "far down");
    ASSERT_EQ(driver->walk("folder/below/deep"), deep);
  }
}

TEST_F(ShareState, TheOneThatWasSavedGoesOnToo) {
  const uint64_t file = driver->node(1, "file");
  (void)save();
  EXPECT_EQ(driver->content(file), "of the host");
}

TEST_F(ShareState, WhatIsGoneOrAnotherFileIsSaid) {
  const uint64_t file = driver->node(1, "file");
  const uint64_t deep = driver->walk("folder/below/deep");
  const uint64_t below = driver->walk("folder/below");
  const uint64_t other = driver->open(file, O_RDONLY).as<fuse_open_out>().fh;
  const uint64_t gone = driver->open(deep, O_RDONLY).as<fuse_open_out>().fh;
  go_on([this] {
    // As an editor saves.
    Scratch::write(scratch.shared("file.new"), "another one");
    EXPECT_EQ(::rename(scratch.shared("file.new").c_str(), scratch.shared("file").c_str()), 0);
    EXPECT_EQ(::unlink(scratch.shared("folder/below/deep").c_str()), 0);
  });
  EXPECT_EQ(driver->read(file, other, 0, 10).error, EBADF) << "it was open, and is another file";
  EXPECT_EQ(driver->open(file, O_RDONLY).error, ESTALE) << "the guest may have pages of the one before";
  const uint64_t now = driver->node(1, "file");
  EXPECT_NE(now, file);
  EXPECT_EQ(driver->content(now), "another one") << "the name leads to it";
  EXPECT_EQ(driver->read(deep, gone, 0, 10).error, EBADF);
  EXPECT_EQ(driver->open(deep, O_RDONLY).error, ESTALE);
  EXPECT_EQ(driver->lookup(below, "deep").error, ENOENT);
  driver->forget(deep, 1);
  EXPECT_EQ(driver->open(deep, O_RDONLY).error, ESTALE);
  EXPECT_TRUE(driver->create(below, "deep", 0644)) << "the folder is there";
}

TEST_F(ShareState, AnotherKindOfFileIsNotTheOne) {
  const uint64_t file = driver->node(1, "file");
  go_on([this] {
    EXPECT_EQ(::unlink(scratch.shared("file").c_str()), 0);
    EXPECT_EQ(::symlink("/etc/passwd", scratch.shared("file").c_str()), 0);
  });
  EXPECT_EQ(driver->open(file, O_RDONLY).error, ESTALE);
}

TEST_F(ShareState, WithFewDescriptors) {
  options.descriptors = 64;
  begin();
  ASSERT_TRUE(driver->init());
  std::vector<uint64_t> nodes;
  for (int i = 0; i < 200; ++i) {
    const std::string name = fmt::format("many{}", i);
    Scratch::write(scratch.shared(name), name);
    nodes.push_back(driver->node(1, name));
  }
  go_on();
  for (size_t i = 0; i < nodes.size(); ++i) ASSERT_EQ(driver->content(nodes[i]), fmt::format("many{}", i));
}

TEST_F(ShareState, ASingleFileIsShared) {
  session = share(scratch.shared("file"), {.file_name = "file"});
  driver = std::make_unique<Driver>(*session);
  ASSERT_TRUE(driver->init());
  const uint64_t file = driver->node(1, "file");
  const uint64_t handle = driver->open(file, O_RDONLY).as<fuse_open_out>().fh;
  auto bytes = save();
  session = share(scratch.shared("file"), {.file_name = "file"});
  driver = std::make_unique<Driver>(*session);
  ASSERT_EQ(restore(std::move(bytes)), "");
  EXPECT_EQ(read(file, handle), "of the host");
}

TEST_F(ShareState, AReadOnlyShareStaysOne) {
  const uint64_t file = driver->node(1, "file");
  const uint64_t handle = driver->open(file, O_RDWR).as<fuse_open_out>().fh;
  options.readonly = true;
  go_on();
  EXPECT_EQ(driver->write(file, handle, 0, "x").error, EROFS);
  EXPECT_EQ(driver->read(file, handle, 0, 10).error, EBADF) << "it was open for writing";
}

TEST_F(ShareState, LocksAreNotTakenAlong) {
  const uint64_t file = driver->node(1, "file");
  const uint64_t handle = driver->open(file, O_RDWR).as<fuse_open_out>().fh;
  const auto lock = [&](uint32_t type, uint32_t flags) {
    return driver->call(FUSE_SETLK, file,
                        bytes_of(fuse_lk_in{.fh = handle,
                                            .owner = 1,
                                            .lk = {.start = 0, .end = INT64_MAX, .type = type, .pid = 1},
                                            .lk_flags = flags}));
  };
  for (const uint32_t flags : {0U, uint32_t{FUSE_LK_FLOCK}}) {
    ASSERT_EQ(lock(F_WRLCK, flags).error, 0);
    EXPECT_THAT(why_not(), HasSubstr("locked"));
    ASSERT_EQ(lock(F_UNLCK, flags).error, 0);
    EXPECT_EQ(why_not(), "");
  }
}

TEST_F(ShareState, BeforeTheGuestHasSaidHello) {
  begin();
  go_on();
  EXPECT_EQ(driver->lookup(1, "file").error, EIO);
  EXPECT_TRUE(driver->init());
  EXPECT_EQ(driver->content(driver->node(1, "file")), "of the host");
}

// A state may be anybody's work: nothing outside of the share is reached, and nothing breaks.
TEST_F(ShareState, HostileStates) {
  Scratch::write(scratch.path("secret"), "outside");
  const uint64_t deep = driver->walk("folder/below/deep");
  const uint64_t handle = driver->open(deep, O_RDWR).as<fuse_open_out>().fh;
  (void)driver->node(1, "file");
  StateWriter writer;
  ASSERT_EQ(session->save(writer.section("session", 1)), "");
  const auto whole = writer.finish();
  // Behind the head and the section's: 28 and 8 + 7 bytes.
  constexpr size_t kBody = 28 + 15;
  const std::vector<std::byte> content(whole.begin() + kBody, whole.end() - 4);
  std::mt19937 chance(1);
  for (int round = 0; round < 1000; ++round) {
    auto changed = content;
    for (unsigned i = 0; i <= chance() % 4; ++i)
      changed[chance() % changed.size()] =
          static_cast<std::byte>(chance() % 3 == 0 ? chance() : chance() % 4);
    if (chance() % 8 == 0) changed.resize(chance() % changed.size());
    begin();
    SectionReader in("session", 1, changed);
    session->restore(in);
    const auto done = in.finish();
    // Whatever it was, requests are answered, and afterwards a new driver's.
    (void)driver->read(deep, handle, 0, 10);
    (void)driver->lookup(1, "file");
    for (const Listed& entry : driver->list(1, handle, true)) EXPECT_NE(entry.name, "secret");
    driver->forget(deep, 1);
    ASSERT_TRUE(driver->init());
    ASSERT_EQ(driver->content(driver->node(1, "file")), "of the host");
  }
  for (const char* name : {"..", ".", "../secret", "/etc/passwd", ""}) {
    StateWriter made;
    SectionWriter& out = made.section("session", 1);
    out.flag(true);
    out.number(uint32_t{38});
    out.number(uint64_t{0});
    out.number(uint64_t{10});
    out.number(uint32_t{1});
    const uint64_t id = uint64_t{2} << 20 | 2;
    for (const uint64_t number : {id, uint64_t{1}, uint64_t{1}}) out.number(number);
    out.text(name);
    for (int i = 0; i < 3; ++i) out.number(uint64_t{0});
    out.number(uint32_t{S_IFREG});
    out.flag(false);
    out.number(uint64_t{0});
    out.number(uint32_t{0});
    begin();
    ASSERT_EQ(restore(made.finish()), "") << name;
    EXPECT_EQ(driver->open(id, O_RDONLY).error, ESTALE) << name;
  }
}

// --- device and server ------------------------------------------------------------------------------------

using ShareServiceState = ShareServiceTest;

TEST_F(ShareServiceState, ADeviceIsSavedAndGoesOnElsewhere) {
  serve();
  make_device();
  start();
  begin_session();
  offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{});
  ASSERT_TRUE(answered(2));
  // It settles, by way of its server.
  ASSERT_FALSE(device->settle());
  ASSERT_TRUE(device_hears([&] { return device->settle(); }));
  EXPECT_EQ(device->unsaveable(), "");
  // What is asked for now waits.
  offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(requests.used_index(), 2);
  StateWriter state;
  device->save(state.section("device", 1));
  // The one that was saved goes on.
  device->wake();
  ASSERT_TRUE(answered(3));
  // And another one, where the first stood: the ring as it was, and the request that had waited.
  device.reset();
  ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 2));
  make_device();
  auto read = *StateReader::parse(state.finish());
  auto in = *read.section("device", 1);
  device->go_on(*host, kVirtioIndirect, in);
  ASSERT_TRUE(in.finish());
  ASSERT_TRUE(answered(3));
  EXPECT_EQ(head_of_answer().error, 0) << "the session is one that has begun";
  EXPECT_TRUE(S_ISDIR(answer<fuse_attr_out>().attr.mode));
  offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{});
  ASSERT_TRUE(answered(4));
  EXPECT_FALSE(has_failed) << failure;
}

TEST_F(ShareServiceState, WhetherItIsMountedIsTold) {
  serve();
  make_device();
  start();
  ASSERT_TRUE(device_hears([&] { return device->settle(); }));
  EXPECT_FALSE(device->mounted());
  device->wake();
  begin_session();
  ASSERT_TRUE(device_hears([&] { return device->settle(); }));
  EXPECT_TRUE(device->mounted());
  device->wake();
  // It has no arguments.
  constexpr uint64_t kAt = kRequests + 0x10000;
  fuse_in_header head{};
  head.len = sizeof head;
  head.opcode = FUSE_DESTROY;
  ASSERT_TRUE(memory.store(kAt, head));
  requests.chain(2, {{kAt, head.len, false}, {kAt + 0x8000, 0x1000, true}});
  requests.offer(2);
  host->kick(1);
  ASSERT_TRUE(answered(2));
  ASSERT_EQ(head_of_answer(1).error, 0);
  ASSERT_TRUE(device_hears([&] { return device->settle(); }));
  EXPECT_FALSE(device->mounted()) << "what it knew it has given back";
  EXPECT_FALSE(has_failed) << failure;
}

TEST_F(ShareServiceState, AStateThatIsNoneEndsTheServerInWords) {
  serve();
  make_device();
  StateWriter state;
  SectionWriter& out = state.section("device", 1);
  out.text("this is no state");
  auto read = *StateReader::parse(state.finish());
  auto in = *read.section("device", 1);
  device->go_on(*host, kVirtioIndirect, in);
  ASSERT_TRUE(eventually([&] { return has_failed.load(); }));
  EXPECT_NE(failure, "");
}

}  // namespace
}  // namespace snug::test
