// The keys that a raw terminal keeps for snug: Ctrl-A x quits, Ctrl-A h helps, Ctrl-A Ctrl-A sends a Ctrl-A.
// Anything else after Ctrl-A goes to the guest as typed, Ctrl-A included. No threads, no I/O.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace snug {

enum class EscapeCommand { kNone, kQuit, kHelp };

class EscapeFilter {
 public:
  // `quit`: the letter that is kQuit after Ctrl-A, in either case.
  explicit EscapeFilter(char quit = 'x') : quit_(quit) {}

  // Appends what is meant for the guest to `out` and returns the last command found. After kQuit the rest of
  // the input is dropped. The state carries over: Ctrl-A and x may come in two reads.
  EscapeCommand feed(std::span<const std::byte> input, std::vector<std::byte>& out);

 private:
  char quit_;
  bool escaped_ = false;
};

}  // namespace snug
