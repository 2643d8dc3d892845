#include "vmm/jail/call_names.h"

#include <iterator>

namespace snug::jail {
namespace {

constexpr const char* kNames[] = {
#include "vmm/jail/call_names.inc"
};

}  // namespace

size_t call_count() { return std::size(kNames); }

const char* call_name(long number) {
  return number >= 0 && static_cast<size_t>(number) < std::size(kNames) ? kNames[number] : "";
}

}  // namespace snug::jail
