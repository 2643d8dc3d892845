// What the ways behind the wall have in common (steps.cpp, share_steps.cpp): an account of each step, and the
// steps that are the same in both.
#pragma once

#include <string>

#include "vmm/jail/process.h"
#include "vmm/jail/steps.h"

namespace snug::jail {

// 0 or the errno of a call that has just returned `outcome`.
int failed(int outcome);

class StepList {
 public:
  explicit StepList(const Split& split) : split_(split) {}

  void done(std::string name) { entry_.done.push_back(std::move(name)); }
  void miss(std::string name, int error, std::string hint);
  // Done unless there is an error.
  void note(const std::string& name, int error);

  // Those that split() has made, or why there are none.
  void namespaces();
  // A way of its own into a user namespace came later.
  void has_user_namespace() { own_user_namespace_ = true; }
  bool own_user_namespace() const { return own_user_namespace_; }
  void no_new_privileges();
  void not_dumpable();
  // RLIMIT_FSIZE would be of sparse disks, too.
  void limits(const Limits& limits);
  // The last one.
  void end_with_the_parent();

  const Split& split() const { return split_; }
  Entry take() { return std::move(entry_); }

 private:
  const Split& split_;
  bool own_user_namespace_ = false;
  Entry entry_;
};

// The new root is an empty file system that lies over the old one, so that it takes no folder of the host's;
// "/" itself still leads to the old one, but ".." of it is what lies on top. `options`: of the tmpfs.
// Afterwards the working folder is the new root. 0 or an errno.
int lay_empty_root(unsigned long flags, const char* options);
// The old one goes. 0 or an errno.
int enter_laid_root();

}  // namespace snug::jail
