#include "vmm/shares/directory_reader.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace snug {
namespace {

// A guest can have many folders open, each with a rest in here.
constexpr size_t kBuffer = 4096;

// getdents64(2)
struct Record {
  uint64_t number;
  int64_t next;
  uint16_t length;
  uint8_t type;
};
constexpr size_t kNameOffset = 19;

Record record_at(const std::byte* bytes) {
  Record record{};
  std::memcpy(&record.number, bytes, 8);
  std::memcpy(&record.next, bytes + 8, 8);
  std::memcpy(&record.length, bytes + 16, 2);
  std::memcpy(&record.type, bytes + 18, 1);
  return record;
}

}  // namespace

Outcome<> DirectoryReader::seek(int fd, uint64_t offset) {
  // From the beginning, everything is read anew.
  if (offset == offset_ && offset != 0) return {};
  if (static_cast<int64_t>(offset) < 0) return refuse(EINVAL);
  buffer_.clear();
  taken_ = 0;
  offset_ = kNowhere;
  SNUG_TRY(outcome_of(::lseek(fd, static_cast<off_t>(offset), SEEK_SET)));
  offset_ = offset;
  return {};
}

Outcome<DirectoryReader::Entry> DirectoryReader::look(int fd) {
  if (taken_ == buffer_.size()) {
    buffer_.resize(kBuffer);
    taken_ = 0;
    const long count = ::syscall(SYS_getdents64, fd, buffer_.data(), buffer_.size());
    const int error = errno;
    buffer_.resize(count > 0 ? static_cast<size_t>(count) : 0);
    if (count <= 0) {
      buffer_.shrink_to_fit();
      if (count < 0) return refuse(error);
      return Entry{};
    }
  }
  const std::byte* const at = buffer_.data() + taken_;
  const Record record = record_at(at);
  const auto* const name = reinterpret_cast<const char*>(at + kNameOffset);
  return Entry{std::string_view(name, ::strnlen(name, record.length - kNameOffset)), record.number,
               static_cast<uint64_t>(record.next), record.type};
}

void DirectoryReader::step() {
  const Record record = record_at(buffer_.data() + taken_);
  offset_ = static_cast<uint64_t>(record.next);
  taken_ += record.length;
}

}  // namespace snug
