// Locks: of the guest among each other and with the host's, and those that are waited for.
#include <fcntl.h>
#include <sys/file.h>

#include <map>
#include <thread>

#include "tests/unit/shares/fixture.h"
#include "vmm/shares/file_locks.h"

namespace snug::test {
namespace {

class Locks : public ::testing::Test {
 protected:
  Locks() {
    Scratch::write(scratch_.shared("file"), "data");
    session_ = share(scratch_.shared(), {.descriptors = 64},
                     [this](uint64_t ticket, uint32_t written) { answered_[ticket] = written; });
    driver_ = std::make_unique<Driver>(*session_);
    driver_->init();
    node_ = driver_->node(1, "file");
    handle_ = open();
  }
  uint64_t open(uint32_t flags = O_RDWR) { return driver_->open(node_, flags).as<fuse_open_out>().fh; }

  Answer lock(uint32_t opcode, uint64_t handle, uint64_t owner, uint32_t type, uint64_t start = 0,
              uint64_t end = INT64_MAX, uint32_t flags = 0) {
    const fuse_lk_in in{.fh = handle,
                        .owner = owner,
                        .lk = {.start = start, .end = end, .type = type, .pid = static_cast<uint32_t>(owner)},
                        .lk_flags = flags};
    return driver_->call(opcode, node_, bytes_of(in));
  }
  int set(uint64_t owner, uint32_t type, uint64_t start = 0, uint64_t end = INT64_MAX) {
    return lock(FUSE_SETLK, handle_, owner, type, start, end).error;
  }
  fuse_file_lock get(uint64_t owner, uint32_t type, uint64_t start = 0, uint64_t end = INT64_MAX) {
    return lock(FUSE_GETLK, handle_, owner, type, start, end).as<fuse_lk_out>().lk;
  }
  int flock(uint64_t handle, uint32_t type) {
    return lock(FUSE_SETLK, handle, 1, type, 0, INT64_MAX, FUSE_LK_FLOCK).error;
  }

