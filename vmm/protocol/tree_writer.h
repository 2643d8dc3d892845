// The frames of a copy, turned into files. What comes is not trusted: nothing outside of what is copied is
// ever written, whatever paths and links come. Shared by both ends; one thread, blocking on files only.
#pragma once

#include <string>
#include <vector>

#include "vmm/protocol/tree_reader.h"

namespace snug::protocol {

class TreeWriter {
 public:
  // As cp(1): into `destination` under `name` when that is a folder, else to be `destination` itself.
  TreeWriter(std::string destination, std::string name);
  TreeWriter(const TreeWriter&) = delete;
  TreeWriter& operator=(const TreeWriter&) = delete;
  ~TreeWriter();

  // False: that was the last one, or error() is not empty.
  bool take(const Frame& frame);
  bool done() const { return done_; }
  const std::string& error() const { return error_; }

 private:
  bool begin(const Entry& entry);
  bool begin_root(const Entry& entry);
  bool make(int folder, const std::string& name, const Entry& entry);
  void leave_folders(const std::string* next);
  bool write(std::string_view bytes);
  bool end_file();
  bool fail(const std::string& what, int error_number);

  std::string destination_;
  std::string name_;
  int root_ = -1;  // when a folder is copied
  // Made for this copy and not complete yet, each within the one before it. Until then its owner can write to
  // it.
  std::vector<Entry> folders_;
  bool begun_ = false;
  bool done_ = false;
  int file_ = -1;
  uint64_t left_ = 0;
  Entry entry_;  // of the file
  std::string error_;
};

}  // namespace snug::protocol
