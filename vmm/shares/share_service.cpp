#include "vmm/shares/share_service.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "devices/virtio/device.h"
#include "vmm/base/file_status.h"
#include "vmm/base/packet_socket.h"
#include "vmm/base/sparse_file.h"
#include "vmm/shares/lock_waits.h"

namespace snug {
namespace {

// Of one share. More than that wait in the guest's rings.
constexpr unsigned kThreads = 4;

// Linux has descriptors beside the ring for each request, which takes one place in it.
static_assert(LockWaits::kMaxWaiting < share::kQueueSize);

// From a device in one go: it may say more, and what others of the loop do comes first.
constexpr int kCallsAtOnce = 64;

// Between two looks at locks that are waited for.
constexpr std::chrono::milliseconds kShortest{1};
constexpr std::chrono::milliseconds kLongest{50};

// Of its state.
constexpr const char* kRings = "rings";
constexpr const char* kSession = "session";
constexpr uint16_t kStateVersion = 1;

VirtQueueFeatures ring_features(uint64_t features) {
  return {.indirect = (features & kVirtioIndirect) != 0,
          .event_idx = (features & kVirtioEventIdx) != 0,
          .packed = (features & kVirtioRingPacked) != 0};
}

}  // namespace

Result<std::unique_ptr<ShareService>> ShareService::create(EventLoop& loop, Share share) {
  UniqueFd root = std::move(share.root);
  UniqueFd proc_self_fd = std::move(share.proc_self_fd);
  ShareOptions options = std::move(share.options);
  std::function<void()> thread_begins = std::move(share.thread_begins);
  std::unique_ptr<ShareService> service(new ShareService(loop, std::move(share)));
  ShareService* self = service.get();
  self->session_ = SNUG_TRY(ShareSession::create(
      std::move(root), std::move(proc_self_fd), std::move(options),
      [self](uint64_t ticket, uint32_t written) { self->threads_->finish(ticket, written); }));
  QueueThreads::Events events;
  events.serve = [self](const GuestMemory& memory, const VirtChain& chain, uint64_t ticket) {
    const auto written = self->session_->serve(memory, chain, ticket);
    if (!written)
      self->loop_.post([self] {
        self->patience_ = kShortest;
        self->locks_.arm(self->patience_);
      });
    return written;
  };
  // Not on the thread that has found it: its lock is held. By then it may be about a machine that is gone.
  events.broken = [self](uint32_t machine, const std::string& why) {
    self->loop_.post([self, machine, why] {
      if (self->is_attached(machine)) self->tell(share::NewsKind::kBroken, why);
    });
  };
  events.stopped = [self](uint32_t machine) {
    self->loop_.post([self, machine] {
      if (self->is_attached(machine)) self->on_stopped();
    });
  };
  events.held = [self](uint32_t machine) {
    self->loop_.post([self, machine] {
      if (self->is_attached(machine)) self->on_held();
    });
  };
  self->locks_ = SNUG_TRY(loop.timer([self] { self->look_at_locks(); }));
  self->threads_ = SNUG_TRY(QueueThreads::create(std::move(events), kThreads, std::move(thread_begins)));
  self->watch_ = SNUG_TRY(loop.watch(self->socket_.get(), EPOLLIN, [self](uint32_t) { self->on_calls(); }));
  return service;
}

// Level-triggered: what is left is for the loop's next turn.
void ShareService::on_calls() {
  for (int calls = 0; calls < kCallsAtOnce; ++calls) {
    share::Call call;
    std::array<char, sizeof call> buffer;
    size_t size = 0;
    std::vector<UniqueFd> descriptors;
    const int error =
        receive_packet(socket_.get(), buffer, size, descriptors, 1 + share::kFilesMax + share::kQueuesMax);
    if (error == EAGAIN) return;
    if (error != 0 || size != sizeof call)
      return failed_(error == EPIPE ? "" : "a device says what makes no sense");
    std::memcpy(&call, buffer.data(), sizeof call);
    if (const std::string wrong = obey(call, std::move(descriptors)); !wrong.empty()) return failed_(wrong);
  }
}

std::string ShareService::obey(const share::Call& call, std::vector<UniqueFd> descriptors) {
  const auto kind = static_cast<share::CallKind>(call.kind);
  if (kind == share::CallKind::kAttach) return attach(call, std::move(descriptors));
  // A machine that has ended, whose successor was quicker.
  if (!is_attached(call.generation)) return {};
  switch (kind) {
    case share::CallKind::kStart:
      return start(call, std::move(descriptors));
    case share::CallKind::kMoved:
      if (call.argument >= threads_->queue_count() || descriptors.size() != 1)
        return "interrupts of a queue that there is not";
      threads_->move_interrupt(call.argument, std::move(descriptors.front()));
      return {};
    case share::CallKind::kStop:
      threads_->stop();
      return {};
    case share::CallKind::kHold:
      return hold(std::move(descriptors));
    case share::CallKind::kRelease:
      state_.reset();
      threads_->release();
      return {};
    case share::CallKind::kGoOn:
      return go_on(call, std::move(descriptors));
    case share::CallKind::kDetach:
      threads_->detach();
      session_->reset();
      attached_ = false;
      return {};
    case share::CallKind::kAttach:
      break;
  }
  return "a device says what makes no sense";
}

namespace {

// What the guest has as memory beside RAM, of which `descriptors` has the files in front.
Result<void> add_files(GuestMemory& memory, const share::Call& call, std::vector<UniqueFd>& descriptors) {
  auto next = descriptors.begin();
  for (const share::MemoryFile& file : call.files) {
    if (file.size == 0) continue;
    if (next == descriptors.end()) return fail("memory without its file");
    GuestMemory::FileRegion region{};
    region.gpa = file.gpa;
    region.size = file.size;
    region.access = file.writable != 0 ? GuestMemory::Access::kReadWrite : GuestMemory::Access::kRead;
    region.fd = next->get();
    region.bytes = file.bytes;
    SNUG_TRY(memory.add_file(region, "a disk of mode pmem"));
    ++next;
  }
  // What is mapped needs no descriptor.
  descriptors.erase(descriptors.begin(), next);
  return {};
}

}  // namespace

std::string ShareService::attach(const share::Call& call, std::vector<UniqueFd> descriptors) {
  if (descriptors.size() < 3) return "a machine without memory or queues";
  auto memory = GuestMemory::attach(std::move(descriptors.front()), call.argument);
  if (!memory) return memory.error().message;
  descriptors.erase(descriptors.begin());
  if (auto added = add_files(*memory, call, descriptors); !added) return added.error().message;
  if (descriptors.size() < 2 || descriptors.size() > share::kQueuesMax)
    return "a machine with other queues than there are";
  attached_ = false;
  if (auto attached = threads_->attach(call.generation, std::move(*memory), std::move(descriptors));
      !attached)
    return attached.error().message;
  session_->reset();
  generation_ = call.generation;
  attached_ = true;
  return {};
}

std::string ShareService::start(const share::Call& call, std::vector<UniqueFd> descriptors,
                                SectionReader* rings_saved) {
  std::vector<QueueThreads::Ring> rings(threads_->queue_count());
  auto next = descriptors.begin();
  for (size_t i = 0; i < rings.size(); ++i) {
    const share::Ring& ring = call.rings[i];
    if (ring.size == 0) continue;
    if (next == descriptors.end() || ring.size > UINT16_MAX) return "a ring without interrupts";
    rings[i].layout = {static_cast<uint16_t>(ring.size), ring.descriptors, ring.available, ring.used};
    rings[i].interrupt = std::move(*next++);
  }
  // The transport has looked at them already; memory has not changed since.
  return threads_->start(ring_features(call.argument), std::move(rings), rings_saved);
}

// --- snapshots --------------------------------------------------------------------------------------------

std::string ShareService::hold(std::vector<UniqueFd> descriptors) {
  if (descriptors.size() != 1) return "a machine that stands still, without a file";
  state_ = std::move(descriptors.front());
  return threads_->hold() ? "" : "a machine that stands still, without a driver";
}

void ShareService::on_held() {
  // Released meanwhile.
  if (!state_) return;
  const std::string why = save();
  tell(why.empty() && session_->begun() ? share::NewsKind::kHeldMounted : share::NewsKind::kHeld, why);
}

// "" or why there is no state.
std::string ShareService::save() {
  StateWriter state;
  threads_->save(state.section(kRings, kStateVersion));
  if (std::string why = session_->save(state.section(kSession, kStateVersion)); !why.empty()) return why;
  const std::vector<std::byte> bytes = state.finish();
  if (bytes.size() > share::kStateMax) return "the guest knows more files than a snapshot has room for";
  const auto written = write_at(state_.get(), bytes, 0);
  return written ? "" : written.error().text();
}

std::string ShareService::go_on(const share::Call& call, std::vector<UniqueFd> descriptors) {
  struct stat status {};
  if (descriptors.empty() || !file_status(descriptors.front().get(), status) ||
      static_cast<uint64_t>(status.st_size) > share::kStateMax)
    return "a machine that goes on, without a state";
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  if (const auto read = read_at(descriptors.front().get(), bytes, 0); !read) return read.error().text();
  descriptors.erase(descriptors.begin());
  auto state = StateReader::parse(std::move(bytes));
  if (!state) return state.error().text();
  auto rings = state->section(kRings, kStateVersion);
  if (!rings) return rings.error().text();
  auto session = state->section(kSession, kStateVersion);
  if (!session) return session.error().text();
  session_->restore(*session);
  if (const auto read = session->finish(); !read) return read.error().text();
  return start(call, std::move(descriptors), &*rings);
}

void ShareService::on_stopped() {
  session_->reset();
  tell(share::NewsKind::kStopped);
}

// The host tells nobody that a lock is free.
void ShareService::look_at_locks() {
  if (!session_->poll()) return;
  patience_ = std::min(2 * patience_, kLongest);
  locks_.arm(patience_);
}

void ShareService::tell(share::NewsKind kind, const std::string& text) {
  const share::News news{static_cast<uint32_t>(kind), generation_};
  const std::string_view words = std::string_view(text).substr(0, share::kTextMax);
  const std::array parts{iovec{const_cast<share::News*>(&news), sizeof news},
                         iovec{const_cast<char*>(words.data()), words.size()}};
  const int error = send_packet(socket_.get(), parts);
  if (error == EAGAIN) failed_("a device does not listen");
}

}  // namespace snug
