#include "vmm/run/warden_protocol.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace snug::warden {
namespace {

constexpr size_t kHeadMax = 64;

union Control {
  cmsghdr align;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

// The one descriptor of a message; for more there was no room.
UniqueFd take_descriptor(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int number = -1;
    std::memcpy(&number, CMSG_DATA(part), sizeof number);
    return UniqueFd(number);
  }
  return {};
}

// An empty packet reads like the end of the other side.
bool hung_up(int socket) {
  pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return ::poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
}

}  // namespace

int send_packet(int socket, const void* head, size_t head_size, std::string_view text, int descriptor) {
  text = text.substr(0, kTextMax);
  std::array<iovec, 2> parts{iovec{const_cast<void*>(head), head_size},
                             iovec{const_cast<char*>(text.data()), text.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  Control control{};
  if (descriptor >= 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(part), &descriptor, sizeof descriptor);
  }
  for (;;) {
    if (::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int receive_packet(int socket, void* head, size_t head_size, std::string& text, UniqueFd* descriptor) {
  std::array<char, kHeadMax + kTextMax> buffer;
  iovec part{buffer.data(), head_size + kTextMax};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  if (descriptor != nullptr) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = CMSG_LEN(sizeof(int));  // the padding behind would have room for another
  }
  ssize_t count = -1;
  // ECONNRESET, once: the other side went without reading all of it. What it had sent is still there.
  do count = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (count < 0 && (errno == EINTR || errno == ECONNRESET));
  if (count < 0) return errno;
  if (descriptor != nullptr) *descriptor = take_descriptor(message);
  if (count == 0) return hung_up(socket) ? EPIPE : EPROTO;
  const auto size = static_cast<size_t>(count);
  if (size < head_size || (message.msg_flags & MSG_TRUNC) != 0) return EPROTO;
  std::memcpy(head, buffer.data(), head_size);
  text.assign(buffer.data() + head_size, size - head_size);
  return 0;
}

std::string error_text(const Error& error) {
  constexpr size_t kHintRoom = 1024;
  return error.message.substr(0, kTextMax - kHintRoom) + std::string(1, '\0') +
         error.hint.substr(0, kHintRoom - 1);
}

Error error_of(std::string_view text) {
  const size_t end = text.find('\0');
  Error error;
  error.message = text.substr(0, end);
  if (end != std::string_view::npos) error.hint = text.substr(end + 1);
  return error;
}

}  // namespace snug::warden
