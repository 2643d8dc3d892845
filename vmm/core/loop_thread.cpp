#include "vmm/core/loop_thread.h"

#include <pthread.h>

#include <future>
#include <system_error>

#include "vmm/base/assertion.h"

namespace snug {

Result<std::unique_ptr<LoopThread>> LoopThread::create(std::string name, std::function<void()> begins) {
  constexpr size_t kNameMax = 15;  // pthread_setname_np(3)
  if (name.size() > kNameMax) name.resize(kNameMax);
  return std::unique_ptr<LoopThread>(
      new LoopThread(std::move(name), std::move(begins), SNUG_TRY(EventLoop::create())));
}

Result<void> LoopThread::start() {
  SNUG_ASSERT(!thread_.joinable());
  try {
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), name_.c_str());
      if (begins_) begins_();
      // Waiting fails by a bug of our own only, and nobody would answer call() any more.
      SNUG_ASSERT(loop_->run());
    });
  } catch (const std::system_error& error) {
    return fail("thread {}: {}", name_, error.what());
  }
  return {};
}

void LoopThread::call(const std::function<void()>& task) {
  if (!thread_.joinable()) return task();
  std::promise<void> done;
  loop_->post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

void LoopThread::stop() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
}

}  // namespace snug
