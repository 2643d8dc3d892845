#include "devices/virtio/fs/fs.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"
#include "vmm/base/file_status.h"
#include "vmm/base/packet_socket.h"
#include "vmm/base/sparse_file.h"

namespace snug {
namespace {

constexpr size_t kTagSize = 36;  // 5.11.4
constexpr const char* kGone = "its server is gone";

// Of a server in one go: it answers what it is asked, and tells of a broken ring once. One that says more is
// not to be believed any more.
constexpr int kNewsAtOnce = 64;

// Of machines of this process; the server tells answers to an earlier one by it.
uint32_t next_generation() {
  static std::atomic<uint32_t> last{0};
  return ++last;
}

int send_call(int socket, const share::Call& call, std::span<const int> descriptors = {}) {
  const iovec part{const_cast<share::Call*>(&call), sizeof call};
  return send_packet(socket, {&part, 1}, descriptors);
}

}  // namespace

VirtioFs::VirtioFs(FsConfig config)
    : config_(std::move(config)),
      name_("share " + config_.tag),
      queue_sizes_(size_t{1} + config_.queues, config_.queue_size),
      generation_(next_generation()) {
  SNUG_ASSERT(config_.queues >= 1 && queue_sizes_.size() <= share::kQueuesMax);
  SNUG_ASSERT(!config_.tag.empty() && config_.tag.size() <= kTagSize);
}

Result<std::unique_ptr<VirtioFs>> VirtioFs::create(FsConfig config, const GuestMemory& memory) {
  std::unique_ptr<VirtioFs> device(new VirtioFs(std::move(config)));
  SNUG_TRY(with_context(device->attach(memory), std::string(device->name())));
  return device;
}

Result<void> VirtioFs::attach(const GuestMemory& memory) {
  SNUG_ASSERT(memory.file() >= 0);
  interrupts_ = SNUG_TRY(make_eventfd());
  share::Call call;
  static_assert(GuestMemory::kFilesMax <= share::kFilesMax);
  static_assert(1 + share::kFilesMax + share::kQueuesMax <= kPacketDescriptorsMax);
  std::vector<int> descriptors{memory.file()};
  for (size_t i = 0; i < memory.files().size(); ++i) {
    const GuestMemory::FileRegion& file = memory.files()[i];
    const bool writable = file.access == GuestMemory::Access::kReadWrite;
    call.files[i] = {file.gpa, file.size, file.bytes, writable ? 1U : 0U};
    descriptors.push_back(file.fd);
  }
  for (size_t queue = 0; queue < queue_sizes_.size(); ++queue) {
    kicks_.push_back(SNUG_TRY(make_eventfd()));
    descriptors.push_back(kicks_.back().get());
  }
  call.kind = static_cast<uint32_t>(share::CallKind::kAttach);
  call.generation = generation_;
  call.argument = memory.size();
  if (const int error = send_call(config_.socket, call, descriptors); error != 0)
    return fail_errno(error, "its server does not listen");
  return {};
}

VirtioFs::~VirtioFs() {
  share::Call call;
  call.kind = static_cast<uint32_t>(share::CallKind::kDetach);
  call.generation = generation_;
  // One that has no room for it hears of the next machine instead.
  (void)send_call(config_.socket, call);
}

// 5.11.4; the size of the notification buffer is behind a feature that is not offered.
void VirtioFs::read_config(uint64_t offset, std::span<std::byte> data) const {
  std::array<std::byte, kTagSize + sizeof(uint32_t)> image{};
  std::memcpy(image.data(), config_.tag.data(), config_.tag.size());
  store_le(std::span<std::byte>(image).subspan(kTagSize), config_.queues);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioFs::start(VirtioHost& host, uint64_t features) {
  state_.reset();
  begin(host, features);
}

void VirtioFs::begin(VirtioHost& host, uint64_t features) {
  host_ = &host;
  features_ = features;
  start_unsaid_ = true;
  stop_unsaid_ = false;
  moved_unsaid_ = 0;
  say();
  if (gone_) host.needs_reset(kGone);
  for (uint16_t queue = 0; queue < queue_sizes_.size(); ++queue)
    if (host.ring_place(queue)) host.ring_elsewhere(queue, kicks_[queue].get());
}

bool VirtioFs::stop() {
  give_rings_back();
  if (gone_ || start_unsaid_) {
    start_unsaid_ = false;
    host_ = nullptr;
    return true;
  }
  stopping_ = stop_unsaid_ = true;
  moved_unsaid_ = 0;
  say();
  if (gone_) host_ = nullptr;
  return gone_;
}

void VirtioFs::give_rings_back() {
  for (uint16_t queue = 0; queue < queue_sizes_.size(); ++queue) host_->ring_elsewhere(queue, -1);
}

void VirtioFs::interrupt_moved(uint16_t queue) {
  if (queue >= queue_sizes_.size() || stopping_) return;
  moved_unsaid_ |= uint32_t{1} << queue;
  say();
}

// --- to the server ----------------------------------------------------------------------------------------

bool VirtioFs::said(int error) {
  if (error == 0) return true;
  // It has room again soon, and server_ready() comes with that.
  if (error != EAGAIN) gone_ = true;
  return false;
}

void VirtioFs::say() {
  if (gone_ || host_ == nullptr) return;
  if (release_unsaid_) {
    share::Call call;
    call.kind = static_cast<uint32_t>(share::CallKind::kRelease);
    call.generation = generation_;
    if (!said(send_call(config_.socket, call))) return;
    release_unsaid_ = false;
  }
  if (start_unsaid_) {
    if (!said(say_start())) return;
    start_unsaid_ = false;
    moved_unsaid_ = 0;
  }
  for (uint16_t queue = 0; queue < queue_sizes_.size() && moved_unsaid_ != 0; ++queue) {
    const uint32_t bit = uint32_t{1} << queue;
    if ((moved_unsaid_ & bit) == 0) continue;
    if (!said(say_moved(queue))) return;
    moved_unsaid_ &= ~bit;
  }
  if (stop_unsaid_) {
    share::Call call;
    call.kind = static_cast<uint32_t>(share::CallKind::kStop);
    call.generation = generation_;
    stop_unsaid_ = !said(send_call(config_.socket, call));
  }
}

int VirtioFs::say_start() {
  share::Call call;
  call.kind = static_cast<uint32_t>(state_ ? share::CallKind::kGoOn : share::CallKind::kStart);
  call.generation = generation_;
  call.argument = features_;
  std::vector<int> descriptors;
  if (state_) descriptors.push_back(state_.get());
  for (uint16_t queue = 0; queue < queue_sizes_.size(); ++queue) {
    const auto place = host_->ring_place(queue);
    if (!place) continue;
    const VirtQueueLayout& layout = place->layout;
    call.rings[queue] = {layout.descriptors, layout.available, layout.used, layout.size};
    descriptors.push_back(interrupt_of(queue));
  }
  const int error = send_call(config_.socket, call, descriptors);
  if (error == 0) state_.reset();
  return error;
}

int VirtioFs::say_moved(uint16_t queue) {
  if (!host_->ring_place(queue)) return 0;
  share::Call call;
  call.kind = static_cast<uint32_t>(share::CallKind::kMoved);
  call.generation = generation_;
  call.argument = queue;
  const int interrupt = interrupt_of(queue);
  return send_call(config_.socket, call, {&interrupt, 1});
}

int VirtioFs::interrupt_of(uint16_t queue) const {
  const auto place = host_->ring_place(queue);
  return place && place->interrupt_fd >= 0 ? place->interrupt_fd : interrupts_.get();
}

// --- snapshots --------------------------------------------------------------------------------------------

namespace {

// A file without a name, as guest memory is: the thread that saves a machine may make such.
UniqueFd make_state_file() {
  return UniqueFd(::memfd_create("share-state", MFD_CLOEXEC | MFD_ALLOW_SEALING));
}

}  // namespace

std::string VirtioFs::unsaveable() const { return gone_ ? kGone : why_not_; }

// The server answers on the loop: settle() is asked again.
bool VirtioFs::settle() {
  if (hold_ != Hold::kNone) return hold_ == Hold::kHeld;
  // A server that is told to stop has no driver any more; its answer is on its way.
  if (stopping_) return false;
  say();
  if (start_unsaid_ || moved_unsaid_ != 0) return false;
  state_ = make_state_file();
  share::Call call;
  call.kind = static_cast<uint32_t>(share::CallKind::kHold);
  call.generation = generation_;
  const int file = state_.get();
  if (state_ && said(send_call(config_.socket, call, {&file, 1}))) hold_ = Hold::kAsked;
  return false;
}

void VirtioFs::save(SectionWriter& out) const {
  struct stat status {};
  std::vector<std::byte> state;
  if (file_status(state_.get(), status))
    state.resize(std::min(share::kStateMax, static_cast<size_t>(status.st_size)));
  // What cannot be read is no state, which whoever goes on with it finds.
  if (!read_at(state_.get(), state, 0)) state.clear();
  out.blob(state);
}

void VirtioFs::wake() {
  const Hold held = std::exchange(hold_, Hold::kNone);
  why_not_.clear();
  if (held == Hold::kNone) return;
  state_.reset();
  release_unsaid_ = true;
  say();
}

void VirtioFs::go_on(VirtioHost& host, uint64_t features, SectionReader& in) {
  const auto state = in.blob(share::kStateMax);
  if (!in.good()) return in.refuse("its server's state is too long");
  state_ = make_state_file();
  if (!state_ || !write_at(state_.get(), state, 0)) return in.refuse("no file for its server's state");
  begin(host, features);
}

// --- from the server --------------------------------------------------------------------------------------

void VirtioFs::interrupts_wanted() {
  if (host_ == nullptr || stopping_) return;
  for (uint16_t queue = 0; queue < queue_sizes_.size(); ++queue)
    if (host_->ring_place(queue)) host_->interrupt(queue);
}

void VirtioFs::server_ready() {
  for (int heard = 0; !gone_; ++heard) {
    std::array<char, sizeof(share::News) + share::kTextMax> buffer;
    size_t size = 0;
    std::vector<UniqueFd> none;
    const int error = receive_packet(config_.socket, buffer, size, none, 0);
    if (error == EAGAIN) break;
    if (error != 0 || heard == kNewsAtOnce || size < sizeof(share::News)) {
      gone_ = true;
      break;
    }
    share::News news;
    std::memcpy(&news, buffer.data(), sizeof news);
    if (news.generation == generation_)
      on_news(news, std::string(buffer.data() + sizeof news, size - sizeof news));
  }
  say();
  if (!gone_ || host_ == nullptr) return;
  if (std::exchange(stopping_, false)) {
    std::exchange(host_, nullptr)->stopped();
    return;
  }
  host_->needs_reset(kGone);
}

void VirtioFs::on_news(const share::News& news, const std::string& text) {
  if (host_ == nullptr) return;
  if (news.kind == static_cast<uint32_t>(share::NewsKind::kBroken) && !stopping_) host_->needs_reset(text);
  const bool mounted = news.kind == static_cast<uint32_t>(share::NewsKind::kHeldMounted);
  if ((mounted || news.kind == static_cast<uint32_t>(share::NewsKind::kHeld)) && hold_ == Hold::kAsked) {
    mounted_ = mounted;
    why_not_ = text;
    if (text.empty()) hold_ = Hold::kHeld;
  }
  if (news.kind != static_cast<uint32_t>(share::NewsKind::kStopped) || !stopping_) return;
  stopping_ = false;
  std::exchange(host_, nullptr)->stopped();
}

}  // namespace snug
