// `snug run --detach`: a process of its own for the machine, and a parent that waits until the guest runs, so
// that everything that can go wrong before is said on this terminal, with its status.
//
// Thread: the main one, before there are others.
#pragma once

#include <functional>
#include <string>

#include "vmm/base/unique_fd.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {

class Background {
 public:
  explicit Background(UniqueFd parent) : parent_(std::move(parent)) {}
  // Opens what the streams become.
  void prepare(const VmDirectory& directory);
  // The guest runs: leaves the terminal. From here on messages go to the file snug.log in the directory.
  void leave_terminal();
  // The same, and lets the parent go, which prints the name.
  void started(const std::string& name);

 private:
  UniqueFd parent_;
  UniqueFd null_;
  UniqueFd log_;
};

// Runs `body` in a process of its own. Returns in the parent: what `started` returns, which is called with
// the name once the guest has started and the name is printed, else what `body` has returned. The child does
// not return.
int in_background(const std::function<int(Background&)>& body,
                  const std::function<int(const std::string& name)>& started);

}  // namespace snug::cli
