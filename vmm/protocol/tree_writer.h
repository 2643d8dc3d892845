// The frames of a copy, turned into files. What comes is not trusted: nothing outside of what is copied is
// ever written, whatever names and links come. What cannot be written is a problem, and the rest goes on; a
// full disk ends it. Any depth, with few descriptors. Shared by both ends; one thread, blocking on files
// only.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "vmm/protocol/tree_file.h"

namespace snug::protocol {

class TreeWriter {
 public:
  enum class Owners { kOurs, kKept };
  // Whether what lies at the destination may have been put there by the sender, to lead us astray.
  enum class Sender { kTrusted, kGuest };

  // As cp(1): into `destination` under `name` when that is a folder, else to be `destination` itself. Without
  // a name, what is in the folder that comes goes into `destination`.
  TreeWriter(std::string destination, std::string name, Owners owners, Sender sender);
  TreeWriter(const TreeWriter&) = delete;
  TreeWriter& operator=(const TreeWriter&) = delete;
  ~TreeWriter();

  // False: that was the last one, or error() is not empty.
  bool take(const Frame& frame);
  bool done() const { return done_; }
  const std::string& error() const { return error_; }
  // Those since the last call.
  std::vector<Problem> take_problems() { return std::exchange(problems_, {}); }

 private:
  struct Folder {
    int fd = -1;  // -1: not open now; its child's ".." leads to it
    bool made = false;
    Entry entry;
    dev_t device = 0;
    ino_t inode = 0;
    size_t path_size = 0;  // of path_ in it
  };
  bool begin(const Entry& entry);
  bool begin_root(const Entry& entry);
  bool begin_file(int folder, const std::string& name, const Entry& entry, TreeFile::Way way);
  bool begin_folder(const Entry& entry);
  bool make_link(const Entry& entry);
  bool make_fifo(const Entry& entry);
  bool make_hard_link(const Entry& entry);
  bool copy_of(int folder, const std::string& name, const Entry& entry);
  bool finish_entry(const Entry& entry, bool made);
  bool content(const Frame& frame);
  bool end_file(const Frame& frame);
  bool enter(int folder, const std::string& name, const Entry& entry);
  bool leave();
  int find_folder(const std::vector<std::string>& parts) const;
  std::string shown(const std::string& name) const;
  bool problem(const std::string& path, int error_number, const std::string& reason);
  bool problem(const Entry& entry, int error_number);
  void note_not_kept(const std::string& path);
  bool fail(const std::string& path, const std::string& reason);

  std::string destination_;
  const std::string name_;
  const bool owners_;
  const bool hostile_;
  int parent_ = -1;  // the folder in which the destination lies
  int root_ = -1;    // what is copied, when it is a folder
  std::vector<Folder> folders_;
  size_t first_open_ = 0;  // the folders before it are closed
  size_t skipped_ = 0;     // depth within a folder that could not be made
  std::string path_;       // below the root, of the folder that is being filled
  bool begun_ = false;
  bool done_ = false;
  bool in_file_ = false;
  TreeFile file_;
  Entry entry_;  // of the file
  std::string file_path_;
  // Files of several names that this copy has written into: another of those names is another file now.
  std::vector<std::pair<dev_t, ino_t>> shared_;
  std::vector<Problem> problems_;
  std::string error_;
};

}  // namespace snug::protocol
