// Usage: judge-calls [--linux] FILE
//
// Holds the table of vmm/jail/thread_rules.cpp against what machines have called, one line of record_line()
// each in FILE. Names the entries that nobody needed and that the table does not except; --linux: Linux
// guests ran too, and everything that only they need was to be seen. Exit status: 1 if there are any.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "vmm/jail/record.h"
#include "vmm/jail/thread_rules.h"

using namespace snug;
using namespace snug::jail;

namespace {

using Lines = std::set<std::string>;

// The builder may do what those may that it starts, since they have its filter too: what they need it needs.
bool is_needed(ThreadKind kind, const CallEntry& entry, const Lines& seen) {
  if (seen.contains(record_line(kind, entry))) return true;
  return kind == ThreadKind::kBuilder &&
         (is_needed(ThreadKind::kVcpu, entry, seen) || is_needed(ThreadKind::kDevice, entry, seen));
}

const Unseen* exception(ThreadKind kind, const CallEntry& entry) {
  if (const Unseen* found = find_unseen(kind, entry)) return found;
  if (kind != ThreadKind::kBuilder) return nullptr;
  const Unseen* of_vcpu = find_unseen(ThreadKind::kVcpu, entry);
  return of_vcpu != nullptr ? of_vcpu : find_unseen(ThreadKind::kDevice, entry);
}

}  // namespace

int main(int count, char** arguments) {
  const bool linux_too = count == 3 && std::strcmp(arguments[1], "--linux") == 0;
  if (count != 2 && !linux_too) return 2;
  std::ifstream file(arguments[count - 1]);
  Lines seen;
  for (std::string line; std::getline(file, line);) seen.insert(line);
  if (seen.empty()) {
    std::puts("no machine has noted what it called");
    return 1;
  }
  size_t entries = 0;
  size_t excepted = 0;
  size_t idle = 0;
  for (size_t i = 0; i < kThreadKinds; ++i) {
    const auto kind = static_cast<ThreadKind>(i);
    // Only guests with a driver have requests for it.
    if (kind == ThreadKind::kShare && !linux_too) continue;
    const auto rules = thread_rules(kind);
    for (const CallEntry& entry : entries_of(rules)) {
      ++entries;
      if (is_needed(kind, entry, seen)) continue;
      const Unseen* known = exception(kind, entry);
      if (known != nullptr && (known->by == Unseen::By::kAnyTest || !linux_too)) {
        ++excepted;
        continue;
      }
      ++idle;
      std::printf("nothing needs it: %s (%s)\n", record_line(kind, entry).c_str(), entry.rule->why);
    }
  }
  std::printf(
      "%zu entries of the table, %zu without a test that needs them, with a reason; %zu without one\n",
      entries, excepted, idle);
  return idle == 0 ? 0 : 1;
}
