// Problems as text, for exact comparison.
#pragma once

#include <string>
#include <vector>

#include "vmm/spec/load.h"

namespace snug {

inline std::vector<std::string> texts_of(const std::vector<Problem>& problems) {
  std::vector<std::string> texts;
  for (const auto& problem : problems) texts.push_back(format_problem(problem));
  return texts;
}

// Of a spec named "vm.yaml" in the folder /specs.
inline std::vector<std::string> problems_in(std::string_view yaml) {
  return texts_of(parse_spec_text(yaml, "vm.yaml", "/specs").problems);
}

}  // namespace snug
