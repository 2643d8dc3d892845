// The table of layers and what image they make: each row is a test.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/unit/images/layer_maker.h"

namespace snug::test {

struct LayerCase {
  std::string name;
  // From the lowest on, in the lines of layer_maker.h; or as bytes.
  std::vector<Lines> layers;
  Lines expected;     // the image's
  std::string fault;  // or the name of the fault that refuses it
  std::function<std::vector<std::string>()> raw = nullptr;
};

inline void PrintTo(const LayerCase& row, std::ostream* out) { *out << row.name; }

std::vector<LayerCase> tar_cases();
std::vector<LayerCase> raw_tar_cases();
std::vector<LayerCase> whiteout_cases();
std::vector<LayerCase> merge_cases();
std::vector<LayerCase> link_cases();
std::vector<LayerCase> hostile_cases();

}  // namespace snug::test
