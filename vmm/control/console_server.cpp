#include "vmm/control/console_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/socket_io.h"

namespace snug {
namespace {

constexpr size_t kTypedAhead = 4096;

}  // namespace

Result<std::unique_ptr<ConsoleServer>> ConsoleServer::create(EventLoop& loop, int directory,
                                                             UniqueFd listening, UniqueFd console) {
  return begin(loop, SNUG_TRY(BoundedLog::create(directory, kLogFile)), std::move(listening),
               std::move(console));
}

Result<std::unique_ptr<ConsoleServer>> ConsoleServer::go_on(EventLoop& loop, int directory,
                                                            UniqueFd listening, UniqueFd console) {
  return begin(loop, SNUG_TRY(BoundedLog::go_on(directory, kLogFile)), std::move(listening),
               std::move(console));
}

Result<std::unique_ptr<ConsoleServer>> ConsoleServer::begin(EventLoop& loop, BoundedLog log,
                                                            UniqueFd listening, UniqueFd console) {
  std::unique_ptr<ConsoleServer> server(
      new ConsoleServer(loop, std::move(log), std::move(listening), std::move(console)));
  server->console_watch_ =
      SNUG_TRY(loop.watch(server->console_.get(), EPOLLIN, [s = server.get()](uint32_t events) {
        if ((events & EPOLLOUT) != 0) s->write_console();
        if ((events & EPOLLIN) != 0) (void)s->read_console();
      }));
  server->listening_watch_ = SNUG_TRY(
      loop.watch(server->listening_.get(), EPOLLIN, [s = server.get()](uint32_t) { s->accept_some(); }));
  return server;
}

void ConsoleServer::accept_some() {
  while (clients_.size() < kMaxClients) {
    UniqueFd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && errno == EINTR) continue;
    if (!fd && errno == EAGAIN) return;
    if (!fd) break;  // out of descriptors: tried again when somebody leaves
    const uint64_t id = next_id_++;
    auto watch =
        loop_.watch(fd.get(), EPOLLIN | EPOLLOUT, [this, id](uint32_t events) { on_client(id, events); });
    if (!watch) continue;
    clients_.emplace(id, Client{.fd = std::move(fd), .out = replay_, .watch = std::move(*watch)});
  }
  listening_watch_.set_events(0);
}

// One round; false when there was nothing.
bool ConsoleServer::read_console() {
  std::array<char, 16384> buffer;
  const ssize_t count = receive_some(console_.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (count <= 0) {
    console_watch_.reset();
    return false;
  }
  const auto size = static_cast<size_t>(count);
  log_.write({buffer.data(), size});
  replay_.append(buffer.data(), size);
  if (replay_.size() > kReplay) replay_.erase(0, replay_.size() - kReplay);
  std::vector<uint64_t> gone;
  for (auto& [id, client] : clients_) {
    hand_out(client, {buffer.data(), size});
    if (!send_to(client)) gone.push_back(id);
  }
  for (const uint64_t id : gone) clients_.erase(id);
  if (!gone.empty()) update_watches();
  return true;
}

void ConsoleServer::hand_out(Client& client, std::string_view bytes) {
  if (client.out.size() + bytes.size() > kBehind) {
    client.missed += bytes.size();
    return;
  }
  if (client.missed > 0) client.out += fmt::format("\r\n[snug: {} bytes left out]\r\n", client.missed);
  client.missed = 0;
  client.out += bytes;
}

void ConsoleServer::on_client(uint64_t id, uint32_t events) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  bool stays = true;
  if ((events & EPOLLOUT) != 0) stays = send_to(client);
  if (stays && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) stays = read_client(client);
  // Gone, while the guest takes nothing: what it typed last would be waited for without end.
  if ((events & EPOLLHUP) != 0 && typed_.size() >= kTypedAhead) stays = false;
  if (!stays) clients_.erase(found);
  update_watches();
}

bool ConsoleServer::send_to(Client& client) {
  while (!client.out.empty()) {
    const ssize_t count = send_some(client.fd.get(), client.out.data(), client.out.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) return false;
    client.out.erase(0, static_cast<size_t>(count));
  }
  const bool room = typed_.size() < kTypedAhead;
  client.watch.set_events((client.out.empty() ? 0U : EPOLLOUT) | (room ? EPOLLIN : 0U));
  return true;
}

bool ConsoleServer::read_client(Client& client) {
  std::array<char, kTypedAhead> buffer;
  const size_t room = kTypedAhead - std::min(typed_.size(), kTypedAhead);
  const ssize_t count =
      receive_some(client.fd.get(), buffer.data(), std::max<size_t>(room, 1), room == 0 ? MSG_PEEK : 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count <= 0) return false;
  if (room == 0) return true;
  typed_.append(buffer.data(), static_cast<size_t>(count));
  write_console();
  return true;
}

void ConsoleServer::write_console() {
  const bool was_full = typed_.size() >= kTypedAhead;
  while (!typed_.empty()) {
    const ssize_t count = send_some(console_.get(), typed_.data(), typed_.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) typed_.clear();
    if (count < 0) break;
    typed_.erase(0, static_cast<size_t>(count));
  }
  console_watch_.set_events(EPOLLIN | (typed_.empty() ? 0U : EPOLLOUT));
  if (was_full != (typed_.size() >= kTypedAhead)) update_watches();
}

void ConsoleServer::update_watches() {
  const bool room = typed_.size() < kTypedAhead;
  for (auto& [id, client] : clients_)
    client.watch.set_events((client.out.empty() ? 0U : EPOLLOUT) | (room ? EPOLLIN : 0U));
  listening_watch_.set_events(clients_.size() < kMaxClients ? EPOLLIN : 0U);
}

void ConsoleServer::finish() {
  while (read_console()) continue;
  listening_watch_.reset();
  console_watch_.reset();
  clients_.clear();
}

}  // namespace snug
