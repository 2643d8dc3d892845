// Feature bits of a network device (virtio 1.2, 5.1.3; segmentation of UDP: virtio 1.3).
#pragma once

#include <cstdint>

namespace snug::net {

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

// Checksums and segments that the guest leaves to us ("host"), and those that it takes unfinished ("guest").
constexpr uint64_t kChecksum = bit(0);
constexpr uint64_t kGuestChecksum = bit(1);
constexpr uint64_t kGuestTso4 = bit(7);
constexpr uint64_t kGuestTso6 = bit(8);
constexpr uint64_t kGuestEcn = bit(9);
constexpr uint64_t kGuestUfo = bit(10);
constexpr uint64_t kHostTso4 = bit(11);
constexpr uint64_t kHostTso6 = bit(12);
constexpr uint64_t kHostEcn = bit(13);
constexpr uint64_t kGuestUso4 = bit(54);
constexpr uint64_t kGuestUso6 = bit(55);
constexpr uint64_t kHostUso = bit(56);
// What can be switched on and off by kControlOffloads.
constexpr uint64_t kGuestOffloads =
    kGuestChecksum | kGuestTso4 | kGuestTso6 | kGuestEcn | kGuestUfo | kGuestUso4 | kGuestUso6;

constexpr uint64_t kControlOffloads = bit(2);
constexpr uint64_t kMtu = bit(3);
constexpr uint64_t kMac = bit(5);
constexpr uint64_t kMergeableBuffers = bit(15);
constexpr uint64_t kStatus = bit(16);
constexpr uint64_t kControlQueue = bit(17);
constexpr uint64_t kControlReceive = bit(18);
constexpr uint64_t kGuestAnnounce = bit(21);
constexpr uint64_t kMultiQueue = bit(22);
constexpr uint64_t kControlMac = bit(23);

// 5.1.4, status
constexpr uint16_t kLinkUp = 1;
constexpr uint16_t kAnnounce = 2;

}  // namespace snug::net
