// The server's end of one share: obeys what its device says (devices/virtio/fs/share_protocol.h), and has the
// guest's requests served by threads of its own.
//
// Thread: the event loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "devices/virtio/fs/share_protocol.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/state.h"
#include "vmm/shares/queue_threads.h"
#include "vmm/shares/session.h"

namespace snug {

class ShareService {
 public:
  struct Share {
    UniqueFd socket;  // the device's other end
    UniqueFd root;    // as for ShareSession::create(), and the next two
    UniqueFd proc_self_fd;
    ShareOptions options;
    std::function<void()> thread_begins;  // what each thread does first; may be empty
    // The device says what makes no sense, or ("") is gone.
    std::function<void(const std::string& why)> failed;
  };
  // Errors: the host's.
  static Result<std::unique_ptr<ShareService>> create(EventLoop& loop, Share share);

 private:
  ShareService(EventLoop& loop, Share share)
      : loop_(loop), socket_(std::move(share.socket)), failed_(std::move(share.failed)) {}
  bool is_attached(uint32_t machine) const { return attached_ && generation_ == machine; }
  void on_calls();
  std::string obey(const share::Call& call, std::vector<UniqueFd> descriptors);
  std::string attach(const share::Call& call, std::vector<UniqueFd> descriptors);
  std::string start(const share::Call& call, std::vector<UniqueFd> descriptors,
                    SectionReader* rings = nullptr);
  std::string go_on(const share::Call& call, std::vector<UniqueFd> descriptors);
  std::string hold(std::vector<UniqueFd> descriptors);
  void tell(share::NewsKind kind, const std::string& text = {});
  void on_stopped();
  void on_held();
  std::string save();
  void look_at_locks();

  EventLoop& loop_;
  UniqueFd socket_;
  std::function<void(const std::string&)> failed_;
  std::unique_ptr<ShareSession> session_;
  uint32_t generation_ = 0;
  bool attached_ = false;
  UniqueFd state_;                         // where the state goes, while the machine is held
  std::unique_ptr<QueueThreads> threads_;  // goes before the session
  EventLoop::Watch watch_;
  EventLoop::Timer locks_;  // requests wait for some
  std::chrono::milliseconds patience_{0};
};

}  // namespace snug
