// What a file that should have been a kernel or an initrd seems to be, for error messages.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace snug::boot {

struct FileKind {
  std::string description;  // "a gzip file"; for a file of no known kind, its first bytes
  std::string hint;         // what to do about it when a kernel was wanted; may be empty
};

// How many first bytes are worth having; fewer are fine.
constexpr size_t kFileKindHead = 2048;

FileKind guess_file_kind(std::span<const std::byte> head);

}  // namespace snug::boot
