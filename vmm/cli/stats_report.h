// What `snug run --stats` prints: one figure a line, "stats: NAME VALUE [UNIT]", for people and for scripts.
#pragma once

#include <string>

#include "vmm/run/runner.h"

namespace snug::cli {

std::string stats_report(const RunReport& report);

}  // namespace snug::cli
