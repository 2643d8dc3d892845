// A request of the guest: parts of its memory that the device reads or writes, and the copies to and from
// them. Nothing here holds on to guest memory; every copy checks the range again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/core/guest_memory.h"

namespace snug {

// A part of a request in guest memory. All of it is RAM, or within a file that the guest has as memory and,
// of a writable part, that may be written to; length is not 0.
struct VirtBuffer {
  uint64_t gpa;
  uint32_t length;  // bytes
};

// One request. Reused from pop to pop, so that the steady state allocates nothing.
struct VirtChain {
  uint16_t head = 0;                 // names the chain when it is given back
  std::vector<VirtBuffer> readable;  // by the device, in order
  std::vector<VirtBuffer> writable;  // by the device, in order

  uint64_t readable_bytes() const;
  uint64_t writable_bytes() const;
};

// A chain given back.
struct VirtUsed {
  uint16_t head;
  uint32_t written;  // bytes
};

// Appends the host memory of [offset, offset + length) of the buffers, for one system call. False when they
// end earlier or are not there any more.
bool append_chain_iovecs(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                         uint64_t length, std::vector<iovec>& iovecs);

// Copies between a chain's buffers and host memory, from `offset` bytes into them. Returns how many bytes
// there were, which is less than asked for when the buffers end.
size_t copy_from_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                       std::span<std::byte> out);
size_t copy_to_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                     std::span<const std::byte> data);

// [offset, offset + length) of the buffers was written to through the iovecs made above.
void wrote_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                 uint64_t length);

}  // namespace snug
