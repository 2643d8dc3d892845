#include "vmm/base/socket_io.h"

#include <sys/uio.h>

namespace snug {

ssize_t send_some(int fd, const void* bytes, size_t size, int flags) {
  iovec part{.iov_base = const_cast<void*>(bytes), .iov_len = size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return ::sendmsg(fd, &message, flags | MSG_NOSIGNAL);
}

ssize_t receive_some(int fd, void* bytes, size_t size, int flags) {
  iovec part{.iov_base = bytes, .iov_len = size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return ::recvmsg(fd, &message, flags);
}

}  // namespace snug
