// What a process that takes a machine's place has been given: the descriptors of its papers, and what the
// process before it tells last.
//
// Thread: one, before there are others.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/state.h"
#include "vmm/run/papers.h"

namespace snug {

struct HandedEnds {
  struct Disk {
    UniqueFd file;
    UniqueFd overlay;
  };
  struct Nic {
    std::vector<UniqueFd> taps;
    UniqueFd socket;
  };

  UniqueFd talk, calls, news;
  UniqueFd state, memory, ends;
  UniqueFd kernel;
  std::vector<UniqueFd> initrds;
  std::vector<Disk> disks;
  std::vector<Nic> nics;
  UniqueFd control, console, vsock;

  // Takes the descriptors that `papers` names: nobody who is started from here on has them. Errors: one of
  // them is not open.
  static Result<HandedEnds> take(const Papers& papers);
};

// Of the machine's life so far. Times of the host's monotonic clock, in nanoseconds.
struct FormerLife {
  uint32_t boots = 0;
  uint32_t updates = 0;  // before this one
  uint64_t began = 0;    // the machine's first boot
  uint64_t stands_since = 0;
  uint64_t created_at = 0;  // seconds since 1970
  std::string commands;     // what goes on in it (saved_commands.h); "": nothing

  // Section kSection.
  void save(StateWriter& to) const;
  static Result<FormerLife> restore(StateReader& from);
  static constexpr const char* kSection = "life";

  static uint64_t now();
};

}  // namespace snug
