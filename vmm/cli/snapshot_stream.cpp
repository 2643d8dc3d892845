#include "vmm/cli/snapshot_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/sparse_file.h"
#include "vmm/core/state.h"
#include "vmm/run/saved_ends.h"
#include "vmm/spec/load.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "snugsend";
constexpr size_t kAtOnce = size_t{1} << 20;
constexpr size_t kNameMax = 64;
constexpr size_t kDisksMax = 16;  // of a spec
constexpr uint64_t kSmallMax = uint64_t{1} << 20;
constexpr uint64_t kLargeMax = uint64_t{1} << 60;  // bytes; no file system has larger files

enum class Kind : uint8_t { kFile = 1, kData = 2, kEnd = 3 };

struct Record {
  uint8_t kind = 0;
  uint64_t a = 0;
  uint32_t b = 0;
};
constexpr size_t kRecordBytes = 13;

std::array<std::byte, kRecordBytes> bytes_of(const Record& record) {
  std::array<std::byte, kRecordBytes> bytes{};
  const std::span<std::byte> all(bytes);
  store_le(all.first(1), record.kind);
  store_le(all.subspan(1, 8), record.a);
  store_le(all.subspan(9, 4), record.b);
  return bytes;
}

uint32_t checksum(std::span<const std::byte> head, std::span<const std::byte> body) {
  const auto add = [](uLong sum, std::span<const std::byte> bytes) {
    return ::crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  };
  return static_cast<uint32_t>(body.empty() ? add(0, head) : add(add(0, head), body));
}

// The largest that a file of that name may be; nothing: a snapshot has none of that name.
std::optional<uint64_t> limit_of(std::string_view name) {
  if (name == "spec.yaml") return kMaxSpecBytes;
  if (name == "snapshot.json") return kSmallMax;
  if (name == "state") return kStateMax;
  if (name == "memory") return kLargeMax;
  for (size_t i = 0; i < kDisksMax; ++i)
    if (name == SavedEnds::disk_name(i) || name == SavedEnds::overlay_name(i)) return kLargeMax;
  return std::nullopt;
}

// --- out ----------------------------------------------------------------------------------------------

Result<void> send_bytes(int out, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(out, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      pollfd room{.fd = out, .events = POLLOUT, .revents = 0};
      (void)::poll(&room, 1, -1);
      continue;
    }
    if (count < 0) return fail_errno(errno, "write the snapshot");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<void> send_record(int out, Kind kind, uint64_t a, std::span<const std::byte> body) {
  const auto head =
      bytes_of({.kind = static_cast<uint8_t>(kind), .a = a, .b = static_cast<uint32_t>(body.size())});
  std::array<std::byte, sizeof(uint32_t)> sum{};
  store_le(sum, checksum(head, body));
  SNUG_TRY(send_bytes(out, head));
  SNUG_TRY(send_bytes(out, body));
  return send_bytes(out, sum);
}

Result<void> send_file(int out, const std::string& name, int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "{}", name);
  const auto size = static_cast<uint64_t>(status.st_size);
  SNUG_TRY(send_record(out, Kind::kFile, size, std::as_bytes(std::span(name))));
  std::vector<std::byte> buffer(kAtOnce);
  for (uint64_t at = 0; at < size;) {
    const FileRange data = next_data(file, at, size);
    for (at = data.from; at < data.to;) {
      const auto part = std::span(buffer).first(std::min<uint64_t>(kAtOnce, data.to - at));
      SNUG_TRY(with_context(read_at(file, part, at), name));
      if (!is_all_zero(part)) SNUG_TRY(send_record(out, Kind::kData, at, part));
      at += part.size();
    }
  }
  return {};
}

}  // namespace

