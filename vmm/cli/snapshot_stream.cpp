#include "vmm/cli/snapshot_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/sparse_file.h"
#include "vmm/cli/stream_record.h"
#include "vmm/cli/stream_writer.h"
#include "vmm/core/state.h"
#include "vmm/run/saved_ends.h"
#include "vmm/spec/load.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDisksMax = 16;  // of a spec
constexpr uint64_t kSmallMax = uint64_t{1} << 20;
constexpr uint64_t kLargeMax = uint64_t{1} << 60;  // bytes; no file system has larger files

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

}  // namespace

Result<void> send_snapshot(const StoredSnapshot& snapshot, int out) {
  // Of one that was named by a path it is the folder's, which may end in a slash.
  const fs::path& folder = snapshot.folder;
  std::string name = snapshot.name;
  if (name.empty() || name.find('/') != std::string::npos)
    name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  StreamWriter stream(out);
  SNUG_TRY(stream.begin(kStreamOfFiles, std::move(name)));
  std::vector<std::string> names{"spec.yaml", "snapshot.json", "state", "memory"};
  for (size_t i = 0; i < kDisksMax; ++i) {
    names.push_back(SavedEnds::disk_name(i));
    names.push_back(SavedEnds::overlay_name(i));
  }
  for (const std::string& file : names) {
    const UniqueFd fd(::open((snapshot.folder / file).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd) return fail_errno(errno, "{}", (snapshot.folder / file).string());
    SNUG_TRY(stream.file(file, fd.get()));
  }
  return stream.end();
}

// --- in -----------------------------------------------------------------------------------------------

namespace {

class Receiver {
 public:
  // `check`: the caller's.
  Receiver(int in, int stop, const CheckFacts& check)
      : in_(in), stop_(stop), check_(check), buffer_(kRecordMax) {}

  // The name that it was sent with.
  Result<std::string> head();
  Result<void> files(NewSnapshot& made);

 private:
  Result<void> wait() const;
  Result<void> bytes(std::span<std::byte> out);
  Result<Record> record();
  Result<void> begin_file(NewSnapshot& made, const Record& record);
  Result<void> facts(const Record& record);
  Result<void> data(const Record& record);
  Result<void> again(const Record& record);
  Result<void> zeros(const Record& record);
  Result<void> end(const Record& record) const;
  std::span<const std::byte> body(const Record& record) const { return std::span(buffer_).first(record.b); }

  // What format 1 does not have is unknown in it.
  bool knows(uint8_t kind) const { return format_ > kStreamOfFiles || kind <= uint8_t(RecordKind::kEnd); }

  int in_;
  int stop_;
  const CheckFacts& check_;
  uint64_t format_ = 0;
  bool begun_ = false;  // a record has come
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
  std::array<std::byte, kStreamMagic.size() + 5> head{};
  const std::span<const std::byte> all(head);
  SNUG_TRY(bytes(head));
  if (std::memcmp(head.data(), kStreamMagic.data(), kStreamMagic.size()) != 0)
    return fail("it is nothing that snug snapshot export has written");
  format_ = load_le(all.subspan(kStreamMagic.size(), 4));
  if (format_ != kStreamOfFiles && format_ != kStreamOfMachine)
    return fail("it has format {}, and this snug knows formats {} and {}", format_, kStreamOfFiles,
                kStreamOfMachine);
  std::string name(static_cast<size_t>(load_le(all.subspan(kStreamMagic.size() + 4, 1))), '\0');
  SNUG_TRY(bytes(std::as_writable_bytes(std::span(name))));
  return name;
}

// Its body is in buffer_.
Result<Record> Receiver::record() {
  std::array<std::byte, kRecordHead> head{};
  SNUG_TRY(bytes(head));
  const Record record = record_of(head);
  if (record.b > kRecordMax) return fail("it was changed on its way, or is none");
  SNUG_TRY(bytes(std::span(buffer_).first(record.b)));
  std::array<std::byte, sizeof(uint32_t)> sum{};
  SNUG_TRY(bytes(sum));
  if (load_le(sum) != record_checksum(head, body(record)))
    return fail("it was changed on its way, or is none");
  return record;
}

Result<void> Receiver::begin_file(NewSnapshot& made, const Record& record) {
  const auto text = body(record);
  std::string name(reinterpret_cast<const char*>(text.data()), text.size());
  const auto limit = limit_of(name);
  if (!limit) return fail("a snapshot has no file {}", in_quotes(name.substr(0, kStreamNameMax)));
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

// Each of the two in the place of what the memory has there.
Result<void> Receiver::again(const Record& record) {
  const bool fits = name_ == "memory" && record.b > 0 && range_within(record.a, record.b, size_);
  if (!fits) return fail("it has bytes that belong nowhere");
  return with_context(write_at(file_, body(record), record.a), name_);
}

Result<void> Receiver::zeros(const Record& record) {
  const uint64_t count = record.b == sizeof(uint64_t) ? load_le(body(record)) : 0;
  const bool fits =
      name_ == "memory" && count > 0 && count <= kRecordMax && range_within(record.a, count, size_);
  if (!fits) return fail("it has zeros that belong nowhere");
  if (::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(record.a),
                  static_cast<off_t>(count)) == 0)
    return {};
  const auto none = std::span(buffer_).first(count);
  std::ranges::fill(none, std::byte{0});
  return with_context(write_at(file_, none, record.a), name_);
}

Result<void> Receiver::facts(const Record& record) {
  if (begun_) return fail("what it must find here comes too late");
  const auto text = body(record);
  return check_ ? check_({reinterpret_cast<const char*>(text.data()), text.size()}) : Result<void>{};
}

Result<void> Receiver::end(const Record& record) const {
  for (const char* needed : {"spec.yaml", "state", "memory"})
    if (!names_.contains(needed)) return fail("it has no {}", needed);
  if (record.b != 0 || record.a != names_.size()) return fail("a part of it is missing");
  return {};
}

Result<void> unknown(const Record& record) {
  return fail("it has a record of kind {}, which this snug does not know", record.kind);
}

Result<void> Receiver::files(NewSnapshot& made) {
  for (;;) {
    const Record next = SNUG_TRY(record());
    if (!knows(next.kind)) return unknown(next);
    switch (static_cast<RecordKind>(next.kind)) {
      case RecordKind::kFacts:
        SNUG_TRY(facts(next));
        break;
      case RecordKind::kFile:
        SNUG_TRY(begin_file(made, next));
        break;
      case RecordKind::kData:
        SNUG_TRY(data(next));
        break;
      case RecordKind::kAgain:
        SNUG_TRY(again(next));
        break;
      case RecordKind::kZeros:
        SNUG_TRY(zeros(next));
        break;
      case RecordKind::kEnd:
        return end(next);
      default:
        return unknown(next);
    }
    begun_ = true;
  }
}

}  // namespace

Result<StoredSnapshot> receive_snapshot(int in, const std::optional<std::string>& name, int stop) {
  // It is kept, for whatever place.
  const CheckFacts none;
  Receiver receiver(in, stop, none);
  const std::string sent = SNUG_TRY(receiver.head());
  // A path would be somebody else's choice of a place.
  if (!name && (sent.empty() || std::ranges::count(sent, '/') > 0))
    return fail_with_hint("it has no name", "give it one: snug snapshot import FILE NAME");
  NewSnapshot made = SNUG_TRY(NewSnapshot::begin(name.value_or(sent)));
  SNUG_TRY(receiver.files(made));
  return made.keep();
}

Result<void> receive_snapshot_into(NewSnapshot& made, int in, int stop, const CheckFacts& check) {
  Receiver receiver(in, stop, check);
  SNUG_TRY(receiver.head());
  return receiver.files(made);
}

}  // namespace snug::cli
