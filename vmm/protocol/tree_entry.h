// What a copy consists of (guest-images/agent/PROTOCOL.md): entries, the contents of files in data and holes,
// the ends of files and folders, and what was left behind on the way. Shared by both ends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/protocol/frames.h"

namespace snug::protocol {

enum class EntryKind : uint8_t { kFile = 1, kFolder = 2, kLink = 3, kFifo = 4, kHardLink = 5 };

struct Entry {
  EntryKind kind = EntryKind::kFile;
  uint32_t mode = 0;   // the low twelve bits
  uint32_t owner = 0;  // these two are heeded when the copy is to keep owners
  uint32_t group = 0;
  int64_t mtime = 0;  // seconds since 1970, and
  uint32_t mtime_ns = 0;
  std::string name;    // in the folder that was entered last; "" is what is copied, and comes first
  std::string target;  // of a link; of a hard link: the path below what is copied, "a/b"
};
void put_entry(std::string& out, const Entry& entry);
// Nothing: malformed, or a name that leads elsewhere.
std::optional<Entry> decode_entry(std::string_view payload);

// The parts of a path of a hard link, none of which leads elsewhere.
std::vector<std::string> parts_of(const std::string& path);

// The end of a file: whole, or given up in the middle, for a reason that a problem has told.
void put_file_end(std::string& out, bool whole);
std::optional<bool> decode_file_end(std::string_view payload);

void put_hole(std::string& out, uint64_t length);

// One file that did not arrive (or arrived without its owner, say); the copy goes on.
struct Problem {
  bool left_out = false;  // what cannot be copied at all: a device, a socket
  std::string text;       // its path and the reason, printable
};
void put_problem(std::string& out, const Problem& problem);
std::optional<Problem> decode_problem(std::string_view payload);

// A path for a message: one that is very long without its middle.
std::string shown_path(const std::string& path);

}  // namespace snug::protocol