  Scratch scratch_;
  std::map<uint64_t, uint32_t> answered_;
  std::unique_ptr<ShareSession> session_;
  std::unique_ptr<Driver> driver_;
  uint64_t node_ = 0;
  uint64_t handle_ = 0;
};

TEST_F(Locks, BelongToTheirOwners) {
  EXPECT_EQ(set(1, F_WRLCK, 0, 99), 0);
  EXPECT_EQ(set(1, F_WRLCK, 50, 149), 0) << "one's own is not in the way";
  EXPECT_EQ(set(2, F_WRLCK, 149, 200), EAGAIN);
  EXPECT_EQ(set(2, F_RDLCK, 0, 0), EAGAIN);
  EXPECT_EQ(set(2, F_WRLCK, 150, INT64_MAX), 0);
  EXPECT_EQ(set(1, F_UNLCK, 100, 149), 0);
  EXPECT_EQ(set(2, F_WRLCK, 100, 149), 0);
  EXPECT_EQ(set(3, F_UNLCK), 0) << "nothing to give back";
  EXPECT_EQ(set(1, F_UNLCK), 0);
  EXPECT_EQ(set(2, F_UNLCK), 0);
  EXPECT_EQ(set(3, F_RDLCK), 0);
  EXPECT_EQ(set(4, F_RDLCK), 0);
  EXPECT_EQ(set(5, F_WRLCK), EAGAIN);
}

TEST_F(Locks, AreTold) {
  EXPECT_EQ(get(2, F_WRLCK).type, uint32_t{F_UNLCK});
  set(1, F_RDLCK, 10, 19);
  const auto found = get(2, F_WRLCK);
  EXPECT_EQ(found.type, uint32_t{F_RDLCK});
  EXPECT_EQ(found.start, 10u);
  EXPECT_EQ(found.end, 19u);
  EXPECT_EQ(found.pid, 1u);
  EXPECT_EQ(get(2, F_RDLCK).type, uint32_t{F_UNLCK});
  EXPECT_EQ(get(1, F_WRLCK).type, uint32_t{F_UNLCK}) << "not one's own";
  set(1, F_RDLCK, 30);
  EXPECT_EQ(get(2, F_WRLCK, 25, 35).end, uint64_t{INT64_MAX});
  set(3, F_RDLCK, 15, 15);
  EXPECT_EQ(get(2, F_WRLCK).pid, 0u) << "which of two is not known";
}

TEST_F(Locks, HoldOnTheHost) {
  const UniqueFd host(::open(scratch_.shared("file").c_str(), O_RDWR | O_CLOEXEC));
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_len = 10;
  ASSERT_EQ(::fcntl(host.get(), F_OFD_SETLK, &range), 0);
  EXPECT_EQ(set(1, F_WRLCK), EAGAIN);
  EXPECT_EQ(set(1, F_WRLCK, 10), 0);
  EXPECT_EQ(get(2, F_WRLCK, 0, 5).type, uint32_t{F_WRLCK});
  range.l_start = 5;
  range.l_len = 20;
  EXPECT_NE(::fcntl(host.get(), F_OFD_SETLK, &range), 0) << "the guest has a part of it";
  EXPECT_EQ(flock(handle_, F_WRLCK), 0);
  EXPECT_NE(::flock(host.get(), LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(flock(handle_, F_UNLCK), 0);
  EXPECT_EQ(::flock(host.get(), LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(flock(handle_, F_WRLCK), EAGAIN);
  EXPECT_EQ(flock(handle_, F_RDLCK), 0);
}

TEST_F(Locks, OfWholeFilesBelongToWhatIsOpen) {
  const uint64_t other = open(O_RDONLY);
  EXPECT_EQ(flock(handle_, F_WRLCK), 0);
  EXPECT_EQ(flock(handle_, F_WRLCK), 0);
  EXPECT_EQ(flock(other, F_RDLCK), EAGAIN);
  EXPECT_EQ(set(9, F_WRLCK), 0) << "the two kinds do not see each other";
  EXPECT_TRUE(driver_->release(node_, handle_));
  EXPECT_EQ(flock(other, F_WRLCK), 0);
}

TEST_F(Locks, EndWithFlushReleaseAndReset) {
  const UniqueFd host(::open(scratch_.shared("file").c_str(), O_RDWR | O_CLOEXEC));
  const auto is_free = [&] {
    struct flock range {};
    range.l_type = F_WRLCK;
    EXPECT_EQ(::fcntl(host.get(), F_OFD_GETLK, &range), 0);
    return range.l_type == F_UNLCK;
  };
  set(1, F_WRLCK);
  EXPECT_FALSE(is_free());
  driver_->call(FUSE_FLUSH, node_, bytes_of(fuse_flush_in{.fh = handle_, .lock_owner = 2}));
  EXPECT_FALSE(is_free());
  driver_->call(FUSE_FLUSH, node_, bytes_of(fuse_flush_in{.fh = handle_, .lock_owner = 1}));
  EXPECT_TRUE(is_free());
  set(1, F_WRLCK);
  const uint64_t other = open();
  lock(FUSE_SETLK, other, 2, F_WRLCK, 0, 0);
  driver_->release(node_, other);
  EXPECT_FALSE(is_free());
  driver_->release(node_, handle_);
  EXPECT_TRUE(is_free()) << "nobody has it open";
  handle_ = open();
  set(1, F_WRLCK);
  session_->reset();
  EXPECT_TRUE(is_free());
}

// Of open file description locks Linux's driver says no more than that what was open is closed.
TEST_F(Locks, EndWithWhatTheyWereSetThrough) {
  const uint64_t other = open();
  EXPECT_EQ(lock(FUSE_SETLK, other, 7, F_WRLCK, 0, 9).error, 0);
  EXPECT_EQ(set(1, F_WRLCK, 10, 19), 0);
  EXPECT_EQ(set(2, F_WRLCK, 0, 9), EAGAIN);
  EXPECT_TRUE(driver_->release(node_, other));
  EXPECT_EQ(set(2, F_WRLCK, 0, 9), 0);
  EXPECT_EQ(set(2, F_WRLCK, 10, 19), EAGAIN) << "that of another file that is open";
}

// Nor of those that it tried for in vain: they are not to take a descriptor each, for as long as somebody has
// the file open.
TEST_F(Locks, TriedForInVainLeaveNothing) {
  ASSERT_EQ(set(1, F_WRLCK), 0);
  for (uint64_t owner = 2; owner < 100; ++owner) {
    const uint64_t other = open();
    ASSERT_EQ(lock(FUSE_SETLK, other, owner, F_WRLCK).error, EAGAIN) << owner;
    ASSERT_TRUE(driver_->release(node_, other));
  }
}

TEST_F(Locks, ThatMakeNoSense) {
  EXPECT_EQ(set(1, F_WRLCK, 10, 9), EINVAL);
  EXPECT_EQ(set(1, F_WRLCK, UINT64_MAX, UINT64_MAX), EINVAL);
  EXPECT_EQ(set(1, 77), EINVAL);
  EXPECT_EQ(set(1, F_WRLCK, 0, UINT64_MAX), 0) << "to whatever end";
  EXPECT_EQ(lock(FUSE_GETLK, handle_, 1, F_UNLCK).error, EINVAL);
  EXPECT_EQ(lock(FUSE_SETLK, 99, 1, F_WRLCK).error, EBADF);
  EXPECT_EQ(flock(handle_, 77), EINVAL);
  const uint64_t folder = driver_->opendir(1).as<fuse_open_out>().fh;
  EXPECT_EQ(driver_->call(FUSE_SETLK, 1, bytes_of(fuse_lk_in{.fh = folder})).error, EBADF);
}

TEST_F(Locks, AreLimited) {
  int error = 0;
  uint64_t owner = 1;
  for (; owner < 100 && error == 0; ++owner) error = set(owner, F_RDLCK);
  EXPECT_EQ(error, ENOLCK);
  EXPECT_LT(owner, 30u);
  EXPECT_EQ(driver_->open(node_, O_RDONLY).error, ENFILE) << "they are counted with what is open";
  set(1, F_UNLCK);
  EXPECT_TRUE(driver_->open(node_, O_RDONLY));
}

TEST_F(Locks, OfReadOnlyShares) {
  const auto readonly = share(scratch_.shared(), {.readonly = true});
  Driver guest(*readonly);
  guest.init();
  const uint64_t node = guest.node(1, "file");
  const uint64_t handle = guest.open(node, O_RDONLY).as<fuse_open_out>().fh;
  fuse_lk_in in{.fh = handle, .owner = 1, .lk = {.start = 0, .end = INT64_MAX, .type = F_RDLCK}};
  EXPECT_TRUE(guest.call(FUSE_SETLK, node, bytes_of(in)));
  in.lk.type = F_WRLCK;
  EXPECT_EQ(guest.call(FUSE_SETLK, node, bytes_of(in)).error, EBADF);
}

TEST_F(Locks, AreWaitedForWithoutAThread) {
  set(1, F_WRLCK);
  driver_->flip_ticket(10);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).later);
  driver_->flip_ticket(11);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 3, F_WRLCK, 5, 6).later);
  driver_->flip_ticket(0);
  EXPECT_TRUE(session_->poll());
  EXPECT_TRUE(answered_.empty());
  EXPECT_TRUE(driver_->lookup(1, "file")) << "nothing else waits";
  set(1, F_UNLCK);
  ASSERT_EQ(answered_.size(), 1u) << "the first, as it is given back";
  EXPECT_EQ(answered_.at(10), sizeof(fuse_out_header));
  driver_->call(FUSE_FLUSH, node_, bytes_of(fuse_flush_in{.fh = handle_, .lock_owner = 2}));
  EXPECT_EQ(answered_.at(11), sizeof(fuse_out_header));
  EXPECT_EQ(driver_->answer_at(answered_.at(11)).error, 0);
  EXPECT_FALSE(session_->poll());
  EXPECT_EQ(set(4, F_WRLCK, 5, 5), EAGAIN) << "it has it now";
}

TEST_F(Locks, OfTheHostAreWaitedForByPolling) {
  UniqueFd host(::open(scratch_.shared("file").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(host.get(), LOCK_EX), 0);
  driver_->flip_ticket(5);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 1, F_WRLCK, 0, 0, FUSE_LK_FLOCK).later);
  EXPECT_TRUE(session_->poll());
  host.reset();
  EXPECT_FALSE(session_->poll());
  EXPECT_EQ(answered_.count(5), 1u);
}

TEST_F(Locks, WaitingEndsByInterruptInitAndReset) {
  set(1, F_WRLCK);
  driver_->flip_ticket(1);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).later);
  const uint64_t unique = driver_->last_unique();
  driver_->call(FUSE_INTERRUPT, 0, bytes_of(fuse_interrupt_in{unique + 1}), 0);
  EXPECT_TRUE(answered_.empty());
  driver_->call(FUSE_INTERRUPT, 0, bytes_of(fuse_interrupt_in{unique}), 0);
  EXPECT_EQ(driver_->answer_at(answered_.at(1)).error, EINTR);
  EXPECT_FALSE(session_->poll());
  driver_->flip_ticket(2);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).later);
  driver_->call(FUSE_DESTROY, 0);
  EXPECT_EQ(answered_.count(2), 1u);
  driver_->init();
  node_ = driver_->node(1, "file");
  handle_ = open();
  set(1, F_WRLCK);
  driver_->flip_ticket(3);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).later);
  session_->reset();
  EXPECT_FALSE(session_->poll());
  EXPECT_EQ(answered_.count(3), 0u);
}

