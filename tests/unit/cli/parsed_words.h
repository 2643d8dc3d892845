// Words of a command line as they come to main().
#pragma once

#include <string>
#include <vector>

#include "vmm/cli/command.h"

namespace snug::cli {

inline CommandLine::Parsed parse_words(CommandLine& line, std::vector<std::string> words) {
  words.insert(words.begin(), "snug");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  return line.parse(pointers);
}

}  // namespace snug::cli
