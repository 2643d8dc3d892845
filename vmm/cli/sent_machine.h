// A machine while it is sent (/v1/send of vmm/control/openapi.json). It goes on as it was when this goes, or
// this process ends in whatever way, unless it has been told to stay.
//
// Main thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {

class SentMachine {
 public:
  // Errors: the machine's; the file system.
  static Result<SentMachine> begin(const FoundVm& vm);

  struct Round {
    bool tells = false;         // else nothing is known of what changes, and nothing was written in a round
    uint64_t pages = 0;         // that were written
    std::string commands = {};  // when it stands still: JSON of what it is started for; "": for nothing
  };
  // Each waits for as long as it takes. Errors: it has failed; it has ended.
  Result<Round> round();
  Result<Round> stand_still();
  Result<void> stay();
  // Until it goes on.
  void give_up();

  // What it has written: its memory, which changes with each of these calls and not between, and its state.
  int memory() const { return memory_.get(); }
  int state() const { return state_.get(); }
  // Adds those pages that the last one of the calls has written to `bits`, of any size.
  Result<void> add_pages(std::vector<uint64_t>& bits) const;

 private:
  SentMachine() = default;
  Result<nlohmann::json> ask(std::string_view word);
  Result<Round> ask_round(std::string_view word);

  std::string name_;
  UniqueFd state_;
  UniqueFd memory_;
  UniqueFd pages_;
  UniqueFd talk_;
};

}  // namespace snug::cli
