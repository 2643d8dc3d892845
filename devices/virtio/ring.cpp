#include "devices/virtio/ring.h"

#include <fmt/format.h>

#include <utility>

#include "devices/virtio/ring_layout.h"

namespace snug {

VirtRing::Pop VirtRing::broken(std::string why) {
  why_ = std::move(why);
  return Pop::kBroken;
}

bool VirtRing::add_buffer(const GuestMemory& memory, uint64_t gpa, uint32_t length, bool writable,
                          VirtChain& chain, std::string& why) {
  if (!memory.reaches(gpa, length, writable ? GuestMemory::Access::kReadWrite : GuestMemory::Access::kRead)) {
    const bool read_only = writable && memory.reaches(gpa, length, GuestMemory::Access::kRead);
    why = fmt::format("a buffer of {} bytes at {:#x}, which is {}", length, gpa,
                      read_only ? "memory that nobody may write to" : "not in RAM");
    return false;
  }
  // 2.7.4.2, 2.8.17: what the device reads comes first.
  if (!writable && !chain.writable.empty()) {
    why = "a readable buffer behind a writable one";
    return false;
  }
  if (length != 0) (writable ? chain.writable : chain.readable).push_back({gpa, length});
  return true;
}

bool VirtRing::check_indirect(const GuestMemory& memory, uint64_t gpa, uint32_t length, std::string& why) {
  if (length == 0 || length % kDescriptorSize != 0) {
    why = fmt::format("an indirect table of {} bytes", length);
  } else if (!memory.contains(gpa, length)) {
    why = fmt::format("an indirect table of {} bytes at {:#x}, which is not in RAM", length, gpa);
  } else {
    return true;
  }
  return false;
}

std::string check_ring_part(const GuestMemory& memory, const char* part, uint64_t gpa, uint64_t size,
                            uint64_t alignment) {
  if (gpa % alignment != 0) return fmt::format("{} at {:#x} is not aligned to {}", part, gpa, alignment);
  if (!memory.contains(gpa, size)) return fmt::format("{} at {:#x} is not in RAM", part, gpa);
  return {};
}

}  // namespace snug
