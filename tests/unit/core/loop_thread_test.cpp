#include "vmm/core/loop_thread.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <thread>

namespace snug {
namespace {

std::unique_ptr<LoopThread> made() {
  auto thread = LoopThread::create("a name of more than 15 bytes");
  EXPECT_TRUE(thread);
  return std::move(*thread);
}

TEST(LoopThread, CallsRunOnItsThreadOnceItHasOne) {
  const auto thread = made();
  std::thread::id ran_on;
  const auto note = [&] { ran_on = std::this_thread::get_id(); };
  thread->call(note);
  EXPECT_EQ(ran_on, std::this_thread::get_id());
  ASSERT_TRUE(thread->start());
  thread->call(note);
  EXPECT_NE(ran_on, std::this_thread::get_id());
  thread->stop();
  thread->call(note);
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST(LoopThread, WatchesMadeBeforeAndWhileItRuns) {
  const auto thread = made();
  auto first = make_eventfd(), second = make_eventfd();
  ASSERT_TRUE(first && second);
  // Written on the thread, read after stop() has joined it.
  int first_calls = 0, second_calls = 0;
  const auto take = [](int fd, int& calls) {
    uint64_t count = 0;
    if (::read(fd, &count, sizeof count) == sizeof count) ++calls;
  };
  auto watch =
      thread->loop().watch(first->get(), EPOLLIN, [&](uint32_t) { take(first->get(), first_calls); });
  ASSERT_TRUE(watch);
  ASSERT_TRUE(thread->start());
  Result<EventLoop::Watch> later;
  thread->call([&] {
    later =
        thread->loop().watch(second->get(), EPOLLIN, [&](uint32_t) { take(second->get(), second_calls); });
  });
  ASSERT_TRUE(later);
  const uint64_t one = 1;
  ASSERT_EQ(::write(first->get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  ASSERT_EQ(::write(second->get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  // Watches are looked at between two tasks.
  int calls = 0;
  while (calls < 2) thread->call([&] { calls = first_calls + second_calls; });
  thread->call([&] { later->reset(); });
  thread->stop();
  EXPECT_EQ(first_calls, 1);
  EXPECT_EQ(second_calls, 1);
}

TEST(LoopThread, EndsWhateverWasPosted) {
  const auto thread = made();
  int ran = 0;
  ASSERT_TRUE(thread->start());
  for (int i = 0; i < 1000; ++i) thread->loop().post([&] { ++ran; });
  thread->call([] {});
  thread->stop();
  thread->stop();
  EXPECT_EQ(ran, 1000);
}

}  // namespace
}  // namespace snug
