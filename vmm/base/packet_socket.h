// Packets over SOCK_SEQPACKET sockets, with descriptors (unix(7)). Any thread; nothing here waits.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <span>
#include <vector>

#include "vmm/base/unique_fd.h"

namespace snug {

constexpr size_t kPacketDescriptorsMax = 32;

// Sends one packet, whole or not at all. `descriptors`: at most kPacketDescriptorsMax. 0 or an errno (EAGAIN:
// the other side does not read).
int send_packet(int socket, std::span<const iovec> parts, std::span<const int> descriptors = {});

// Receives one packet into `buffer`. 0, or an errno: EAGAIN: none yet; EPIPE: the other side is gone; EPROTO:
// it is empty, or longer than the buffer. At most `descriptors_max` of the descriptors that come are kept,
// the others are dropped by the kernel.
int receive_packet(int socket, std::span<char> buffer, size_t& size, std::vector<UniqueFd>& descriptors,
                   size_t descriptors_max);

// Of a stream: what there is, at most `buffer`, and the descriptors that came with it, at most
// kPacketDescriptorsMax (the kernel drops those beyond). As recvmsg(2).
ssize_t receive_with_descriptors(int socket, std::span<char> buffer, std::vector<UniqueFd>& descriptors);

}  // namespace snug
