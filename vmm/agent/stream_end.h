// Descriptors of this process as ends of a command's streams: read from and written to without blocking,
// whatever they are. Thread: the loop's.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"

namespace snug {

// Takes bytes for a descriptor and writes them when it has room.
class OutputEnd {
 public:
  struct Events {
    std::function<void(size_t)> written;  // bytes that are on their way to the consumer
    std::function<void(int error)> lost;  // nobody will take more (EPIPE, ENOSPC, ...): what is held is gone
  };
  OutputEnd(EventLoop& loop, UniqueFd fd, Events events);
  OutputEnd(const OutputEnd&) = delete;
  OutputEnd& operator=(const OutputEnd&) = delete;

  // The caller bounds how much is held. Calls back from the loop, never from here.
  void write(std::string_view bytes);
  bool empty() const { return held_.empty(); }
  bool lost() const { return lost_; }

 private:
  enum class Kind { kFile, kSocket, kNonblocking, kBlocking };
  void post();
  void flush();
  ssize_t write_some();

  EventLoop& loop_;
  UniqueFd fd_;
  Events events_;
  Kind kind_ = Kind::kBlocking;
  std::string held_;
  bool lost_ = false;
  bool posted_ = false;
  // Posts that arrive when this is gone find it expired.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  EventLoop::Watch watch_;
};

// Reads a descriptor, as much as the receiver has room for.
class InputEnd {
 public:
  struct Events {
    std::function<size_t()> room;  // bytes that may be read now
    std::function<void(std::string_view)> bytes;
    std::function<void()> ended;            // once; nothing follows
    std::function<void(int error)> failed;  // the same, and not for want of more (EISDIR, EIO, ...)
  };
  InputEnd(EventLoop& loop, UniqueFd fd, Events events);
  InputEnd(const InputEnd&) = delete;
  InputEnd& operator=(const InputEnd&) = delete;

  // Room has come or gone. Reads nothing by itself.
  void update();
  void stop();

 private:
  void post();
  void read_some();

  EventLoop& loop_;
  UniqueFd fd_;
  Events events_;
  bool ended_ = false;
  bool pollable_ = true;
  bool posted_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  EventLoop::Watch watch_;
};

}  // namespace snug