Result<void> send_snapshot(const StoredSnapshot& snapshot, int out) {
  // Of one that was named by a path it is the folder's, which may end in a slash.
  const fs::path& folder = snapshot.folder;
  std::string name = snapshot.name;
  if (name.empty() || name.find('/') != std::string::npos)
    name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  name.resize(std::min(name.size(), kNameMax));
  std::array<std::byte, 5> head{};
  store_le(std::span<std::byte>(head).first(4), kStreamFormat);
  store_le(std::span<std::byte>(head).subspan(4, 1), name.size());
  SNUG_TRY(send_bytes(out, std::as_bytes(std::span(kMagic))));
  SNUG_TRY(send_bytes(out, head));
  SNUG_TRY(send_bytes(out, std::as_bytes(std::span(name))));
  std::vector<std::string> names{"spec.yaml", "snapshot.json", "state", "memory"};
  for (size_t i = 0; i < kDisksMax; ++i) {
    names.push_back(SavedEnds::disk_name(i));
    names.push_back(SavedEnds::overlay_name(i));
  }
  uint64_t sent = 0;
  for (const std::string& file : names) {
    const UniqueFd fd(::open((snapshot.folder / file).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd) return fail_errno(errno, "{}", (snapshot.folder / file).string());
    SNUG_TRY(send_file(out, file, fd.get()));
    ++sent;
  }
  return send_record(out, Kind::kEnd, sent, {});
}

// --- in -----------------------------------------------------------------------------------------------

namespace {

class Receiver {
 public:
  Receiver(int in, int stop) : in_(in), stop_(stop), buffer_(kAtOnce) {}

  // The name that it was sent with.
  Result<std::string> head();
  Result<void> files(NewSnapshot& made);

 private:
  Result<void> wait() const;
  Result<void> bytes(std::span<std::byte> out);
  Result<Record> record();
  Result<void> begin_file(NewSnapshot& made, const Record& record);
  Result<void> data(const Record& record);
  Result<void> end(const Record& record) const;
  std::span<const std::byte> body(const Record& record) const { return std::span(buffer_).first(record.b); }

  int in_;
  int stop_;
  std::vector<std::byte> buffer_;
  std::set<std::string, std::less<>> names_;
  // The file that has begun.
  std::string name_;
  int file_ = -1;
  uint64_t size_ = 0;
  uint64_t given_ = 0;  // bytes of it that need not come any more
};

Result<void> Receiver::wait() const {
  std::array<pollfd, 2> ready{
      {{.fd = in_, .events = POLLIN, .revents = 0}, {.fd = stop_, .events = POLLIN, .revents = 0}}};
  while (::poll(ready.data(), ready.size(), -1) < 0)
    if (errno != EINTR) return fail_errno(errno, "poll");
  if (ready[1].revents != 0) return fail("interrupted; nothing was kept");
  return {};
}

Result<void> Receiver::bytes(std::span<std::byte> out) {
  while (!out.empty()) {
    SNUG_TRY(wait());
    const ssize_t count = ::read(in_, out.data(), out.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return fail_errno(errno, "read the snapshot");
    if (count == 0) return fail("a part of it is missing: it ends too early");
    out = out.subspan(static_cast<size_t>(count));
  }
  return {};
}

Result<std::string> Receiver::head() {
  std::array<std::byte, kMagic.size() + 5> head{};
  const std::span<const std::byte> all(head);
  SNUG_TRY(bytes(head));
  if (std::memcmp(head.data(), kMagic.data(), kMagic.size()) != 0)
    return fail("it is nothing that snug snapshot export has written");
  if (const uint64_t format = load_le(all.subspan(kMagic.size(), 4)); format != kStreamFormat)
    return fail("it has format {}, and this snug knows format {}", format, kStreamFormat);
  std::string name(static_cast<size_t>(load_le(all.subspan(kMagic.size() + 4, 1))), '\0');
  SNUG_TRY(bytes(std::as_writable_bytes(std::span(name))));
  return name;
}

// Its body is in buffer_.
Result<Record> Receiver::record() {
  std::array<std::byte, kRecordBytes> head{};
  const std::span<const std::byte> all(head);
  SNUG_TRY(bytes(head));
  const Record record{.kind = static_cast<uint8_t>(load_le(all.first(1))),
                      .a = load_le(all.subspan(1, 8)),
                      .b = static_cast<uint32_t>(load_le(all.subspan(9, 4)))};
  if (record.b > kAtOnce) return fail("it was changed on its way, or is none");
  SNUG_TRY(bytes(std::span(buffer_).first(record.b)));
  std::array<std::byte, sizeof(uint32_t)> sum{};
  SNUG_TRY(bytes(sum));
  if (load_le(sum) != checksum(head, body(record))) return fail("it was changed on its way, or is none");
  return record;
}

Result<void> Receiver::begin_file(NewSnapshot& made, const Record& record) {
  const auto text = body(record);
  std::string name(reinterpret_cast<const char*>(text.data()), text.size());
  const auto limit = limit_of(name);
  if (!limit) return fail("a snapshot has no file {}", in_quotes(name.substr(0, kNameMax)));
  if (!names_.insert(name).second) return fail("its file {} comes twice", name);
  if (record.a > *limit) return fail("its file {} has {} bytes, and {} are the most", name, record.a, *limit);
  if (name == "state") {
    file_ = made.state();
  } else if (name == "memory") {
    file_ = made.memory();
  } else {
    file_ = SNUG_TRY(made.add_file(name));
  }
  name_ = std::move(name);
  size_ = record.a;
  given_ = 0;
  if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) return fail_errno(errno, "{}", name_);
  return {};
}

Result<void> Receiver::data(const Record& record) {
  const bool fits =
      file_ >= 0 && record.b > 0 && record.a >= given_ && range_within(record.a, record.b, size_);
  if (!fits) return fail("it has bytes that belong nowhere");
  given_ = record.a + record.b;
  return with_context(write_at(file_, body(record), record.a), name_);
}

Result<void> Receiver::end(const Record& record) const {
  for (const char* needed : {"spec.yaml", "state", "memory"})
    if (!names_.contains(needed)) return fail("it has no {}", needed);
  if (record.b != 0 || record.a != names_.size()) return fail("a part of it is missing");
  return {};
}

Result<void> Receiver::files(NewSnapshot& made) {
  for (;;) {
    const Record next = SNUG_TRY(record());
    switch (static_cast<Kind>(next.kind)) {
      case Kind::kFile:
        SNUG_TRY(begin_file(made, next));
        break;
      case Kind::kData:
        SNUG_TRY(data(next));
        break;
      case Kind::kEnd:
        return end(next);
      default:
        return fail("it has a record of kind {}, which this snug does not know", next.kind);
    }
  }
}

}  // namespace

Result<StoredSnapshot> receive_snapshot(int in, const std::optional<std::string>& name, int stop) {
  Receiver receiver(in, stop);
  const std::string sent = SNUG_TRY(receiver.head());
  // A path would be somebody else's choice of a place.
  if (!name && (sent.empty() || std::ranges::count(sent, '/') > 0))
    return fail_with_hint("it has no name", "give it one: snug snapshot import FILE NAME");
  NewSnapshot made = SNUG_TRY(NewSnapshot::begin(name.value_or(sent)));
  SNUG_TRY(receiver.files(made));
  return made.keep();
}

Result<void> receive_snapshot_into(NewSnapshot& made, int in, int stop) {
  Receiver receiver(in, stop);
  SNUG_TRY(receiver.head());
  return receiver.files(made);
}

}  // namespace snug::cli
