// A snapshot as one stream of bytes, for a file or a pipe: snug snapshot export and import. Holes take no
// room in it. All numbers are little-endian.
//
//   head     "snugsend", u32 format, u8 bytes of its name, name
//   record   u8 kind, u64 a, u32 b, b bytes, u32 CRC-32 of all that before it, from the record's kind on
//
//   kind 1   a file begins: a bytes long, b bytes of its name; what no record gives it is zeros
//   kind 2   b bytes of that file, from a on; behind what it was given before
//   kind 3   the end: a files in all, and none of b
//
// A stream may be anybody's work: names are those that a snapshot has, each once, every length is checked
// before anything is read or written for it, and nothing is called a snapshot that has not come whole.
//
// Main thread.
#pragma once

#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/cli/snapshot_store.h"

namespace snug::cli {

constexpr uint32_t kStreamFormat = 1;

// Errors: the files; `out`.
Result<void> send_snapshot(const StoredSnapshot& snapshot, int out);
// Under `name`, or the one that it was sent with. `stop`: becomes readable when it is to be given up. Errors:
// `in`; what comes is no snapshot, or a part of one; the name is taken; the file system.
Result<StoredSnapshot> receive_snapshot(int in, const std::optional<std::string>& name, int stop);

// Into one that nobody finds; what it was called when it was sent is of no account.
Result<void> receive_snapshot_into(NewSnapshot& made, int in, int stop);

}  // namespace snug::cli
