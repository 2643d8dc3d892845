// A file or a folder, turned into the frames of a copy, as it is found: one that vanishes or cannot be read
// is a problem, and the rest goes on. Any depth, with few descriptors. Shared by both ends; one thread,
// blocking on files only.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vmm/protocol/tree_entry.h"

namespace snug::protocol {

class TreeReader {
 public:
  // False: error() says why. What is named is meant, through whatever links, and may be a device or a FIFO,
  // which is read to its end.
  bool open(const std::string& path);
  // Appends the next frames, some 64 KiB at most. False: that was all, or error() is not empty.
  bool next(std::string& out);
  const std::string& error() const { return error_; }
  // Those since the last call.
  std::vector<Problem> take_problems() { return std::exchange(problems_, {}); }

  TreeReader() = default;
  TreeReader(const TreeReader&) = delete;
  TreeReader& operator=(const TreeReader&) = delete;
  ~TreeReader();

 private:
  struct Folder {
    int fd = -1;            // -1: not open now; its child's ".." leads to it
    DIR* stream = nullptr;  // owns the descriptor; else `names` are what is left
    std::vector<std::string> names;
    dev_t device = 0;
    ino_t inode = 0;
    size_t path_size = 0;  // of path_ in it
  };
  void add(const std::string& name, std::string& out);
  void add_link(const std::string& name, Entry& entry, std::string& out);
  bool link_to_earlier(const struct stat& status, const std::string& name, Entry& entry, std::string& out);
  void begin_file(int fd, const struct stat& status, const std::string& name, Entry& entry, std::string& out);
  bool enter(int fd, const struct stat& status, const std::string& name);
  void stow(Folder& folder);
  bool leave(std::string& out);
  int reopen(const Folder& folder) const;
  bool next_name(std::string& name);
  void read_file(std::string& out);
  void end_file(bool whole, std::string& out);
  bool find_data(std::string& out);
  std::string shown(const std::string& name) const;
  void problem(const std::string& path, int error_number);
  bool fail(const std::string& path, int error_number);

  std::string root_;
  std::string first_;  // the frames of the root's entry
  std::string path_;   // below the root, of the folder that is being read
  std::vector<Folder> folders_;
  size_t first_open_ = 0;  // the folders before it are stowed
  // Files of several names, and the path that they were sent under first.
  std::map<std::pair<dev_t, ino_t>, std::string> linked_;
  size_t linked_bytes_ = 0;

  int file_ = -1;
  bool may_have_holes_ = false;
  uint64_t offset_ = 0;
  uint64_t data_end_ = 0;  // of the stretch of data at offset_
  std::string file_path_;

  bool done_ = false;
  std::vector<Problem> problems_;
  std::string error_;
};

}  // namespace snug::protocol
