#include "devices/virtio/vsock/vsock.h"

#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace snug {
namespace {

// Ports of the host's end of what the host has begun, as other monitors number them.
constexpr uint32_t kFirstHostPort = uint32_t{1} << 30;
constexpr uint32_t kLastHostPort = 2 * kFirstHostPort - 1;
constexpr uint64_t kTimerId = 0;
constexpr int kEventsAtOnce = 64;

uint64_t key_of(VsockPorts ports) { return uint64_t{ports.host} << 32 | ports.guest; }

}  // namespace

Result<std::unique_ptr<VirtioVsock>> VirtioVsock::create(const VsockConfig& config, VsockBackend& backend) {
  std::unique_ptr<VirtioVsock> device(new VirtioVsock(config, backend));
  device->next_port_ = kFirstHostPort;
  device->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!device->epoll_) return fail_errno(errno, "epoll_create1");
  device->timer_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!device->timer_) return fail_errno(errno, "timerfd_create");
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kTimerId}};
  if (::epoll_ctl(device->epoll_.get(), EPOLL_CTL_ADD, device->timer_.get(), &event) != 0)
    return fail_errno(errno, "epoll_ctl");
  return device;
}

VirtioVsock::~VirtioVsock() { remove_all(false); }

void VirtioVsock::read_config(uint64_t offset, std::span<std::byte> data) const {
  std::array<std::byte, sizeof(le64)> image{};
  store_le(image, config_.cid);
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = offset < image.size() && i < image.size() - offset ? image[offset + i] : std::byte{0};
}

void VirtioVsock::start(VirtioHost& host, uint64_t) { host_ = &host; }

// The guest's sockets are gone with its driver. What it sent before still reaches its readers.
bool VirtioVsock::stop() {
  host_ = nullptr;
  halted_ = false;
  remove_all(true);
  refusals_.clear();
  spare_count_ = 0;
  transmit_waits_ = event_due_ = event_unheard_ = false;
  return true;
}

bool VirtioVsock::stop_queue(uint16_t queue) {
  if (queue == kReceive) spare_count_ = 0;
  return true;
}

// A ring is broken: nothing more before a reset.
void VirtioVsock::halt(const std::string& why) {
  halted_ = true;
  host_->needs_reset(why);
}

void VirtioVsock::queue_ready(uint16_t queue) {
  if (queue == kTransmit) transmit();
  // It gives the buffer back when it has done what the event asks for.
  if (queue == kEvent && !event_due_) event_unheard_ = false;
  if (queue == kEvent) send_event();
  pump();
}

void VirtioVsock::interrupted(uint64_t cid) {
  config_.cid = cid;
  remove_all(true);
  refusals_.clear();
  begin_event();
  if (host_ != nullptr && !halted_) send_event();
}

void VirtioVsock::send_event() {
  if (!event_due_) return;
  VirtQueue& queue = host_->queue(kEvent);
  do {
    const auto popped = queue.pop(chain_);
    if (popped == VirtQueue::Pop::kBroken) return halt(queue.why());
    if (popped == VirtQueue::Pop::kEmpty) continue;
    const le32 event{kVsockTransportReset};
    const size_t written =
        copy_to_chain(host_->memory(), chain_.writable, 0, std::as_bytes(std::span(&event, 1)));
    (void)queue.push(chain_.head, static_cast<uint32_t>(written));
    event_due_ = false;
    event_unheard_ = true;
    wait_for_event(config_.heard_timeout);
    // A notification comes with the next buffer only when there is no other.
    std::vector<VirtChain> others;
    while (queue.pop(chain_) == VirtQueue::Pop::kChain) others.push_back(std::move(chain_));
    (void)queue.enable_notifications();
    for (; !others.empty(); others.pop_back()) queue.put_back(std::move(others.back()));
    host_->used(kEvent);
    return;
  } while (queue.enable_notifications());
}

void VirtioVsock::begin_event() {
  event_due_ = true;
  event_unheard_ = false;
  wait_for_event(config_.event_timeout);
}

void VirtioVsock::wait_for_event(std::chrono::milliseconds patience) {
  heard_at_latest_ = Clock::now() + patience;
  arm_timer(heard_at_latest_);
}

