// The machine's process' way to its warden (warden.h): what it asks for and tells, and the news it gets.
//
// Thread: calls from any, one at a time, each waits for its answer; news on the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tl/expected.hpp>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/run/warden_protocol.h"
#include "vmm/spec/spec.h"

namespace snug {

class WardenLink {
 public:
  struct News {
    // `own_terminal`: this machine's job is in the foreground of its terminal.
    std::function<void(int number, bool own_terminal)> signal;
    std::function<void(size_t interface, UniqueFd socket)> network_connected;
    std::function<void(size_t interface)> network_lost;
    std::function<void()> gone;  // the warden is
    // Of an update that has been launched; none: this process has launched none.
    std::function<void()> update_ready;
    std::function<void(const std::string& why)> update_failed;
  };
  // The sockets' other ends are the warden's.
  static Result<std::unique_ptr<WardenLink>> create(EventLoop& loop, UniqueFd calls, UniqueFd news);
  void on_news(News news) { news_ = std::move(news); }

  // Errors: an errno.
  tl::expected<UniqueFd, int> connect_vsock(uint32_t port);
  // Waits until passt is at work. Errors: those of UserNetwork::start().
  Result<UniqueFd> start_network(size_t interface);
  void stop_networks();
  void give_up_network(size_t interface);
  Result<UniqueFd> next_log(warden::LogKind kind);
  Result<UniqueFd> begin_kernel();
  Result<UniqueFd> keep_kernel();
  // No more of these two; whatever is called later finds it done.
  void seal_kernels();
  // The guest runs. The warden's CPU time so far, in nanoseconds.
  uint64_t started();
  void ending(const TimeLimit& grace);
  void suspended();
  void keep_template();
  void drop_template();
  // Of an update, in this order (warden_protocol.h). Errors: it is not to be.
  Result<void> begin_update(bool ram_is_given);
  Result<UniqueFd> update_file(warden::UpdateFile file);
  void launch_update();
  // Returns only when the machine is to go on here.
  Error hand_over();
  void end_update();
  // By the process that takes another's place: waits for all of it. Errors: it does not come.
  Result<void> take_state();
  // Its guest is about to run: there is no other process any more. The warden's CPU time so far. Errors: it
  // is to run elsewhere.
  Result<uint64_t> take_over();
  void forget_ram();
  Result<UniqueFd> kept_template(warden::TemplateFile file);
  void keep_touched(const std::string& touched);
  // The last words, one or the other.
  void ended(int exit_status, const std::string& message);
  void failed(const Error& error);

 private:
  using Answered = warden::Packet<warden::Answer>;

  WardenLink(UniqueFd calls, UniqueFd news) : calls_(std::move(calls)), news_socket_(std::move(news)) {}
  Answered call(warden::CallKind kind, uint64_t argument = 0, std::string_view text = {});
  int wait_for_answer(uint32_t id, Answered& answer);
  Result<UniqueFd> ask(warden::CallKind kind, uint64_t argument = 0);
  static Error error_of(const Answered& answer);
  void on_news_event();

  std::mutex mutex_;  // guards the two below
  UniqueFd calls_;
  uint32_t next_id_ = 1;
  UniqueFd news_socket_;
  News news_;
  EventLoop::Watch watch_;  // ends before the socket
};

}  // namespace snug
