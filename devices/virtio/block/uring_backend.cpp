#include <liburing.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <optional>
#include <utility>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/restrict_ring.h"
#include "devices/virtio/block/transfer.h"
#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

constexpr unsigned kEntries = 256;
constexpr size_t kMaxIovecs = IOV_MAX;

class UringBackend final : public BlockBackend {
 public:
  explicit UringBackend(std::vector<BlockFile> files) : files_(std::move(files)) {}

  ~UringBackend() override {
    if (!ready_) return;
    // Guest memory goes away after us: what is under way must not find it gone.
    while (under_way_ > done_.size()) {
      io_uring_submit(&ring_);
      io_uring_cqe* done = nullptr;
      if (const int error = io_uring_wait_cqe(&ring_, &done); error == -EINTR) continue;
      if (done == nullptr) break;
      --under_way_;
      io_uring_cqe_seen(&ring_, done);
    }
    io_uring_queue_exit(&ring_);
  }

  Result<void> open() {
    event_fd_ = SNUG_TRY(make_eventfd());
    // Takes nothing before it is restricted.
    if (const int error = io_uring_queue_init(kEntries, &ring_, IORING_SETUP_R_DISABLED); error < 0)
      return fail_errno(-error, "io_uring");
    ready_ = true;
    std::vector<int> fixed;
    for (const BlockFile& file : files_) fixed.insert(fixed.end(), {file.fd, file.direct_fd});
    if (const int error = io_uring_register_files(&ring_, fixed.data(), static_cast<unsigned>(fixed.size()));
        error < 0)
      return fail_errno(-error, "io_uring files");
    if (const int error = io_uring_register_eventfd(&ring_, event_fd_.get()); error < 0)
      return fail_errno(-error, "io_uring eventfd");
    if (const int error = restrict_ring(ring_)) return fail_errno(error, "io_uring restrictions");
    return {};
  }

  bool submit(BlockRequest& request) override {
    if (under_way_ >= kEntries) return false;
    ++under_way_;
    if (const auto error = do_now(request)) {
      done_.push_back({request.tag, *error});
    } else {
      prepare(request);
    }
    return true;
  }

  bool kick() override {
    // -EBUSY and -EAGAIN: the kernel takes them when some are done, and reap() kicks again.
    if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
    // What was done in that call needs no round of the loop. Emptied first: what comes later counts anew.
    if (io_uring_cq_ready(&ring_) > 0) {
      uint64_t count = 0;
      (void)!::read(event_fd_.get(), &count, sizeof count);
      return true;
    }
    return !done_.empty();
  }

  int event_fd() const override { return event_fd_.get(); }

  void reap(const Report& report) override {
    // A report may submit more.
    std::swap(done_, reported_);
    under_way_ -= static_cast<unsigned>(reported_.size());
    for (const Done& one : reported_) report(one.tag, one.error);
    reported_.clear();
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(&ring_, &done) == 0) {
      auto& request = *static_cast<BlockRequest*>(io_uring_cqe_get_data(done));
      const int result = done->res;
      io_uring_cqe_seen(&ring_, done);
      if (goes_on(request, result)) continue;
      --under_way_;
      report(request.tag, error_of(request, result));
    }
    // What goes on: in a round of its own, as it may go on without end.
    const uint64_t one = 1;
    if (io_uring_sq_ready(&ring_) > 0 && kick()) (void)!::write(event_fd_.get(), &one, sizeof one);
  }

 private:
  struct Done {
    uint64_t tag;
    int error;
  };

  // A transfer that waits for nothing but memory: no other thread could do it sooner than it takes to tell
  // that thread and to hear from it. Nothing: it has to be left to io_uring.
  std::optional<int> do_now(BlockRequest& request) const {
    const BlockFile& file = files_[request.file];
    if (!file.in_memory || file.direct_fd >= 0 || !is_transfer(request)) return std::nullopt;
    const auto count = static_cast<int>(iovec_count(request));
    const auto offset = static_cast<off_t>(request.offset);
    const ssize_t moved = request.operation == BlockOperation::kRead
                              ? ::preadv2(file.fd, request.iovecs.data(), count, offset, 0)
                              : ::pwritev2(file.fd, request.iovecs.data(), count, offset, 0);
    // Half done, interrupted or failed: io_uring goes on from there, and has the last word.
    if (moved <= 0 || !advance(request, static_cast<size_t>(moved))) return std::nullopt;
    return 0;
  }

  static bool is_transfer(const BlockRequest& request) {
    return request.operation == BlockOperation::kRead || request.operation == BlockOperation::kWrite;
  }

  void prepare(BlockRequest& request) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
      io_uring_submit(&ring_);
      entry = io_uring_get_sqe(&ring_);
    }
    switch (request.operation) {
      case BlockOperation::kRead:
        io_uring_prep_readv(entry, transfer_index(request), request.iovecs.data(), iovec_count(request),
                            request.offset);
        break;
      case BlockOperation::kWrite:
        io_uring_prep_writev(entry, transfer_index(request), request.iovecs.data(), iovec_count(request),
                             request.offset);
        entry->rw_flags = transfer_flags(request);
        break;
      case BlockOperation::kFlush:
        io_uring_prep_fsync(entry, fixed_index(request.file), IORING_FSYNC_DATASYNC);
        break;
      case BlockOperation::kDiscard:
      case BlockOperation::kWriteZeroes:
      case BlockOperation::kZeroAndFree:
        io_uring_prep_fallocate(entry, fixed_index(request.file), fallocate_mode(request.operation),
                                static_cast<off_t>(request.offset), static_cast<off_t>(request.length));
        break;
    }
    entry->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(entry, &request);
  }

  // The ring knows files by their place in what was registered: each one's usual descriptor, then its direct
  // one.
  static int fixed_index(size_t file) { return static_cast<int>(2 * file); }
  int transfer_index(const BlockRequest& request) const {
    const BlockFile& file = files_[request.file];
    return fixed_index(request.file) + (transfer_fd(file, request) == file.direct_fd ? 1 : 0);
  }

  static unsigned iovec_count(const BlockRequest& request) {
    return static_cast<unsigned>(std::min(request.iovecs.size(), kMaxIovecs));
  }

  // A transfer that was interrupted or came out short is carried on where it stopped.
  bool goes_on(BlockRequest& request, int result) {
    const bool transfer = is_transfer(request);
    if (result == -EINTR || result == -EAGAIN) {
      prepare(request);
      return true;
    }
    const bool range = !transfer && request.operation != BlockOperation::kFlush;
    if (range && request.durable && result == 0) {
      request.operation = BlockOperation::kFlush;
      prepare(request);
      return true;
    }
    if (request.operation == BlockOperation::kRead && result == 0) fill_last_sector(request);
    if (!transfer || result <= 0 || advance(request, static_cast<size_t>(result))) return false;
    prepare(request);
    return true;
  }

  static int error_of(const BlockRequest& request, int result) {
    if (result < 0) return fallocate_error(request.operation, -result);
    // The file has become shorter than the disk.
    return is_transfer(request) && !request.iovecs.empty() ? EIO : 0;
  }

  std::vector<BlockFile> files_;
  UniqueFd event_fd_;
  io_uring ring_{};
  bool ready_ = false;
  unsigned under_way_ = 0;  // those of done_ too
  std::vector<Done> done_;  // by do_now()
  std::vector<Done> reported_;
};

}  // namespace

Result<std::unique_ptr<BlockBackend>> make_uring_backend(std::vector<BlockFile> files) {
  auto backend = std::make_unique<UringBackend>(std::move(files));
  SNUG_TRY(backend->open());
  return backend;
}

}  // namespace snug
