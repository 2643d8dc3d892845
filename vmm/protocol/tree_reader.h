// A file or a folder with all that is in it, read from a file system as the frames of a copy. Shared by both
// ends; one thread, blocking on files only.
#pragma once

#include <dirent.h>

#include <string>
#include <vector>

#include "vmm/protocol/frames.h"

namespace snug::protocol {

enum class EntryKind : uint8_t { kFile = 1, kFolder = 2, kLink = 3 };

struct Entry {
  EntryKind kind = EntryKind::kFile;
  uint32_t mode = 0;   // the low nine bits
  uint64_t size = 0;   // of a file
  int64_t mtime = 0;   // seconds since 1970
  std::string path;    // below what is copied, "a/b"; "" is that itself
  std::string target;  // of a link
};
void put_entry(std::string& out, const Entry& entry);
// Nothing: malformed, or a path that leads elsewhere.
std::optional<Entry> decode_entry(std::string_view payload);

class TreeReader {
 public:
  static constexpr size_t kMaxDepth = 128;

  // False: error() says why.
  bool open(const std::string& path);
  // Appends the next frames, some 64 KiB at most. False: that was all, or error() is not empty.
  bool next(std::string& out);
  const std::string& error() const { return error_; }
  // Sockets, devices and the like, which are left out.
  size_t skipped() const { return skipped_; }

  TreeReader() = default;
  TreeReader(const TreeReader&) = delete;
  TreeReader& operator=(const TreeReader&) = delete;
  ~TreeReader();

 private:
  struct Folder {
    DIR* stream;
    std::string path;
  };
  bool begin(int folder, const char* name, const std::string& path, bool follow, std::string& out);
  bool read_file(std::string& out);
  bool fail(const std::string& what, int error_number);

  std::string root_;
  std::string first_;  // the frames of the root's entry
  std::vector<Folder> folders_;
  int file_ = -1;
  uint64_t left_ = 0;  // of the file
  std::string file_path_;
  bool done_ = false;
  size_t skipped_ = 0;
  std::string error_;
};

}  // namespace snug::protocol
