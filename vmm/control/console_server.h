// The host's end of the console of a machine that runs in the background: a bounded log, and a unix socket
// for those who attach. It holds the far end of a socket pair whose near end is the machine's console.
//
// Whoever attaches first gets the last bytes printed, then all that follows; what is typed goes to the guest,
// from all who are attached. A client that is too far behind misses bytes, and is told how many.
//
// Thread: the loop's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/bounded_log.h"
#include "vmm/core/event_loop.h"

namespace snug {

class ConsoleServer {
 public:
  static constexpr const char* kLogFile = "console.log";
  static constexpr size_t kReplay = 8192;       // bytes for one who attaches
  static constexpr size_t kBehind = 256 << 10;  // bytes that a client may be behind
  static constexpr size_t kMaxClients = 16;

  // `directory`: the machine's; it outlives the server. `listening`, `console`: non-blocking.
  static Result<std::unique_ptr<ConsoleServer>> create(EventLoop& loop, int directory, UniqueFd listening,
                                                       UniqueFd console);
  // The same where another process was at work: its log goes on.
  static Result<std::unique_ptr<ConsoleServer>> go_on(EventLoop& loop, int directory, UniqueFd listening,
                                                      UniqueFd console);
  // What those who attach reach.
  int listening() const { return listening_.get(); }

  // As BoundedLog has it.
  void continue_log_with(BoundedLog::Next next) { log_.continue_with(std::move(next)); }
  // Takes what the console still holds and hands out what it can; call at the machine's end.
  void finish();

 private:
  struct Client {
    UniqueFd fd;
    std::string out;
    uint64_t missed = 0;  // bytes, since it was told last
    EventLoop::Watch watch;
  };

  ConsoleServer(EventLoop& loop, BoundedLog log, UniqueFd listening, UniqueFd console)
      : loop_(loop), listening_(std::move(listening)), console_(std::move(console)), log_(std::move(log)) {}

  static Result<std::unique_ptr<ConsoleServer>> begin(EventLoop& loop, BoundedLog log, UniqueFd listening,
                                                      UniqueFd console);
  void accept_some();
  bool read_console();
  static void hand_out(Client& client, std::string_view bytes);
  void on_client(uint64_t id, uint32_t events);
  bool read_client(Client& client);
  bool send_to(Client& client);
  void write_console();
  void update_watches();

  EventLoop& loop_;
  UniqueFd listening_;
  UniqueFd console_;
  BoundedLog log_;
  std::string replay_;
  std::string typed_;  // not yet taken by the console
  uint64_t next_id_ = 0;
  std::unordered_map<uint64_t, Client> clients_;
  EventLoop::Watch console_watch_;
  EventLoop::Watch listening_watch_;
};

}  // namespace snug