// The driver's own note of a signal, which is all that there is to see of it.
TEST_F(Locks, WaitingEndsWhenLinuxHasASignal) {
  const auto wait_for_it = [this](size_t first_buffer) {
    const fuse_lk_in in{.fh = handle_, .owner = 2, .lk = {.end = INT64_MAX, .type = F_WRLCK}};
    const fuse_in_header header{
        .len = sizeof header + sizeof in, .opcode = FUSE_SETLKW, .unique = 77, .nodeid = node_};
    return driver_->raw(bytes_of(header) + bytes_of(in), sizeof(fuse_out_header), first_buffer).later;
  };
  constexpr size_t kByItself = sizeof(fuse_in_header);
  constexpr uint64_t kSentAndWaiting = 0x109, kWithASignal = 0x129;
  const auto note = [this](uint64_t flags) {
    ASSERT_TRUE(driver_->memory().store(Driver::kRequestAt - sizeof flags, flags));
  };
  set(1, F_WRLCK);
  driver_->flip_ticket(1);
  note(kSentAndWaiting);
  ASSERT_TRUE(wait_for_it(kByItself));
  // Whatever it may mean, it is not that.
  for (const uint64_t flags : {kSentAndWaiting, uint64_t{0x29}, uint64_t{0x1129}, ~uint64_t{0}}) {
    note(flags);
    EXPECT_TRUE(session_->poll()) << flags;
  }
  EXPECT_TRUE(answered_.empty());
  note(kWithASignal);
  EXPECT_FALSE(session_->poll());
  EXPECT_EQ(driver_->answer_at(answered_.at(1)).error, EINTR);
  // Another's driver, which has something else around its headers.
  driver_->flip_ticket(2);
  ASSERT_TRUE(wait_for_it(1000));
  EXPECT_TRUE(session_->poll());
  set(1, F_UNLCK);
  EXPECT_EQ(driver_->answer_at(answered_.at(2)).error, 0);
  // A lock that can be had is had.
  set(2, F_UNLCK);
  set(1, F_WRLCK);
  driver_->flip_ticket(3);
  note(kSentAndWaiting);
  ASSERT_TRUE(wait_for_it(kByItself));
  note(kWithASignal);
  set(1, F_UNLCK);
  EXPECT_EQ(driver_->answer_at(answered_.at(3)).error, 0);
}

