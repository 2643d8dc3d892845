// A request of the guest and its answer. What the guest sends is copied once, then looked at; data of reads
// and writes stays where it is.
//
// Thread: one for each request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "devices/virtio/chain.h"
#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/linux_request.h"
#include "vmm/shares/outcome.h"

namespace snug {

class Request {
 public:
  Request(const GuestMemory& memory, const VirtChain& chain) : memory_(memory), chain_(chain) {}

  // False: not even a header is there.
  bool read_header();
  // Copies what is behind the header, at most `most` bytes; more is EINVAL unless it is data of a write.
  Outcome<> read_arguments(size_t most, bool data_follows);
  const fuse_in_header& header() const { return header_; }

  // The next argument. EINVAL: the request ends earlier.
  template <class T>
  requires std::is_trivially_copyable_v<T> Outcome<T> take() {
    T value;
    const auto bytes = SNUG_TRY(take_bytes(sizeof value));
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  Outcome<std::span<const std::byte>> take_bytes(size_t size);
  // Ended by a NUL, which is not part of it.
  Outcome<std::string_view> take_text();
  // The same, checked to be the name of one entry of a folder.
  Outcome<std::string_view> take_name();

  // Data that follows the arguments, in guest memory. False: there is less.
  bool data(uint64_t size, std::vector<iovec>& iovecs) const;

 private:
  const GuestMemory& memory_;
  const VirtChain& chain_;
  fuse_in_header header_{};
  std::array<std::byte, 1024> few_;
  std::vector<std::byte> many_;
  std::span<const std::byte> arguments_;
  size_t taken_ = 0;
};

// An answer that is given after its request has been left alone.
struct LateReply {
  const GuestMemory* memory = nullptr;
  std::vector<VirtBuffer> writable;
  uint64_t unique = 0;
  uint64_t ticket = 0;
  uint64_t header = 0;  // where the request's lies, if nothing else is in that buffer; or 0

  // A signal has come to who waits in the guest, as far as its driver lets that be seen (linux_request.h).
  bool is_given_up() const { return header != 0 && linux_request::is_interrupted(*memory, header); }
  uint32_t finish(const Outcome<>& outcome) const;
};

class Reply {
 public:
  // `ticket` is what the caller knows the request by.
  Reply(const GuestMemory& memory, const VirtChain& chain, uint64_t ticket)
      : memory_(memory), chain_(chain), ticket_(ticket), size_(chain.writable_bytes()) {}

  bool fits_header() const { return size_ >= sizeof(fuse_out_header); }
  // Bytes behind the header that are left.
  uint64_t room() const { return fits_header() ? size_ - sizeof(fuse_out_header) - payload_ : 0; }

  // The caller knows that there is room.
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { put_bytes(std::as_bytes(std::span(&value, 1))); }
  void put_bytes(std::span<const std::byte> bytes);
  void put_zeros(size_t size);
  // Where a system call puts the next bytes; filled(count) says how many there were, spoilt(size) that it
  // failed.
  bool space(uint64_t size, std::vector<iovec>& iovecs) const;
  void filled(uint64_t size);
  void spoilt(uint64_t size) const;

  // From now on it is answered through what is returned.
  LateReply detach(uint64_t unique);
  bool is_detached() const { return detached_; }

  // Writes the header; how many bytes of the chain have been written.
  uint32_t finish(uint64_t unique, const Outcome<>& outcome) const;

 private:
  const GuestMemory& memory_;
  const VirtChain& chain_;
  const uint64_t ticket_;
  const uint64_t size_;
  uint64_t payload_ = 0;
  bool detached_ = false;
};

}  // namespace snug