// Nothing is sent to it meanwhile.
bool VirtioVsock::guest_hears_event() const {
  return (event_due_ || event_unheard_) && Clock::now() < heard_at_latest_;
}

// --- snapshots ------------------------------------------------------------------------------------------

bool VirtioVsock::settle() {
  VirtQueue& queue = host_->queue(kReceive);
  while (spare_count_ > 0) queue.put_back(std::move(spares_[--spare_count_].chain));
  return true;
}

void VirtioVsock::save(SectionWriter& out) const {
  out.flag(halted_);
  out.number(next_port_);
}

void VirtioVsock::restore(SectionReader& in) {
  halted_ = in.flag();
  const auto port = in.number<uint32_t>();
  if (port < kFirstHostPort || port > kLastHostPort) return in.refuse(fmt::format("port {}", port));
  next_port_ = port;
  begin_event();
}

// --- connections ------------------------------------------------------------------------------------

void VirtioVsock::connect(uint32_t guest_port, UniqueFd stream, VsockDone done) {
  if (host_ == nullptr) return done({.error = EHOSTUNREACH});
  VsockConnection* connection =
      add({free_host_port(guest_port), guest_port}, State::kRequested, std::move(stream));
  if (connection == nullptr) return done({.error = ENOBUFS});
  connection->done = std::move(done);
  set_deadline(*connection, Clock::now() + config_.connect_timeout);
  settle(*connection);
  pump();
}

uint32_t VirtioVsock::free_host_port(uint32_t guest_port) {
  for (;;) {
    const uint32_t port = next_port_;
    next_port_ = port == kLastHostPort ? kFirstHostPort : port + 1;
    if (find({port, guest_port}) == nullptr) return port;
  }
}

VsockConnection* VirtioVsock::find(VsockPorts ports) {
  const auto found = by_ports_.find(key_of(ports));
  return found == by_ports_.end() ? nullptr : found->second;
}

// Null when there are too many, or the host has no memory to watch another.
VsockConnection* VirtioVsock::add(VsockPorts ports, State state, UniqueFd socket) {
  if (connections_.size() >= kConnectionsMax) return nullptr;
  const uint32_t room = connections_.size() < kMany ? kRoom : kRoomOfMany;
  auto made = std::make_unique<VsockConnection>(next_id_++, ports, state, room, std::move(socket));
  VsockConnection* connection = made.get();
  if (connection->fd() >= 0 && !watch(*connection)) return nullptr;
  connections_.emplace(connection->id(), std::move(made));
  by_ports_.emplace(key_of(ports), connection);
  return connection;
}

// Edge-triggered: what a guest without credit does not read must not wake anybody again and again.
bool VirtioVsock::watch(VsockConnection& connection) {
  epoll_event event{.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data = {.u64 = connection.id()}};
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection.fd(), &event) == 0;
}

// After anything that concerns a connection: what it has for the guest gets its turn, and it is watched for
// what it waits for.
void VirtioVsock::settle(VsockConnection& connection) {
  if (connection.broken()) connection.reset();
  if (connection.fd() >= 0 && connection.blocked() != connection.watched_for_room) {
    connection.watched_for_room = connection.blocked();
    epoll_event event{.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data = {.u64 = connection.id()}};
    if (connection.watched_for_room) event.events |= EPOLLOUT;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd(), &event);
  }
  if (connection.queued || !connection.next()) return;
  connection.queued = true;
  ready_.push_back(connection.id());
}

// The guest knows it no more; what is held still goes to the host.
void VirtioVsock::leave(VsockConnection& connection) {
  if (connection.held() == 0 || connection.broken()) return remove(connection);
  by_ports_.erase(key_of(connection.ports()));
  if (connection.queued) std::erase(ready_, connection.id());
  connection.queued = false;
  connection.deadline = Clock::time_point::max();
  connection.leave();
  settle(connection);
}

void VirtioVsock::remove(VsockConnection& connection, int error) {
  if (connection.state() != State::kLeftover) by_ports_.erase(key_of(connection.ports()));
  if (connection.queued) std::erase(ready_, connection.id());
  const VsockDone done = std::move(connection.done);
  connections_.erase(connection.id());
  if (done) done({.error = error});
}

