#include "vmm/cli/life_commands.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "vmm/cli/console_commands.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/storage.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/run/runner.h"

namespace snug::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kKillPatience{5};
// What a machine that has been stopped by force gets to clean up, beyond the guest's grace period.
constexpr int kEndPatienceMs = 10'000;

// Runs `action` on each machine named; goes on after a failure, and the status says that there was one.
template <class Action>
int for_each_machine(const std::vector<std::string>& names, Action action) {
  int status = 0;
  for (const auto& name : names) {
    Result<void> done = [&]() -> Result<void> {
      const FoundVm vm = SNUG_TRY(find_machine(name));
      return action(vm);
    }();
    if (done) continue;
    put(stderr, "snug: {}\n", done.error().text());
    status = kStatusFailure;
  }
  return status;
}

Result<void> need_alive(const FoundVm& vm) {
  if (vm.alive) return {};
  return fail("{} has ended{}", vm.name, vm.exit_status ? fmt::format(" (status {})", *vm.exit_status) : "");
}

// A request whose answer says only whether it was done.
Result<void> request(const FoundVm& vm, std::string_view path, const std::string& body = {}) {
  SNUG_TRY(need_alive(vm));
  SNUG_TRY(ask_json(vm, "POST", path, body));
  return {};
}

int simple(const std::vector<std::string>& names, std::string_view path) {
  return for_each_machine(names, [&](const FoundVm& vm) { return request(vm, path); });
}

int stop(const std::vector<std::string>& names, std::optional<double> seconds) {
  return for_each_machine(names, [&](const FoundVm& vm) -> Result<void> {
    if (!vm.alive) return {};
    const std::string body = seconds ? json{{"grace_seconds", *seconds}}.dump() : "";
    SNUG_TRY(request(vm, "/v1/stop", body));
    // The machine keeps the time itself; without a limit of ours, its spec's.
    std::optional<int> limit;
    if (seconds) limit = static_cast<int>(*seconds * 1000) + kEndPatienceMs;
    if (!wait_for_end(vm, limit)) return fail_with_hint(vm.name + " does not end", "snug kill " + vm.name);
    return {};
  });
}

}  // namespace

Result<void> kill_machine(const FoundVm& vm) {
  if (!vm.alive) return {};
  // Its monitor may be the thing that hangs: then the kernel ends it.
  const auto pid = serving_process(vm);
  const auto asked = ask_machine(vm, "POST", "/v1/kill", {}, kKillPatience);
  if (asked && wait_for_end(vm, kEndPatienceMs)) return {};
  if (wait_for_end(vm, 0)) return {};
  if (!pid) return asked ? fail("{} does not end", vm.name) : fail("{}", asked.error().text());
  return end_process(*pid, vm);
}

namespace {

Result<void> remove_one(const FoundVm& vm, bool force) {
  if (force) SNUG_TRY(kill_machine(vm));
  // Without a log to keep, its end has removed it already.
  const auto left = find_machine(vm.name);
  return left ? remove_machine(*left) : Result<void>{};
}

int remove(const std::vector<std::string>& names, bool force) {
  return for_each_machine(names, [&](const FoundVm& vm) { return remove_one(vm, force); });
}

// The machine may have gone before.
int remove_with_storage(const std::vector<std::string>& names, bool force) {
  int status = 0;
  for (const std::string& name : names) {
    const auto removed = [&]() -> Result<void> {
      const auto vm = find_machine(name);
      if (vm) SNUG_TRY(remove_one(*vm, force));
      if (!vm && !has_storage(name)) return tl::unexpected(vm.error());
      return has_storage(name) ? remove_storage(name) : Result<void>{};
    }();
    if (!removed) status = fail_command(removed.error());
  }
  return status;
}

// The machine's exit status, as `snug run` would have ended; the last one's when there are several.
int wait(const std::vector<std::string>& names) {
  int status = 0;
  const int failed = for_each_machine(names, [&](const FoundVm& vm) -> Result<void> {
    const auto end = SNUG_TRY(end_of(vm));
    put("{}\n", end.exit_status);
    if (!end.message.empty()) put(stderr, "snug: {}: {}\n", vm.name, end.message);
    status = end.exit_status;
    return {};
  });
  return failed != 0 ? failed : status;
}

int inspect(const std::vector<std::string>& names) {
  return for_each_machine(names, [](const FoundVm& vm) -> Result<void> {
    put("{}\n", SNUG_TRY(describe_machine(vm)).dump(2));
    return {};
  });
}

// What there is a limit for, and how much of it is used.
std::string limits_text(const json& usage) {
  const auto found = usage.find("limits");
  if (found == usage.end()) return "-";
  const json& limits = *found;
  std::vector<std::string> parts;
  if (limits.contains("cpu"))
    parts.push_back(fmt::format("cpu {} (waited in {:.0f} of {:.0f} periods)", number_in(limits, "cpu"),
                                number_in(limits, "throttled_periods"), number_in(limits, "cpu_periods")));
  if (limits.contains("memory_bytes"))
    parts.push_back(fmt::format("memory {} of {}", size_text(number_in(limits, "used_memory_bytes")),
                                size_text(number_in(limits, "memory_bytes"))));
  if (limits.contains("io_weight"))
    parts.push_back(fmt::format("io_weight {:.0f}", number_in(limits, "io_weight")));
  return fmt::format("{}", fmt::join(parts, ", "));
}

int stats(std::vector<std::string> names, bool as_json) {
  if (names.empty()) {
    const auto machines = list_machines();
    if (!machines) return fail_command(machines.error());
    for (const FoundVm& vm : *machines)
      if (vm.alive) names.push_back(vm.name);
  }
  if (!as_json)
    put("{:<20} {:>10} {:>10} {:>12} {:>10} {:>15}  {}\n", "NAME", "CPU", "MEMORY", "GUEST MEMORY", "SHARED",
        "GUEST AVAILABLE", "LIMITS");
  return for_each_machine(names, [&](const FoundVm& vm) -> Result<void> {
    SNUG_TRY(need_alive(vm));
    json usage = SNUG_TRY(ask_json(vm, "GET", "/v1/stats"));
    if (as_json) {
      usage["name"] = vm.name;
      put("{}\n", usage.dump());
      return {};
    }
    // As the guest says, which may say nothing.
    const char* member = "guest_available_bytes";
    const auto available = usage.contains(member) ? size_text(number_in(usage, member)) : "-";
    put("{:<20} {:>10} {:>10} {:>12} {:>10} {:>15}  {}\n", vm.name,
        fmt::format("{:.1f}s", number_in(usage, "cpu_seconds")), size_text(number_in(usage, "memory_bytes")),
        size_text(number_in(usage, "guest_memory_bytes")), size_text(number_in(usage, "guest_shared_bytes")),
        available, limits_text(usage));
    return {};
  });
}

struct Options {
  std::vector<std::string> names;
  std::string name;
  std::optional<double> seconds;
  bool all = false;
  bool quiet = false;
  bool as_json = false;
  bool force = false;
  bool follow = false;
  bool console = false;
  bool before = false;
  bool storage = false;
};

}  // namespace

