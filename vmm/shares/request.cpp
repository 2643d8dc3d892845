#include "vmm/shares/request.h"

#include <algorithm>

#include "vmm/shares/names.h"

namespace snug {
namespace {

uint32_t write_header(const GuestMemory& memory, const std::vector<VirtBuffer>& writable, uint64_t unique,
                      const Outcome<>& outcome, uint64_t payload) {
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof header + (outcome ? payload : 0));
  header.error = outcome ? 0 : -outcome.error();
  header.unique = unique;
  const auto bytes = std::as_bytes(std::span(&header, 1));
  return copy_to_chain(memory, writable, 0, bytes) == bytes.size() ? header.len : 0;
}

}  // namespace

bool Request::read_header() {
  const auto bytes = std::as_writable_bytes(std::span(&header_, 1));
  return copy_from_chain(memory_, chain_.readable, 0, bytes) == bytes.size();
}

Outcome<> Request::read_arguments(size_t most, bool data_follows) {
  if (header_.len < sizeof header_ || header_.len > chain_.readable_bytes()) return refuse(EINVAL);
  size_t size = header_.len - sizeof header_;
  if (size > most) {
    if (!data_follows) return refuse(EINVAL);
    size = most;
  }
  std::span<std::byte> bytes(few_);
  if (size > bytes.size()) {
    many_.resize(size);
    bytes = many_;
  }
  bytes = bytes.first(size);
  if (copy_from_chain(memory_, chain_.readable, sizeof header_, bytes) != size) return refuse(EINVAL);
  arguments_ = bytes;
  return {};
}

Outcome<std::span<const std::byte>> Request::take_bytes(size_t size) {
  if (size > arguments_.size() - taken_) return refuse(EINVAL);
  const auto bytes = arguments_.subspan(taken_, size);
  taken_ += size;
  return bytes;
}

Outcome<std::string_view> Request::take_text() {
  const auto rest = arguments_.subspan(taken_);
  const auto end = std::find(rest.begin(), rest.end(), std::byte{0});
  if (end == rest.end()) return refuse(EINVAL);
  const auto length = static_cast<size_t>(end - rest.begin());
  taken_ += length + 1;
  return std::string_view(reinterpret_cast<const char*>(rest.data()), length);
}

Outcome<std::string_view> Request::take_name() {
  const auto name = SNUG_TRY(take_text());
  SNUG_TRY(check_name(name));
  return name;
}

bool Request::data(uint64_t size, std::vector<iovec>& iovecs) const {
  const uint64_t offset = sizeof header_ + taken_;
  if (size > header_.len - offset) return false;
  return append_chain_iovecs(memory_, chain_.readable, offset, size, iovecs);
}

void Reply::put_bytes(std::span<const std::byte> bytes) {
  payload_ += copy_to_chain(memory_, chain_.writable, sizeof(fuse_out_header) + payload_, bytes);
}

void Reply::put_zeros(size_t size) {
  static constexpr std::array<std::byte, 64> kZeros{};
  for (; size > 0; size -= std::min(size, kZeros.size()))
    put_bytes(std::span(kZeros).first(std::min(size, kZeros.size())));
}

bool Reply::space(uint64_t size, std::vector<iovec>& iovecs) const {
  return append_chain_iovecs(memory_, chain_.writable, sizeof(fuse_out_header) + payload_, size, iovecs);
}

void Reply::filled(uint64_t size) {
  spoilt(size);
  payload_ += size;
}

void Reply::spoilt(uint64_t size) const {
  wrote_chain(memory_, chain_.writable, sizeof(fuse_out_header) + payload_, size);
}

uint32_t Reply::finish(uint64_t unique, const Outcome<>& outcome) const {
  return write_header(memory_, chain_.writable, unique, outcome, payload_);
}

LateReply Reply::detach(uint64_t unique) {
  detached_ = true;
  LateReply late{&memory_, chain_.writable, unique, ticket_};
  if (!chain_.readable.empty() && chain_.readable.front().length == sizeof(fuse_in_header))
    late.header = chain_.readable.front().gpa;
  return late;
}

uint32_t LateReply::finish(const Outcome<>& outcome) const {
  return write_header(*memory, writable, unique, outcome, 0);
}

}  // namespace snug