void VirtioVsock::remove_all(bool keep_leftovers) {
  std::vector<VsockConnection*> all;
  for (const auto& [id, connection] : connections_) all.push_back(connection.get());
  for (VsockConnection* connection : all) {
    if (!keep_leftovers) {
      remove(*connection);
    } else if (connection->state() != State::kLeftover) {
      leave(*connection);
    }
  }
}

size_t VirtioVsock::held() const {
  size_t sum = 0;
  for (const auto& [id, connection] : connections_) sum += connection->held();
  return sum;
}

// --- the host's events ------------------------------------------------------------------------------

void VirtioVsock::sockets_ready() {
  std::array<epoll_event, kEventsAtOnce> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsAtOnce, 0);
  for (int i = 0; i < count; ++i) {
    // Copied: the structure is packed, and nothing may refer to its members.
    const epoll_event event = events[static_cast<size_t>(i)];
    const uint64_t id = event.data.u64;
    if (id == kTimerId) {
      timer_fired();
    } else if (const auto found = connections_.find(id); found != connections_.end()) {
      host_event(*found->second, uint32_t{event.events});
    }
  }
  pump();
}

void VirtioVsock::host_event(VsockConnection& connection, uint32_t epoll_events) {
  connection.host_event(epoll_events);
  connection.flush();
  if (connection.state() == State::kLeftover && (connection.held() == 0 || connection.broken()))
    return remove(connection);
  if (connection.state() == State::kRequested && connection.host_has_closed()) {
    // Whoever asked is gone. A guest that knows of it hears of that.
    if (connection.next()) return remove(connection, ECONNABORTED);
    const VsockDone done = std::move(connection.done);
    connection.done = nullptr;
    connection.reset();
    done({.error = ECONNABORTED});
  }
  settle(connection);
}

void VirtioVsock::set_deadline(VsockConnection& connection, Clock::time_point deadline) {
  connection.deadline = deadline;
  arm_timer(deadline);
}

void VirtioVsock::arm_timer(Clock::time_point deadline) {
  if (deadline >= timer_at_) return;
  timer_at_ = deadline;
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
  const itimerspec spec{.it_interval = {},
                        .it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000}};
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void VirtioVsock::timer_fired() {
  uint64_t expirations = 0;
  if (::read(timer_.get(), &expirations, sizeof expirations) <= 0) return;
  timer_at_ = Clock::time_point::max();
  const auto now = Clock::now();
  std::vector<VsockConnection*> late;
  for (const auto& [id, connection] : connections_)
    if (connection->deadline <= now) late.push_back(connection.get());
  for (VsockConnection* connection : late) timed_out(*connection);
  for (const auto& [id, connection] : connections_)
    if (connection->deadline != Clock::time_point::max()) set_deadline(*connection, connection->deadline);
  if (guest_hears_event()) arm_timer(heard_at_latest_);
}

void VirtioVsock::timed_out(VsockConnection& connection) {
  connection.deadline = Clock::time_point::max();
  if (connection.state() == State::kOpening) return reopen(connection);
  if (connection.state() == State::kRequested) {
    // A request that has not even found a buffer of the guest needs no RST.
    if (connection.next()) return remove(connection, ETIMEDOUT);
    const VsockDone done = std::move(connection.done);
    connection.done = nullptr;
    connection.reset();
    done({.error = ETIMEDOUT});
  } else if (connection.state() == State::kEnded) {
    connection.reset();
  }
  settle(connection);
}

// Asks a busy backend once more.
void VirtioVsock::reopen(VsockConnection& connection) {
  const auto now = Clock::now();
  auto stream = backend_.open(connection.ports().host);
  if (stream) {
    connection.accepted(std::move(*stream));
    if (!watch(connection)) connection.reset();
  } else if (stream.error() == EAGAIN && now < connection.give_up) {
    set_deadline(connection, now + config_.busy_pause);
  } else {
    connection.reset();
  }
  settle(connection);
}

}  // namespace snug
