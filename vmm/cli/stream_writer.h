// Writes a snapshot, or a machine that runs, as a stream (stream_record.h): the beginning, files, the end.
//
// Thread: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/cli/stream_record.h"

namespace snug::cli {

class StreamWriter {
 public:
  // `out`: the caller's.
  explicit StreamWriter(int out) : out_(out), buffer_(kRecordMax) {}

  // Errors of all: `out`; the files.
  Result<void> begin(uint32_t format, std::string name);
  Result<void> facts(std::string_view json);
  Result<void> file(const std::string& name, int file);
  Result<void> text(const std::string& name, std::string_view text);
  // These pages of the memory, the file that has gone last, as they are now: a bit for each (dirty_log.h).
  Result<void> pages(int memory, std::span<const uint64_t> bits);
  Result<void> end();

  uint64_t bytes() const { return bytes_; }
  // It has failed because nobody reads any more.
  bool nobody_reads() const { return nobody_reads_; }

 private:
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> record(RecordKind kind, uint64_t a, std::span<const std::byte> body);
  Result<void> some_pages(int memory, uint64_t offset, uint64_t length);

  int out_;
  std::vector<std::byte> buffer_;
  uint64_t files_ = 0;
  uint64_t bytes_ = 0;
  bool nobody_reads_ = false;
};

}  // namespace snug::cli
