// Where the sockets of a guest lead to on the host, for as long as snug runs: what the guest opens goes to a
// listener of this process or to a unix socket, PATH_PORT; what clients of the unix socket PATH ask for, by
// "CONNECT PORT\n", goes to the guest, and they read "OK HOST_PORT\n" once it has taken it. A refusal is the
// end of the stream.
//
// Thread: the event loop's, open() with the device's lock held.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "devices/virtio/vsock/backend.h"
#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"

namespace snug {

class VsockHub final : public VsockBackend {
 public:
  // Gives a stream to the guest's device: VirtioVsock::connect() with its lock held.
  using Reach = std::function<void(uint32_t guest_port, UniqueFd stream, VsockDone done)>;
  static constexpr size_t kClientsMax = 256;  // that have not said their port yet

  // Makes the unix socket, mode 0600, in the place of one that nobody listens to any more; without a path
  // there are only the listeners of this process. Errors: a path that is used or cannot be.
  static Result<std::unique_ptr<VsockHub>> create(
      EventLoop& loop, const std::string& socket_path,
      std::chrono::milliseconds patience = std::chrono::seconds(10));
  // The same on the socket that another process has made and still has: what has a name stays that one's.
  static Result<std::unique_ptr<VsockHub>> adopt(
      EventLoop& loop, UniqueFd socket, std::chrono::milliseconds patience = std::chrono::seconds(10));
  ~VsockHub() override;

  // The unix socket; -1: there is none.
  int socket() const { return socket_.get(); }

  // The guest's device has come / is about to go.
  void attach(Reach reach) { reach_ = std::move(reach); }
  void detach() { reach_ = nullptr; }

  // Reaches for a port of the guest. `done`: on the loop, later, once: a stream, or an errno as of
  // VirtioVsock::connect(). Streams are non-blocking unix sockets.
  using Connected = std::function<void(UniqueFd stream, int error)>;
  void connect(uint32_t guest_port, Connected done);
  // Takes what the guest opens to a port of the host. `accepted`: on the loop.
  using Accepted = std::function<void(UniqueFd stream)>;
  void listen(uint32_t host_port, Accepted accepted);
  void unlisten(uint32_t host_port) { listeners_.erase(host_port); }

  tl::expected<UniqueFd, int> open(uint32_t port) override;

  // A stream to the unix socket of a port of the host, by its name. Errors: an errno.
  tl::expected<UniqueFd, int> connect_by_name(uint32_t port) const;
  // Who does that from now on: this process lets go of the folder.
  using ConnectByName = std::function<tl::expected<UniqueFd, int>(uint32_t port)>;
  void leave_names_to(ConnectByName connect) {
    connect_by_name_ = std::move(connect);
    folder_.reset();
  }

 private:
  // Of the unix socket, before it has said its port.
  struct Client {
    UniqueFd fd;
    EventLoop::Watch watch;  // ends before the descriptor
    std::string line;
    std::chrono::steady_clock::time_point deadline;
  };

  VsockHub(EventLoop& loop, std::chrono::milliseconds patience) : loop_(loop), patience_(patience) {}
  Result<void> bind(const std::string& path);
  Result<void> take_clients();
  std::string socket_of_port(uint32_t port) const;
  void accept_clients();
  void pause_accepting(std::chrono::milliseconds pause);
  void read_client(uint64_t id);
  void drop_client(uint64_t id);
  void drop_late_clients();
  void reach_for(uint32_t guest_port, UniqueFd stream, VsockDone done);

  EventLoop& loop_;
  const std::chrono::milliseconds patience_;
  // Posts that arrive after this hub is gone find it expired.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  Reach reach_;
  std::unordered_map<uint32_t, Accepted> listeners_;

  ConnectByName connect_by_name_;
  UniqueFd folder_;  // of the socket: names relative to it have room in an address
  std::string name_;
  ino_t inode_ = 0;
  UniqueFd socket_;
  std::unordered_map<uint64_t, Client> clients_;
  uint64_t next_client_ = 0;
  EventLoop::Watch accept_watch_;
  EventLoop::Timer client_timer_;
  EventLoop::Timer accept_timer_;
};

}  // namespace snug
