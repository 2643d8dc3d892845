#include "devices/virtio/chain.h"

#include <algorithm>

namespace snug {
namespace {

uint64_t total(const std::vector<VirtBuffer>& buffers) {
  uint64_t sum = 0;
  for (const VirtBuffer& buffer : buffers) sum += buffer.length;
  return sum;
}

// Calls copy(gpa, part of data) for what lies behind `offset`.
template <class Span, class Copy>
size_t each_part(const std::vector<VirtBuffer>& buffers, uint64_t offset, Span data, Copy copy) {
  size_t done = 0;
  for (const VirtBuffer& buffer : buffers) {
    if (done == data.size()) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    const size_t length = std::min<size_t>(data.size() - done, buffer.length - offset);
    if (!copy(buffer.gpa + offset, data.subspan(done, length))) break;
    done += length;
    offset = 0;
  }
  return done;
}

}  // namespace

uint64_t VirtChain::readable_bytes() const { return total(readable); }
uint64_t VirtChain::writable_bytes() const { return total(writable); }

bool append_chain_iovecs(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                         uint64_t length, std::vector<iovec>& iovecs) {
  for (const VirtBuffer& buffer : buffers) {
    if (length == 0) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    const uint64_t part = std::min<uint64_t>(length, buffer.length - offset);
    if (!memory.append_iovec(buffer.gpa + offset, part, iovecs)) return false;
    length -= part;
    offset = 0;
  }
  return length == 0;
}

size_t copy_from_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                       std::span<std::byte> out) {
  return each_part(buffers, offset, out,
                   [&](uint64_t gpa, std::span<std::byte> part) { return memory.read(gpa, part); });
}

size_t copy_to_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                     std::span<const std::byte> data) {
  return each_part(buffers, offset, data,
                   [&](uint64_t gpa, std::span<const std::byte> part) { return memory.write(gpa, part); });
}

void wrote_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                 uint64_t length) {
  for (const VirtBuffer& buffer : buffers) {
    if (length == 0) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    const uint64_t part = std::min<uint64_t>(length, buffer.length - offset);
    memory.wrote(buffer.gpa + offset, part);
    length -= part;
    offset = 0;
  }
}

}  // namespace snug
