#include "vmm/cli/machines.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "vmm/cli/put.h"
#include "vmm/control/control_client.h"
#include "vmm/run/runner.h"

namespace snug::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kListPatience{1};
constexpr int kKillPatienceMs = 10'000;
// Until another process has taken a machine over, or its end shows.
constexpr int kUpdatePatienceMs = 1000;
constexpr std::chrono::seconds kAskPatience{5};

std::string text_in(const json& object, const char* member) {
  const auto found = object.is_object() ? object.find(member) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{}s", whole / 60, whole % 60);
  if (whole < 86'400) return fmt::format("{}h{}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{}h", whole / 86'400, whole / 3600 % 24);
}

std::string ports_text(const json& info) {
  std::string text;
  const auto ports = info.find("ports");
  if (ports == info.end() || !ports->is_array()) return text;
  for (const auto& port : *ports)
    if (port.is_string()) text += (text.empty() ? "" : ", ") + port.get<std::string>();
  return text;
}

// "running (healthy)"
std::string state_text(const json& row) {
  std::string text = text_in(row, "state");
  if (const auto health = row.find("health"); health != row.end() && text == "running")
    text += fmt::format(" ({})", text_in(*health, "state"));
  return text;
}

// What one row says: of one that does not answer in time, that.
json row_of(const FoundVm& vm) {
  json row{{"name", vm.name}};
  if (!vm.alive) {
    row["state"] = vm.exit_status ? fmt::format("ended ({})", *vm.exit_status) : "killed";
    return row;
  }
  row["pid"] = vm.pid;
  const auto answer = ask_machine(vm, "GET", "/v1/vm", {}, kListPatience);
  auto info = answer ? json::parse(answer->body, nullptr, false) : json();
  if (!info.is_object() || answer->status != 200) {
    row["state"] = "not answering";
    return row;
  }
  return info;
}

}  // namespace

int fail_command(const Error& error) {
  put(stderr, "snug: {}\n", error.text());
  return kStatusFailure;
}

std::string size_text(double bytes) {
  constexpr double kGib = 1 << 30;
  constexpr double kMib = 1 << 20;
  const double in_gib = bytes / kGib;
  if (in_gib >= 1) return fmt::format("{:.4g}G", std::round(in_gib * 10) / 10);
  return fmt::format("{:.4g}M", std::round(bytes / kMib * 10) / 10);
}

double number_in(const json& object, const char* member) {
  const auto found = object.is_object() ? object.find(member) : object.end();
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

Result<FoundVm> find_alive(const std::string& name) {
  FoundVm vm = SNUG_TRY(find_machine(name));
  if (!vm.alive) return fail("{} has ended", vm.name);
  return vm;
}

Result<json> ask_json(const FoundVm& vm, std::string_view method, std::string_view path,
                      const std::string& body) {
  const auto answer = SNUG_TRY(ask_machine(vm, method, path, body));
  json parsed = json::parse(answer.body, nullptr, false);
  if (answer.status == 200 && parsed.is_object()) return parsed;
  const auto error = text_in(parsed, "error");
  return fail("{}",
              error.empty() ? fmt::format("{}: an answer with status {}", vm.name, answer.status) : error);
}

Result<MachineEnd> end_of(const FoundVm& vm) {
  if (vm.alive) {
    auto answer = ask_machine(vm, "GET", "/v1/wait", {}, std::nullopt);
    // Another process of the machine answers, where it has been updated.
    while (!answer && !wait_for_end(vm, kUpdatePatienceMs) &&
           ask_machine(vm, "GET", "/v1/vm", {}, kAskPatience))
      answer = ask_machine(vm, "GET", "/v1/wait", {}, std::nullopt);
    const auto end = answer ? json::parse(answer->body, nullptr, false) : json();
    if (answer && answer->status != 200 && end.is_object()) return fail("{}", text_in(end, "error"));
    // Its process is still at work on its end.
    (void)wait_for_end(vm, kKillPatienceMs);
    if (end.is_object() && end.contains("exit_status"))
      return MachineEnd{static_cast<int>(number_in(end, "exit_status")), text_in(end, "message")};
    // Gone while it was asked: it may have left its status.
    const auto left = find_machine(vm.name);
    if (left && left->exit_status) return MachineEnd{*left->exit_status, left->end_message};
  } else if (vm.exit_status) {
    return MachineEnd{*vm.exit_status, vm.end_message};
  }
  return fail("{}: killed before it could say how it ended", vm.name);
}

Result<void> end_process(int pid, const FoundVm& vm) {
  // A descriptor, not a number: a number may belong to somebody else by now.
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process || ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0) != 0) {
    if (errno != ESRCH) return fail_errno(errno, "{}: end process {}", vm.name, pid);
  }
  if (!wait_for_end(vm, kKillPatienceMs)) return fail("{}: process {} does not end", vm.name, pid);
  return {};
}

Result<json> describe_machine(const FoundVm& vm) {
  if (vm.alive) return ask_json(vm, "GET", "/v1/vm");
  json ended{{"name", vm.name}, {"state", vm.exit_status ? "ended" : "killed"}, {"directory", vm.path}};
  if (vm.exit_status) ended["exit_status"] = *vm.exit_status;
  if (!vm.end_message.empty()) ended["message"] = vm.end_message;
  return ended;
}

int list(bool all, bool names_only, bool as_json) {
  const auto machines = list_machines();
  if (!machines) return fail_command(machines.error());
  if (!names_only && !as_json)
    put("{:<20} {:<19} {:>8} {:>5} {:>7} {:>8}  {}\n", "NAME", "STATE", "PID", "CPUS", "MEMORY", "UPTIME",
        "PORTS");
  for (const FoundVm& vm : *machines) {
    if (!vm.alive && !all) continue;
    if (names_only) {
      put("{}\n", vm.name);
      continue;
    }
    const json row = row_of(vm);
    if (as_json) {
      put("{}\n", row.dump());
      continue;
    }
    const bool known = row.contains("cpus");
    put("{:<20} {:<19} {:>8} {:>5} {:>7} {:>8}  {}\n", vm.name, state_text(row),
        vm.alive ? fmt::format("{}", number_in(row, "pid")) : "",
        known ? fmt::format("{}", number_in(row, "cpus")) : "",
        known ? size_text(number_in(row, "memory_bytes")) : "",
        known ? duration_text(number_in(row, "uptime_seconds")) : "", ports_text(row));
  }
  return 0;
}

}  // namespace snug::cli
