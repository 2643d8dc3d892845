// The signals that want this process to end, kept back while its death would leave something half-made.
//
// Main thread, before others exist.
#pragma once

#include <csignal>

#include "vmm/base/unique_fd.h"

namespace snug::oci {

class HeldSignals {
 public:
  // SIGINT, SIGTERM and SIGHUP, but for those that are ignored.
  HeldSignals();
  // They are as before; the one that came ends the process now.
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  // Becomes readable when one comes.
  int fd() const { return fd_.get(); }
  // Whether one has come; without waiting.
  bool came();
  // What programs that are started meanwhile are to have.
  const sigset_t& mask_before() const { return before_; }

 private:
  sigset_t before_{};
  UniqueFd fd_;
  int number_ = 0;  // the first that came
};

}  // namespace snug::oci
