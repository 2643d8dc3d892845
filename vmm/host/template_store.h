// The folder in which templates are kept: machines saved when their guest's agent had called and before it
// was asked for anything, for the next ones of the same kind to begin with. A kind is all that shaped the
// guest so far.
//
//   NAME/state, NAME/memory    as vmm/core/state.h and vmm/core/memory_image.h have them; never written to
//   again
//   NAME/touched               what guests that begin with it write to at once (vmm/core/touched_pages.h)
//   NAME.seen                  there was a machine of the kind. Not empty: no template can be made of it
//
// The folder is the user's alone. Templates go with their age, since guests of one share their random
// addresses.
//
// Thread: any, one at a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

// What makes the kind of a machine, put together.
class TemplateKind {
 public:
  void add(std::string_view what, std::string_view value);
  // The file as it is: its contents may change only with its size, its inode or its times. False: it may have
  // been changed just now without that being seen, or it is no regular file.
  bool add_file(std::string_view what, int fd);
  // A name for files.
  std::string name() const;

 private:
  std::string text_;
};

class TemplateStore {
 public:
  struct Files {
    UniqueFd state;
    UniqueFd memory;
    UniqueFd touched;  // of one that was found, or none
  };

  // Keeps nothing.
  TemplateStore() = default;
  TemplateStore(TemplateStore&& other) noexcept;
  TemplateStore& operator=(TemplateStore&& other) noexcept;
  ~TemplateStore() { drop(); }
  // Makes the folder when it is missing. Errors: cannot be made or opened; another user's or writable for
  // others.
  static Result<TemplateStore> open(const std::string& folder, std::string name);

  // The files of the template, open for reading; none when there is none. One that is too old, or that others
  // may have written to, goes.
  Files find();
  // Whether there was a machine of this kind before; from now on there was. Not of a kind that was refused
  // less than a day ago.
  bool seen();
  // No template can be made of this kind, or nothing can begin with one.
  void refuse();
  // Empty files for it. Errors: the file system.
  Result<Files> begin();
  bool begun() const { return !unfinished_.empty(); }
  // They are whole: found from now on. Others make room. Errors: the file system; there are none.
  Result<void> keep();
  // Of the one that was found: once, and nobody is lost without it.
  void keep_touched(std::string_view touched);
  // They are not wanted.
  void drop();
  // Nor is the one that was found: nothing can begin with it.
  void forget();
  // For a process that asks another: lets go of the folder.
  void leave();

 private:
  void prune() const;
  void prune_notes() const;
  std::string note() const;

  UniqueFd folder_;
  std::string name_;
  std::string unfinished_;  // the folder of the files that begin() has made
};

}  // namespace snug
