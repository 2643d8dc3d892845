// Something wrong with a spec, with its place. Problems are values, collected and shown together.
#pragma once

#include <string>

namespace snug {

// A place in a text: from 1, columns count characters, not bytes. 0 where there is none.
struct Position {
  int line = 0;
  int column = 0;
  auto operator<=>(const Position&) const = default;
};

struct Problem {
  std::string file;  // as the person wrote it; empty for a flag, whose name then begins the message
  int line = 0;      // from 1; 0: the file as a whole
  int column = 0;    // from 1
  std::string message;
  bool operator==(const Problem&) const = default;
};

// "FILE:LINE:COLUMN: message", "FILE: message", or the message alone for a flag. One line.
std::string format_problem(const Problem& problem);

}  // namespace snug
