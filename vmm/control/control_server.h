// Serves the control interface on a machine's unix socket, from the event loop: nothing here blocks, and what
// a client may hold is bounded (kMaxClients connections, HttpReader's sizes, kPatience to come to the point).
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/control_api.h"
#include "vmm/core/event_loop.h"

namespace snug {

class ControlServer {
 public:
  static constexpr size_t kMaxClients = 256;  // more wait in the socket's backlog
  static constexpr size_t kMaxWaiting = 32;   // of those, for the machine's end
  static constexpr std::chrono::seconds kPatience{10};
  // With the guest, which may be busy or hang: then the answer tells what it said last.
  static constexpr std::chrono::milliseconds kGuestPatience{250};

  // `listening`: non-blocking. `target` outlives the server.
  static Result<std::unique_ptr<ControlServer>> create(EventLoop& loop, UniqueFd listening,
                                                       ControlTarget& target);

  // How many wait for the machine's end.
  size_t waiting() const;

  // The machine has ended: those who wait are told. Call once, before destruction.
  void finish(int exit_status, const std::string& message);

 private:
  enum class Phase { kRequest, kAskingGuest, kWorking, kWaiting, kAnswer, kDraining };
  struct Client {
    UniqueFd fd;
    Phase phase = Phase::kRequest;
    HttpReader reader;
    std::vector<UniqueFd> files;  // that came with the request
    std::string out;
    size_t sent = 0;
    size_t drained = 0;  // bytes that came behind the request
    std::chrono::steady_clock::time_point since;
    std::chrono::steady_clock::time_point guest_asked;
    EventLoop::Watch watch;
  };

  ControlServer(EventLoop& loop, UniqueFd listening, ControlTarget& target)
      : loop_(loop), listening_(std::move(listening)), target_(target) {}

  void accept_some();
  void on_event(uint64_t id);
  // Each returns whether the client stays.
  bool read_request(uint64_t id, Client& client);
  bool answer_request(uint64_t id, Client& client);
  bool begin_work(uint64_t id, Client& client);
  bool answer(Client& client, int status, const std::string& json);
  bool send(Client& client);
  bool drain(Client& client);
  void drop(uint64_t id);
  void drop_the_slow();
  void look_for_guest_answers();

  EventLoop& loop_;
  UniqueFd listening_;
  ControlTarget& target_;
  // What comes back when this is gone finds it expired.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  uint64_t next_id_ = 0;
  std::unordered_map<uint64_t, Client> clients_;
  EventLoop::Watch watch_;
  EventLoop::Timer slow_;
  EventLoop::Timer guest_answers_;
};

}  // namespace snug
