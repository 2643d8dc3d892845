// A snapshot as one stream of bytes (stream_record.h), for a file or a pipe: snug snapshot export and import,
// snug send and receive. Holes take no room in it.
//
// A stream may be anybody's work: names are those that a snapshot has, each once, every length is checked
// before anything is read or written for it, and nothing is called a snapshot that has not come whole.
//
// Main thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/cli/snapshot_store.h"

namespace snug::cli {

// Errors: the files; `out`.
Result<void> send_snapshot(const StoredSnapshot& snapshot, int out);
// Under `name`, or the one that it was sent with. `stop`: becomes readable when it is to be given up. Errors:
// `in`; what comes is no snapshot, or a part of one; the name is taken; the file system.
Result<StoredSnapshot> receive_snapshot(int in, const std::optional<std::string>& name, int stop);

// Looks at what a machine must find where it goes on, before anything else has come. Errors: why it cannot.
using CheckFacts = std::function<Result<void>(std::string_view json)>;
// Into one that nobody finds; what it was called when it was sent is of no account. `check`: of a stream that
// tells something.
Result<void> receive_snapshot_into(NewSnapshot& made, int in, int stop, const CheckFacts& check);

}  // namespace snug::cli