TEST_F(Locks, WaitingIsLimited) {
  set(1, F_WRLCK);
  size_t waiting = 0;
  Answer answer;
  for (;; ++waiting) {
    answer = lock(FUSE_SETLKW, handle_, 2, F_WRLCK);
    if (!answer.later) break;
  }
  EXPECT_EQ(answer.error, ENOLCK);
  EXPECT_EQ(waiting, 192u);
  session_->reset();
}

TEST_F(Locks, NobodyWaitsForThoseThatWaitForThem) {
  set(1, F_WRLCK, 0, 9);
  set(2, F_WRLCK, 10, 19);
  set(3, F_RDLCK, 20, 29);
  driver_->flip_ticket(1);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 1, F_WRLCK, 15, 15).later);
  driver_->flip_ticket(2);
  EXPECT_EQ(lock(FUSE_SETLKW, handle_, 2, F_WRLCK, 0, INT64_MAX).error, EDEADLK) << "each for the other";
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK, 25, 25).later);
  driver_->flip_ticket(3);
  EXPECT_EQ(lock(FUSE_SETLKW, handle_, 3, F_RDLCK, 9, 9).error, EDEADLK) << "three in a circle";
  EXPECT_EQ(set(3, F_UNLCK, 20, 24), 0);
  EXPECT_TRUE(answered_.empty());
  // What one gave back is in nobody's way.
  EXPECT_EQ(set(3, F_UNLCK, 25, 29), 0);
  EXPECT_EQ(answered_.count(2), 1u);
  EXPECT_TRUE(lock(FUSE_SETLKW, handle_, 3, F_RDLCK, 9, 9).later) << "it has nothing that anybody waits for";
}

