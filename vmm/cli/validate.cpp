#include <fmt/format.h>

#include <cstdio>

#include "vmm/cli/commands.h"
#include "vmm/cli/put.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/load.h"

namespace snug::cli {

int validate(const ValidateArguments& arguments) {
  const auto outcome = load_spec(arguments.spec_path, {});
  for (const auto& problem : outcome.problems) put(stderr, "{}\n", format_problem(problem));
  if (!outcome.problems.empty()) {
    put(stderr, "snug: {} problem{} found\n", outcome.problems.size(),
        outcome.problems.size() == 1 ? "" : "s");
    return 1;
  }
  if (arguments.print)
    put("{}", effective_spec_yaml(outcome.spec));
  else
    put("{}: valid\n", arguments.spec_path);
  return 0;
}

int schema() {
  put("{}", json_schema());
  return 0;
}

}  // namespace snug::cli
