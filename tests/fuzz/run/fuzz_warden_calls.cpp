// Any packets from a machine's process: the warden answers each call that makes sense once, with a descriptor
// where one was asked for only, refuses the others, and keeps no descriptor. An input is packets, each behind
// two bytes of length (little-endian); the lowest bit of the length gives it a descriptor.
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

#include "vmm/base/assertion.h"
#include "vmm/base/log.h"
#include "vmm/run/warden.h"

namespace {

namespace fs = std::filesystem;
using snug::UniqueFd;
using snug::warden::CallKind;

constexpr size_t kPacketsMax = 200;

// What a machine has by name: a folder, vsock, a kernel that can be kept, and a tap; no passt.
class Host {
 public:
  Host() {
    std::string pattern = fs::temp_directory_path() / "snug-fuzz-XXXXXX";
    SNUG_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    (void)snug::log_open(snug::LogLevel::kOff);
    loop_ = *snug::EventLoop::create();
    fs::create_directory(folder_ / "machines");
    directory_.emplace(*snug::VmDirectory::create("m", snug::Keep::kYes, {folder_ / "machines"}));
    ends_.vsock = *snug::VsockHub::create(*loop_, folder_ / "vsock");
    ends_.nics.resize(1);
    ends_.nics[0].mode = snug::NetMode::kTap;
    ends_.taps.emplace(0, snug::Tap());
    kernel_ = UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  }
  ~Host() {
    ends_.vsock.reset();
    directory_.reset();
    fs::remove_all(folder_);
  }

  snug::Warden::Duties duties() {
    ends_.kernel_store = *snug::KernelStore::open(folder_ / "kernels");
    ends_.kernel_store.choose(kernel_.get());
    return {ends_,
            &*directory_,
            nullptr,
            false,
            [] {},
            [](const snug::TimeLimit& grace) {
              SNUG_ASSERT(!grace || static_cast<uint64_t>(grace->count()) < snug::warden::kLongest);
            }};
  }

 private:
  fs::path folder_;
  std::unique_ptr<snug::EventLoop> loop_;
  snug::HostEnds ends_;
  std::optional<snug::VmDirectory> directory_;
  UniqueFd kernel_;
};

std::array<UniqueFd, 2> packet_pair() {
  std::array<int, 2> ends{};
  SNUG_ASSERT(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void send_packet(int socket, const uint8_t* data, size_t size, bool with_descriptor) {
  iovec part{const_cast<uint8_t*>(data), size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (with_descriptor) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof socket);
    std::memcpy(CMSG_DATA(head), &socket, sizeof socket);
  }
  SNUG_ASSERT(::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size));
}

bool asks(uint32_t kind) {
  switch (static_cast<CallKind>(kind)) {
    case CallKind::kConnectVsock:
    case CallKind::kStartNetwork:
    case CallKind::kNextLog:
    case CallKind::kBeginKernel:
    case CallKind::kKeepKernel:
      return true;
    default:
      return false;
  }
}

// False: the machine would have ended.
bool one_packet(snug::Warden& warden, int near, int far, const uint8_t* data, size_t size,
                bool with_descriptor) {
  send_packet(far, data, size, with_descriptor);
  snug::warden::Call call;
  std::string text;
  const int lowest = ::dup(far);
  ::close(lowest);
  const int error = snug::warden::receive_packet(near, &call, sizeof call, text, nullptr);
  SNUG_ASSERT((error == 0) == (size >= sizeof call && size <= sizeof call + snug::warden::kTextMax));
  SNUG_ASSERT(error == 0 || error == EPROTO);
  const bool fine = error == 0 && warden.answer(call, text);
  snug::warden::Packet<snug::warden::Answer> answer;
  const int answered = snug::warden::receive(far, answer);
  SNUG_ASSERT(answered == (fine ? 0 : EAGAIN));
  if (fine) {
    SNUG_ASSERT(answer.head.id == call.id && answer.head.error >= 0);
    SNUG_ASSERT(static_cast<bool>(answer.descriptor) == (asks(call.kind) && answer.head.error == 0));
    SNUG_ASSERT(snug::warden::receive(far, answer) == EAGAIN);
  }
  answer.descriptor.reset();
  // Whatever was opened is closed again: the next descriptor is the one that it was.
  const int next = ::dup(far);
  ::close(next);
  SNUG_ASSERT(next == lowest);
  return fine;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Host host;
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  auto calls = packet_pair();
  auto news = packet_pair();
  const int near = calls[0].get();
  // No process: nobody is signalled.
  auto warden = snug::Warden::create(
      {-1, UniqueFd(::eventfd(0, EFD_CLOEXEC)), UniqueFd(), std::move(calls[0]), std::move(news[0])},
      host.duties());
  SNUG_ASSERT(warden);
  for (size_t i = 0; i < kPacketsMax && size >= 2; ++i) {
    const size_t wanted = data[0] | static_cast<size_t>(data[1]) << 8;
    data += 2;
    size -= 2;
    const size_t length = std::min(wanted / 2, size);
    if (!one_packet(**warden, near, calls[1].get(), data, length, (wanted & 1) != 0)) break;
    data += length;
    size -= length;
  }
  warden->reset();
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  return 0;
}