TEST_F(Locks, ThoseOfManyPartsAreNotAllKnown) {
  constexpr uint64_t kEach = LockRanges::kMax;
  uint64_t owner = 1, at = 0;
  for (; owner <= FileLocks::kRangesMax / kEach; ++owner)
    for (uint64_t part = 0; part < kEach; ++part, at += 2) ASSERT_EQ(set(owner, F_WRLCK, at, at), 0);
  ASSERT_EQ(set(owner, F_WRLCK, at, at), 0);
  driver_->flip_ticket(1);
  EXPECT_TRUE(lock(FUSE_SETLKW, handle_, owner, F_WRLCK, 0, 0).later);
  driver_->flip_ticket(2);
  EXPECT_TRUE(lock(FUSE_SETLKW, handle_, 1, F_WRLCK, at, at).later) << "one too many";
  // What is given back makes room for others.
  EXPECT_EQ(set(2, F_UNLCK), 0);
  ASSERT_EQ(set(2, F_WRLCK, at + 2, at + 2), 0);
  ASSERT_EQ(set(3, F_UNLCK, 2 * kEach * 2 + 2, INT64_MAX), 0);
  driver_->flip_ticket(3);
  EXPECT_TRUE(lock(FUSE_SETLKW, handle_, 3, F_WRLCK, at + 2, at + 2).later);
  EXPECT_EQ(lock(FUSE_SETLKW, handle_, 2, F_WRLCK, 2 * kEach * 2, 2 * kEach * 2).error, EDEADLK);
}

TEST_F(Locks, OfTwoThatReadAndWantToWriteOneDoes) {
  set(1, F_RDLCK);
  set(2, F_RDLCK);
  driver_->flip_ticket(1);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 1, F_WRLCK).later);
  EXPECT_EQ(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).error, EDEADLK);
  EXPECT_EQ(set(2, F_UNLCK), 0);
  EXPECT_EQ(answered_.count(1), 1u);
}

TEST_F(Locks, WaitingKeepsNobodyFromOthers) {
  set(1, F_WRLCK);
  driver_->flip_ticket(1);
  ASSERT_TRUE(lock(FUSE_SETLKW, handle_, 2, F_WRLCK).later);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([this] {
      Driver guest(*session_);
      for (int round = 0; round < 300; ++round) EXPECT_TRUE(guest.lookup(1, "file"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(session_->poll());
}

}  // namespace
}  // namespace snug::test
