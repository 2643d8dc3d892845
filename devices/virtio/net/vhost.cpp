#include "devices/virtio/net/vhost.h"

// The layout of legacy rings, which vhost.h brings along, is no C++.
#define VIRTIO_RING_NO_LEGACY
#include <linux/vhost.h>
#include <sys/ioctl.h>

#include <cstring>
#include <vector>

#include "devices/virtio/net/features.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// What a driver may have negotiated that is a matter between it and whoever works on its rings.
constexpr uint64_t kRingFeatures =
    kVirtioVersion1 | kVirtioIndirect | kVirtioEventIdx | net::kMergeableBuffers;

// The kernel's own table of memory: guest-physical to our addresses. What it may not write to it finds out by
// itself.
std::vector<std::byte> memory_table(const GuestMemory& memory) {
  std::vector<GuestMemory::Region> regions(memory.regions().begin(), memory.regions().end());
  regions.insert(regions.end(), memory.files().begin(), memory.files().end());
  std::vector<std::byte> bytes(sizeof(vhost_memory) + regions.size() * sizeof(vhost_memory_region));
  vhost_memory head{};
  head.nregions = static_cast<uint32_t>(regions.size());
  std::memcpy(bytes.data(), &head, sizeof head);
  for (size_t i = 0; i < regions.size(); ++i) {
    vhost_memory_region region{};
    region.guest_phys_addr = regions[i].gpa;
    region.memory_size = regions[i].size;
    region.userspace_addr = reinterpret_cast<uint64_t>(regions[i].host);
    std::memcpy(bytes.data() + sizeof head + i * sizeof region, &region, sizeof region);
  }
  return bytes;
}

// Our address of a part of a ring; 0 when it is not RAM.
uint64_t address_of(const GuestMemory& memory, uint64_t gpa, uint64_t length) {
  std::vector<iovec> parts;
  if (!memory.contains(gpa, length) || !memory.append_iovec(gpa, length, parts)) return 0;
  return reinterpret_cast<uint64_t>(parts.front().iov_base);
}

}  // namespace

Result<uint64_t> VhostNet::prepare(int fd) {
  uint64_t features = 0;
  if (::ioctl(fd, VHOST_GET_FEATURES, &features) != 0) return fail_errno(errno, "VHOST_GET_FEATURES");
  if ((features & kVirtioVersion1) == 0) return fail("vhost-net without virtio 1");
  return features;
}

Result<std::unique_ptr<VhostNet>> VhostNet::create(int fd) {
  // The memory that it works on is this process's. EBUSY: it is so already, since an earlier boot.
  if (::ioctl(fd, VHOST_SET_OWNER, nullptr) != 0 && errno != EBUSY)
    return fail_errno(errno, "VHOST_SET_OWNER");
  std::unique_ptr<VhostNet> vhost(new VhostNet(fd));
  for (UniqueFd& kick : vhost->kicks_) kick = SNUG_TRY(make_eventfd());
  vhost->error_ = SNUG_TRY(make_eventfd());
  return vhost;
}

Result<void> VhostNet::start(const GuestMemory& memory, uint64_t features,
                             const std::array<VirtioRingPlace, kRings>& rings, int tap_fd) {
  running_ = true;
  auto done = set_up(memory, features, rings, tap_fd);
  if (!done) stop();
  return done;
}

Result<void> VhostNet::set_up(const GuestMemory& memory, uint64_t features,
                              const std::array<VirtioRingPlace, kRings>& rings, int tap_fd) {
  uint64_t wanted = features & kRingFeatures;
  if (::ioctl(fd_, VHOST_SET_FEATURES, &wanted) != 0) return fail_errno(errno, "VHOST_SET_FEATURES");
  const std::vector<std::byte> table = memory_table(memory);
  if (::ioctl(fd_, VHOST_SET_MEM_TABLE, table.data()) != 0) return fail_errno(errno, "VHOST_SET_MEM_TABLE");
  for (unsigned i = 0; i < kRings; ++i) SNUG_TRY(set_up_ring(memory, i, rings[i]));
  for (unsigned i = 0; i < kRings; ++i)
    SNUG_TRY(set_file(VHOST_NET_SET_BACKEND, i, tap_fd, "VHOST_NET_SET_BACKEND"));
  return {};
}

Result<void> VhostNet::set_up_ring(const GuestMemory& memory, unsigned index, const VirtioRingPlace& ring) {
  const uint64_t size = ring.layout.size;
  vhost_vring_state state{.index = index, .num = ring.layout.size};
  if (::ioctl(fd_, VHOST_SET_VRING_NUM, &state) != 0) return fail_errno(errno, "VHOST_SET_VRING_NUM");
  state.num = next_[index];
  if (::ioctl(fd_, VHOST_SET_VRING_BASE, &state) != 0) return fail_errno(errno, "VHOST_SET_VRING_BASE");
  // 2.7: sizes of the three parts, event indexes included.
  vhost_vring_addr address{};
  address.index = index;
  address.desc_user_addr = address_of(memory, ring.layout.descriptors, 16 * size);
  address.avail_user_addr = address_of(memory, ring.layout.available, 6 + 2 * size);
  address.used_user_addr = address_of(memory, ring.layout.used, 6 + 8 * size);
  if (address.desc_user_addr == 0 || address.avail_user_addr == 0 || address.used_user_addr == 0)
    return fail("a ring that is not in RAM");
  if (::ioctl(fd_, VHOST_SET_VRING_ADDR, &address) != 0) return fail_errno(errno, "VHOST_SET_VRING_ADDR");
  SNUG_TRY(set_file(VHOST_SET_VRING_KICK, index, kicks_[index].get(), "VHOST_SET_VRING_KICK"));
  SNUG_TRY(set_file(VHOST_SET_VRING_CALL, index, ring.interrupt_fd, "VHOST_SET_VRING_CALL"));
  return set_file(VHOST_SET_VRING_ERR, index, error_.get(), "VHOST_SET_VRING_ERR");
}

Result<void> VhostNet::set_file(unsigned long request, unsigned ring, int file, const char* what) {
  vhost_vring_file argument{.index = ring, .fd = file};
  if (::ioctl(fd_, request, &argument) != 0) return fail_errno(errno, "{}", what);
  return {};
}

void VhostNet::set_interrupt(Ring ring, int event_fd) {
  if (auto set = set_file(VHOST_SET_VRING_CALL, ring, event_fd, "VHOST_SET_VRING_CALL"); !set)
    log_debug("vhost: {}", set.error().text());
}

void VhostNet::stop() {
  if (!running_) return;
  running_ = false;
  for (unsigned i = 0; i < kRings; ++i) {
    (void)set_file(VHOST_NET_SET_BACKEND, i, -1, "");
    vhost_vring_state state{.index = i, .num = 0};
    if (::ioctl(fd_, VHOST_GET_VRING_BASE, &state) == 0) next_[i] = static_cast<uint16_t>(state.num);
    // What the kernel holds on to otherwise is the guest's vectors.
    for (const unsigned long file : {VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR})
      (void)set_file(file, i, -1, "");
  }
}

}  // namespace snug
