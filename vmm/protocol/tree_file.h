// One file of a copy, at its receiver. A new one has no name before it is whole; one that is there gets new
// content where it is, so that it stays the same file for its other names, its owner and its readers.
// Shared by both ends; one thread, blocking on files only.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/protocol/tree_entry.h"

namespace snug::protocol {

class TreeFile {
 public:
  // kNamed: the user's own word for it, which may be a link, a device or a FIFO, and is written into.
  // kFound: a name that the sender has chosen: nothing is followed, and what is no file stays as it is.
  enum class Way { kNamed, kFound };
  enum class Target { kThere, kReplaced };

  // `folder` stays open until the file is closed. kReplaced: what has that name gives way in any case.
  // False, here and below: reason() says why, and nothing but discard() may follow.
  bool open(int folder, const std::string& name, Way way, Target target);
  bool is_open() const { return fd_ >= 0; }
  bool write(std::string_view bytes);
  bool hole(uint64_t length);
  // Whole: with its mode and time, and its owner if `owners`; kept() is false where these cannot be kept.
  bool finish(const Entry& entry, bool owners);
  bool kept() const { return kept_; }
  // A new file was never there; one that was is as long as it has become.
  void discard();

  std::string reason() const;
  int error_number() const { return error_; }

  TreeFile() = default;
  TreeFile(const TreeFile&) = delete;
  TreeFile& operator=(const TreeFile&) = delete;
  ~TreeFile() { discard(); }

 private:
  bool open_there(const struct stat& status, Way way);
  bool create();
  void keep(const Entry& entry, bool owners);
  bool give_name();
  bool fail(int error_number, const char* why = nullptr);

  int folder_ = -1;
  std::string name_;
  std::string temporary_;  // name of the new file, on file systems that cannot do without one
  int fd_ = -1;
  bool is_new_ = false;
  bool plain_ = false;  // an ordinary file, which has positions and may have holes
  uint64_t offset_ = 0;
  bool ends_in_hole_ = false;
  bool kept_ = true;
  int error_ = 0;
  const char* why_ = nullptr;
};

// Sets what a file or folder is to have beside its content. False: errno.
bool set_attributes(int fd, const Entry& entry, bool owners);

// Takes away what has the name, for something that is no ordinary file; a folder, device, FIFO or socket
// stays. False: errno is EISDIR or EEXIST for those.
bool clear_way(int folder, const std::string& name);

}  // namespace snug::protocol
