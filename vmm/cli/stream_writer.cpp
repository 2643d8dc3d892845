#include "vmm/cli/stream_writer.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>

#include "vmm/base/endian.h"
#include "vmm/base/sparse_file.h"
#include "vmm/core/dirty_log.h"

namespace snug::cli {
namespace {

constexpr uint64_t kPage = 4096;

Result<uint64_t> size_of(int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "its size");
  return static_cast<uint64_t>(status.st_size);
}

bool is_set(std::span<const uint64_t> bits, uint64_t page) {
  return (bits[page / kPagesOfWord] >> (page % kPagesOfWord) & 1) != 0;
}

// The first page from `page` on that is among these, or that is not; their number: there is none.
uint64_t next_page(std::span<const uint64_t> bits, uint64_t page, bool among) {
  const uint64_t end = bits.size() * kPagesOfWord;
  while (page < end && is_set(bits, page) != among) {
    const uint64_t rest =
        (among ? bits[page / kPagesOfWord] : ~bits[page / kPagesOfWord]) >> (page % kPagesOfWord);
    page += rest != 0 ? static_cast<uint64_t>(std::countr_zero(rest)) : kPagesOfWord - page % kPagesOfWord;
  }
  return std::min(page, end);
}

}  // namespace

Result<void> StreamWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(out_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      pollfd room{.fd = out_, .events = POLLOUT, .revents = 0};
      (void)::poll(&room, 1, -1);
      continue;
    }
    if (count < 0) {
      nobody_reads_ = errno == EPIPE;
      return fail_errno(errno, "write the snapshot");
    }
    bytes_ += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> StreamWriter::record(RecordKind kind, uint64_t a, std::span<const std::byte> body) {
  const auto head =
      record_bytes({.kind = static_cast<uint8_t>(kind), .a = a, .b = static_cast<uint32_t>(body.size())});
  std::array<std::byte, sizeof(uint32_t)> sum{};
  store_le(sum, record_checksum(head, body));
  SNUG_TRY(write(head));
  SNUG_TRY(write(body));
  return write(sum);
}

Result<void> StreamWriter::begin(uint32_t format, std::string name) {
  name.resize(std::min(name.size(), kStreamNameMax));
  std::array<std::byte, 5> head{};
  store_le(std::span<std::byte>(head).first(4), format);
  store_le(std::span<std::byte>(head).subspan(4, 1), name.size());
  SNUG_TRY(write(std::as_bytes(std::span(kStreamMagic))));
  SNUG_TRY(write(head));
  return write(std::as_bytes(std::span(name)));
}

Result<void> StreamWriter::facts(std::string_view json) {
  return record(RecordKind::kFacts, 0, std::as_bytes(std::span(json)));
}

Result<void> StreamWriter::file(const std::string& name, int file) {
  const uint64_t size = SNUG_TRY(with_context(size_of(file), name));
  SNUG_TRY(record(RecordKind::kFile, size, std::as_bytes(std::span(name))));
  ++files_;
  for (uint64_t at = 0; at < size;) {
    const FileRange data = next_data(file, at, size);
    for (at = data.from; at < data.to;) {
      const auto part = std::span(buffer_).first(std::min<uint64_t>(kRecordMax, data.to - at));
      SNUG_TRY(with_context(read_at(file, part, at), name));
      if (!is_all_zero(part)) SNUG_TRY(record(RecordKind::kData, at, part));
      at += part.size();
    }
  }
  return {};
}

Result<void> StreamWriter::text(const std::string& name, std::string_view text) {
  SNUG_TRY(record(RecordKind::kFile, text.size(), std::as_bytes(std::span(name))));
  ++files_;
  for (size_t at = 0; at < text.size(); at += kRecordMax)
    SNUG_TRY(record(RecordKind::kData, at, std::as_bytes(std::span(text.substr(at, kRecordMax)))));
  return {};
}

Result<void> StreamWriter::pages(int memory, std::span<const uint64_t> bits) {
  const uint64_t size = SNUG_TRY(with_context(size_of(memory), "memory"));
  for (uint64_t page = 0;;) {
    page = next_page(bits, page, true);
    const uint64_t from = page * kPage;
    if (from >= size) return {};
    page = std::min(next_page(bits, page, false), page + kRecordMax / kPage);
    SNUG_TRY(some_pages(memory, from, std::min(page * kPage, size) - from));
  }
}

// At most kRecordMax bytes, those that are zero as what they are.
Result<void> StreamWriter::some_pages(int memory, uint64_t offset, uint64_t length) {
  const auto all = std::span(buffer_).first(length);
  SNUG_TRY(with_context(read_at(memory, all, offset), "memory"));
  const auto zero = [&](uint64_t at) {
    return is_all_zero(std::span<const std::byte>(all).subspan(at, std::min(kPage, length - at)));
  };
  for (uint64_t at = 0; at < length;) {
    const bool zeros = zero(at);
    uint64_t to = at + kPage;
    while (to < length && zero(to) == zeros) to += kPage;
    to = std::min(to, length);
    if (zeros) {
      std::array<std::byte, sizeof(uint64_t)> count{};
      store_le(count, to - at);
      SNUG_TRY(record(RecordKind::kZeros, offset + at, count));
    } else {
      SNUG_TRY(record(RecordKind::kAgain, offset + at, all.subspan(at, to - at)));
    }
    at = to;
  }
  return {};
}

Result<void> StreamWriter::end() { return record(RecordKind::kEnd, files_, {}); }

}  // namespace snug::cli
