#include "vmm/control/control_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/packet_socket.h"
#include "vmm/base/socket_io.h"

namespace snug {
namespace {

// What may come behind a request before its sender is cut off: it would not see the answer otherwise.
constexpr size_t kMostDrained = 1 << 20;
// A guest answers within some milliseconds.
constexpr std::chrono::milliseconds kGuestAnswersPause{2};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::create(EventLoop& loop, UniqueFd listening,
                                                             ControlTarget& target) {
  std::unique_ptr<ControlServer> server(new ControlServer(loop, std::move(listening), target));
  server->slow_ = SNUG_TRY(loop.timer([s = server.get()] { s->drop_the_slow(); }));
  server->guest_answers_ = SNUG_TRY(loop.timer([s = server.get()] { s->look_for_guest_answers(); }));
  server->watch_ = SNUG_TRY(
      loop.watch(server->listening_.get(), EPOLLIN, [s = server.get()](uint32_t) { s->accept_some(); }));
  return server;
}

void ControlServer::accept_some() {
  while (clients_.size() < kMaxClients) {
    UniqueFd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && errno == EINTR) continue;
    if (!fd) {
      // Out of descriptors, or nobody there: no busy waiting for what may stay so.
      if (errno != EAGAIN) watch_.set_events(0);
      if (errno != EAGAIN) slow_.arm(std::chrono::seconds(1));
      return;
    }
    const uint64_t id = next_id_++;
    Client client;
    client.fd = std::move(fd);
    client.since = std::chrono::steady_clock::now();
    auto watch = loop_.watch(client.fd.get(), EPOLLIN, [this, id](uint32_t) { on_event(id); });
    if (!watch) continue;
    client.watch = std::move(*watch);
    clients_.emplace(id, std::move(client));
    slow_.arm(kPatience);
  }
  watch_.set_events(0);
}

void ControlServer::on_event(uint64_t id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  bool stays = true;
  switch (client.phase) {
    case Phase::kRequest:
      stays = read_request(id, client);
      break;
    case Phase::kAnswer:
      stays = send(client);
      break;
    case Phase::kAskingGuest:
    case Phase::kWorking:
    case Phase::kWaiting:
    case Phase::kDraining:
      stays = drain(client);
      break;
  }
  if (!stays) drop(id);
}

bool ControlServer::read_request(uint64_t id, Client& client) {
  std::array<char, 4096> buffer;
  const ssize_t count = receive_with_descriptors(client.fd.get(), buffer, client.files);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count <= 0 || client.files.size() > kPacketDescriptorsMax) return false;
  if (client.reader.feed({buffer.data(), static_cast<size_t>(count)})) return true;
  if (const int error = client.reader.error(); error != 0)
    return answer(client, error, control_error(error, "this is no request that is understood here").json);
  if (asks_guest(client.reader.request()) && target_.ask_guest()) {
    client.phase = Phase::kAskingGuest;
    client.guest_asked = std::chrono::steady_clock::now();
    // Of what comes meanwhile only the end matters, which epoll tells anyway.
    client.watch.set_events(0);
    guest_answers_.arm(kGuestAnswersPause);
    return true;
  }
  return answer_request(id, client);
}

bool ControlServer::begin_work(uint64_t id, Client& client) {
  client.phase = Phase::kWorking;
  const auto now =
      begin_with_files(target_, client.reader.request(), std::move(client.files),
                       [this, id, alive = std::weak_ptr<int>(alive_)](const ControlAnswer& said) {
                         if (alive.expired()) return;
                         const auto found = clients_.find(id);
                         if (found == clients_.end()) return;
                         if (!answer(found->second, said.status, said.json)) drop(id);
                       });
  return !now || answer(client, now->status, now->json);
}

bool ControlServer::answer_request(uint64_t id, Client& client) {
  if (takes_files(client.reader.request())) return begin_work(id, client);
  const ControlAnswer said = answer_control_request(target_, client.reader.request());
  if (!said.waits) return answer(client, said.status, said.json);
  // Some room is always left for those who come to the point.
  if (waiting() >= kMaxWaiting)
    return answer(client, 503, control_error(503, "too many wait for this machine already").json);
  client.phase = Phase::kWaiting;
  return true;
}

size_t ControlServer::waiting() const {
  return static_cast<size_t>(std::count_if(clients_.begin(), clients_.end(), [](const auto& entry) {
    return entry.second.phase == Phase::kWaiting;
  }));
}

bool ControlServer::answer(Client& client, int status, const std::string& json) {
  client.out = http_response(status, json);
  client.phase = Phase::kAnswer;
  return send(client);
}

bool ControlServer::send(Client& client) {
  while (client.sent < client.out.size()) {
    const ssize_t count =
        send_some(client.fd.get(), client.out.data() + client.sent, client.out.size() - client.sent);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      client.watch.set_events(EPOLLOUT);
      return true;
    }
    if (count < 0) return false;
    client.sent += static_cast<size_t>(count);
  }
  ::shutdown(client.fd.get(), SHUT_WR);
  client.phase = Phase::kDraining;
  client.watch.set_events(EPOLLIN);
  return drain(client);
}

// Until the client has closed its end: what it has sent and nobody has read would make the kernel throw the
// answer away.
bool ControlServer::drain(Client& client) {
  std::array<char, 4096> buffer;
  const ssize_t count = receive_some(client.fd.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count <= 0) return false;
  client.drained += static_cast<size_t>(count);
  return client.drained <= kMostDrained;
}

void ControlServer::drop(uint64_t id) {
  clients_.erase(id);
  watch_.set_events(EPOLLIN);
}

void ControlServer::drop_the_slow() {
  const auto now = std::chrono::steady_clock::now();
  std::vector<uint64_t> slow;
  bool others = false;
  for (const auto& [id, client] : clients_) {
    if (client.phase == Phase::kWaiting || client.phase == Phase::kWorking) continue;
    if (now - client.since >= kPatience) {
      slow.push_back(id);
    } else {
      others = true;
    }
  }
  for (const uint64_t id : slow) drop(id);
  if (slow.empty() && clients_.size() < kMaxClients) watch_.set_events(EPOLLIN);
  if (others) slow_.arm(std::chrono::seconds(1));
}

void ControlServer::look_for_guest_answers() {
  const bool answered = target_.guest_has_answered();
  const auto now = std::chrono::steady_clock::now();
  std::vector<uint64_t> gone;
  bool others = false;
  for (auto& [id, client] : clients_) {
    if (client.phase != Phase::kAskingGuest) continue;
    if (!answered && now - client.guest_asked < kGuestPatience) {
      others = true;
    } else if (!answer_request(id, client)) {
      gone.push_back(id);
    }
  }
  for (const uint64_t id : gone) drop(id);
  if (others) guest_answers_.arm(kGuestAnswersPause);
}

void ControlServer::finish(int exit_status, const std::string& message) {
  watch_.reset();
  const std::string json = control_end_json(exit_status, message);
  for (auto& [id, client] : clients_) {
    if (client.phase == Phase::kWaiting) (void)answer(client, 200, json);
  }
  clients_.clear();
}

}  // namespace snug