void add_life_commands(CommandSet& commands) {
  const auto given = std::make_shared<Options>();
  commands.add(
      "ps", "List the machines that run",
      [given](Command ps) {
        ps.flag("-a,--all", given->all, "Also those that have ended and were kept");
        ps.flag("-q,--quiet", given->quiet, "Names only");
        ps.flag("--json", given->as_json, "One JSON object for each machine");
      },
      [given] { return list(given->all, given->quiet, given->as_json); });
  commands.add(
      "logs", "Print what a machine's command has printed, or its console",
      [given](Command logs) {
        logs.argument("NAME", given->name).required();
        logs.flag("-f,--follow", given->follow, "Go on until the machine ends");
        logs.flag("--console", given->console,
                  "The console, also of a machine that runs a command in the background");
        logs.flag("--previous", given->before, "Of the machine that had the name before this one");
      },
      [given] {
        const auto kind = given->console ? LogKind::kConsole : LogKind::kPrinted;
        return show_log(given->name, given->follow, kind,
                        given->before ? LogOf::kRunBefore : LogOf::kThisRun);
      });
  commands.add(
      "attach", "Connect this terminal to the console of a machine in the background",
      [given](Command join) {
        join.argument("NAME", given->name).required();
        join.footer("Ctrl-A d leaves; the machine runs on.\n");
      },
      [given] { return attach(given->name); });

  const auto names = [given](Command added) { added.argument("NAME", given->names).required(); };
  commands.add(
      "stop", "Press the power button, and stop a guest that takes too long",
      [given, names](Command added) {
        names(added);
        added
            .option("-t,--time", given->seconds, "How many seconds the guest has (default: its grace_period)")
            .within(0.0, 86'400.0);
      },
      [given] { return stop(given->names, given->seconds); });
  commands.add("kill", "Stop at once", names,
               [given] { return for_each_machine(given->names, kill_machine); });
  commands.add("pause", "Halt every vCPU", names, [given] { return simple(given->names, "/v1/pause"); });
  commands.add("resume", "Go on after pause", names, [given] { return simple(given->names, "/v1/resume"); });
  commands.add("wait", "Wait for the end, print the exit status and end with it", names,
               [given] { return wait(given->names); });
  commands.add("inspect", "Everything about a machine, as JSON", names,
               [given] { return inspect(given->names); });
  commands.add(
      "stats", "CPU time and memory of machines (default: all), and of their limits",
      [given](Command usage) {
        usage.argument("NAME", given->names);
        usage.flag("--json", given->as_json, "One JSON object for each machine");
      },
      [given] { return stats(given->names, given->as_json); });
  commands.add(
      "rm", "Remove what is left of machines that have ended",
      [given, names](Command added) {
        names(added);
        added.flag("-f,--force", given->force, "Also of one that runs: it is killed");
        added.flag("--storage", given->storage,
                   "And what is kept under its name (storage), with all that is in it");
      },
      [given] {
        return given->storage ? remove_with_storage(given->names, given->force)
                              : remove(given->names, given->force);
      });
}

}  // namespace snug::cli
