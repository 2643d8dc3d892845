#include "vmm/base/packet_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/base/assertion.h"

namespace snug {
namespace {

union Control {
  cmsghdr align;
  std::array<char, CMSG_SPACE(sizeof(int) * kPacketDescriptorsMax)> bytes;
};

void take_descriptors(msghdr& message, std::vector<UniqueFd>& descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + i * sizeof number, sizeof number);
      descriptors.emplace_back(number);
    }
  }
}

// An empty packet reads like the end of the other side.
bool hung_up(int socket) {
  pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return ::poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
}

}  // namespace

int send_packet(int socket, std::span<const iovec> parts, std::span<const int> descriptors) {
  SNUG_ASSERT(descriptors.size() <= kPacketDescriptorsMax);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  Control control{};
  if (!descriptors.empty()) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int receive_packet(int socket, std::span<char> buffer, size_t& size, std::vector<UniqueFd>& descriptors,
                   size_t descriptors_max) {
  SNUG_ASSERT(descriptors_max <= kPacketDescriptorsMax);
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  if (descriptors_max > 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen =
        CMSG_LEN(descriptors_max * sizeof(int));  // its padding would have room for another
  }
  ssize_t count = -1;
  // ECONNRESET, once: the other side went without reading all of it. What it had sent is still there.
  do count = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (count < 0 && (errno == EINTR || errno == ECONNRESET));
  if (count < 0) return errno;
  descriptors.clear();
  take_descriptors(message, descriptors);
  if (count == 0) return hung_up(socket) ? EPIPE : EPROTO;
  if ((message.msg_flags & MSG_TRUNC) != 0) return EPROTO;
  size = static_cast<size_t>(count);
  return 0;
}

ssize_t receive_with_descriptors(int socket, std::span<char> buffer, std::vector<UniqueFd>& descriptors) {
  iovec part{buffer.data(), buffer.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  const ssize_t count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count >= 0) take_descriptors(message, descriptors);
  return count;
}

}  // namespace snug
