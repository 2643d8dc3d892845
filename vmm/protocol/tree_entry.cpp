#include "vmm/protocol/tree_entry.h"

#include <limits.h>

#include "vmm/protocol/messages.h"

namespace snug::protocol {
namespace {

constexpr size_t kMaxTarget = 64 * 1024;
constexpr uint32_t kModeBits = 07777;

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

bool fits(const Entry& entry) {
  if (!entry.name.empty() && !is_name(entry.name)) return false;
  if (entry.mtime_ns >= 1'000'000'000 || entry.target.find('\0') != std::string::npos) return false;
  switch (entry.kind) {
    case EntryKind::kLink:
      return !entry.target.empty() && entry.target.size() < PATH_MAX;
    case EntryKind::kHardLink:
      return entry.target.size() <= kMaxTarget && !parts_of(entry.target).empty();
    default:
      return entry.target.empty();
  }
}

}  // namespace

void put_entry(std::string& out, const Entry& entry) {
  Encoder payload;
  payload.u8(static_cast<uint8_t>(entry.kind)).u32(entry.mode & kModeBits).u32(entry.owner).u32(entry.group);
  payload.u64(static_cast<uint64_t>(entry.mtime)).u32(entry.mtime_ns).text(entry.name).text(entry.target);
  put_frame(out, FrameType::kEntry, payload.bytes());
}

std::optional<Entry> decode_entry(std::string_view payload) {
  Decoder decoder(payload);
  Entry entry;
  const uint8_t kind = decoder.u8();
  entry.kind = static_cast<EntryKind>(kind);
  entry.mode = decoder.u32() & kModeBits;
  entry.owner = decoder.u32();
  entry.group = decoder.u32();
  entry.mtime = static_cast<int64_t>(decoder.u64());
  entry.mtime_ns = decoder.u32();
  entry.name = decoder.text();
  entry.target = decoder.text();
  if (!decoder.complete() || kind < 1 || kind > 5 || !fits(entry)) return std::nullopt;
  return entry;
}

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t slash = path.find('/', begin);
    parts.push_back(path.substr(begin, slash == std::string::npos ? slash : slash - begin));
    if (!is_name(parts.back())) return {};
    if (slash == std::string::npos) return parts;
    begin = slash + 1;
  }
}

void put_file_end(std::string& out, bool whole) {
  put_frame(out, FrameType::kFileEnd, Encoder().u8(whole ? 0 : 1).bytes());
}

std::optional<bool> decode_file_end(std::string_view payload) {
  Decoder decoder(payload);
  const uint8_t how = decoder.u8();
  if (!decoder.complete() || how > 1) return std::nullopt;
  return how == 0;
}

void put_hole(std::string& out, uint64_t length) {
  put_frame(out, FrameType::kHole, Encoder().u64(length).bytes());
}

void put_problem(std::string& out, const Problem& problem) {
  put_frame(out, FrameType::kProblem, Encoder().u8(problem.left_out ? 1 : 0).rest(problem.text).bytes());
}

std::optional<Problem> decode_problem(std::string_view payload) {
  Decoder decoder(payload);
  Problem problem;
  const uint8_t kind = decoder.u8();
  problem.left_out = kind == 1;
  problem.text = printable(decoder.rest());
  if (!decoder.complete() || kind > 1 || problem.text.empty()) return std::nullopt;
  return problem;
}

std::string shown_path(const std::string& path) {
  constexpr size_t kBegin = 300, kEnd = 500;
  if (path.size() <= kBegin + kEnd) return path;
  return path.substr(0, kBegin) + "[...]" + path.substr(path.size() - kEnd);
}

}  // namespace snug::protocol
