#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/transfer.h"
#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

class ThreadBackend final : public BlockBackend {
 public:
  ThreadBackend(std::vector<BlockFile> files, std::function<void()> thread_begins)
      : files_(std::move(files)), thread_begins_(std::move(thread_begins)) {}

  ~ThreadBackend() override {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
  }

  Result<void> open() {
    event_fd_ = SNUG_TRY(make_eventfd());
    try {
      for (std::thread& thread : threads_) thread = std::thread([this] { serve(); });
    } catch (const std::system_error& error) {
      return fail("threads for a disk: {}", error.what());
    }
    return {};
  }

  bool submit(BlockRequest& request) override {
    std::lock_guard lock(mutex_);
    if (under_way_ >= kLimit) return false;
    ++under_way_;
    submitted_ = true;
    waiting_.push_back(&request);
    return true;
  }

  bool kick() override {
    if (std::exchange(submitted_, false)) work_.notify_all();
    return false;
  }
  int event_fd() const override { return event_fd_.get(); }

  void reap(const Report& report) override {
    std::vector<Done> done;
    {
      std::lock_guard lock(mutex_);
      std::swap(done, done_);
      under_way_ -= done.size();
    }
    for (const Done& one : done) report(one.tag, one.error);
  }

 private:
  static constexpr size_t kLimit = 256;
  struct Done {
    uint64_t tag;
    int error;
  };

  // All that is waiting is done before the end: the guest was told of none of it yet, but it was asked for.
  void serve() {
    if (thread_begins_) thread_begins_();
    std::unique_lock lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      BlockRequest& request = *waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const int error = perform(request);
      lock.lock();
      done_.push_back({request.tag, error});
      const uint64_t one = 1;
      (void)!::write(event_fd_.get(), &one, sizeof one);
    }
  }

  int perform(BlockRequest& request) const {
    const int fd = files_[request.file].fd;
    switch (request.operation) {
      case BlockOperation::kRead:
      case BlockOperation::kWrite:
        return transfer(request);
      case BlockOperation::kFlush:
        return ::fdatasync(fd) == 0 ? 0 : errno;
      case BlockOperation::kDiscard:
      case BlockOperation::kWriteZeroes:
      case BlockOperation::kZeroAndFree:
        break;
    }
    const int result = ::fallocate(fd, fallocate_mode(request.operation), static_cast<off_t>(request.offset),
                                   static_cast<off_t>(request.length));
    if (result != 0) return fallocate_error(request.operation, errno);
    return !request.durable || ::fdatasync(fd) == 0 ? 0 : errno;
  }

  int transfer(BlockRequest& request) const {
    while (!request.iovecs.empty()) {
      const int count = static_cast<int>(std::min<size_t>(request.iovecs.size(), IOV_MAX));
      const int fd = transfer_fd(files_[request.file], request);
      const auto offset = static_cast<off_t>(request.offset);
      const ssize_t done =
          request.operation == BlockOperation::kRead
              ? ::preadv2(fd, request.iovecs.data(), count, offset, 0)
              : ::pwritev2(fd, request.iovecs.data(), count, offset, transfer_flags(request));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return errno;
      if (done == 0) {
        fill_last_sector(request);
        return request.iovecs.empty() ? 0 : EIO;  // the file has become shorter than the disk
      }
      advance(request, static_cast<size_t>(done));
    }
    return 0;
  }

  std::vector<BlockFile> files_;
  std::function<void()> thread_begins_;
  UniqueFd event_fd_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<BlockRequest*> waiting_;
  std::vector<Done> done_;
  size_t under_way_ = 0;
  bool submitted_ = false;  // since kick()
  bool ending_ = false;
  std::array<std::thread, 4> threads_;
};

}  // namespace

Result<std::unique_ptr<BlockBackend>> make_thread_backend(std::vector<BlockFile> files,
                                                          std::function<void()> thread_begins) {
  auto backend = std::make_unique<ThreadBackend>(std::move(files), std::move(thread_begins));
  SNUG_TRY(backend->open());
  return backend;
}

}  // namespace snug
