#include "vmm/cli/update.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/sparse_file.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/run/live_update.h"
#include "vmm/run/runner.h"
#include "vmm/spec/load.h"

namespace snug::cli {
namespace {

using nlohmann::json;

// --- snug update ------------------------------------------------------------------------------------------

// Where this program is, for the warden to start.
Result<std::string> this_program() {
  std::array<char, 4096> path{};
  const ssize_t count = ::readlink("/proc/self/exe", path.data(), path.size());
  if (count <= 0) return fail_errno(errno, "/proc/self/exe");
  return std::string(path.data(), static_cast<size_t>(count));
}

Result<void> name_program(const FoundVm& vm) {
  const auto directory = SNUG_TRY(VmDirectory::of_another(vm.path, Keep::kNo));
  return directory.write_file(LiveUpdate::kProgramFile, SNUG_TRY(this_program()));
}

// The connection has ended without an answer: another process is there, or none.
Result<json> look_again(const FoundVm& vm) {
  const FoundVm now = SNUG_TRY(find_machine(vm.name));
  if (!now.alive) return fail("{} has ended meanwhile", vm.name);
  return ask_json(now, "GET", "/v1/vm");
}

Result<void> update_machine(const FoundVm& vm) {
  if (!vm.alive) return fail("{} has ended", vm.name);
  const json before = SNUG_TRY(ask_json(vm, "GET", "/v1/vm"));
  SNUG_TRY(name_program(vm));
  const auto answer = ask_machine(vm, "POST", "/v1/update", {}, std::nullopt);
  if (answer) {
    const json said = json::parse(answer->body, nullptr, false);
    return fail("{} goes on as it was: {}", vm.name,
                said.is_object() ? said.value("error", "it was refused") : "it was refused");
  }
  const json now = SNUG_TRY(look_again(vm));
  if (number_in(now, "updates") == number_in(before, "updates"))
    return fail("{}: {}", vm.name, answer.error().text());
  put(stderr, "snug: {} stood still for {:.0f} ms; it is run by {} now\n", vm.name,
      number_in(now, "update_seconds") * 1000, now.value("program", ""));
  return {};
}

Result<std::vector<std::string>> names_of_all() {
  std::vector<std::string> names;
  for (const FoundVm& vm : SNUG_TRY(list_machines()))
    if (vm.alive) names.push_back(vm.name);
  return names;
}

int update(std::vector<std::string> names, bool all) {
  if (all == !names.empty())
    return fail_command(Error{"which machine?", "snug update NAME, or --all for all that run"});
  if (all) {
    auto every = names_of_all();
    if (!every) return fail_command(every.error());
    names = std::move(*every);
  }
  int status = 0;
  for (const std::string& name : names) {
    const auto vm = find_machine(name);
    const auto updated = vm ? update_machine(*vm) : Result<void>(tl::unexpected(vm.error()));
    if (!updated) status = fail_command(updated.error());
  }
  return status;
}

// --- what the warden starts
// ---------------------------------------------------------------------------------

Result<Papers> read_papers(const std::string& number) {
  const int fd = std::atoi(number.c_str());
  struct stat status {};
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || ::fstat(fd, &status) != 0)
    return fail_errno(errno, "descriptor {}", number);
  const UniqueFd file(fd);
  std::string text(static_cast<size_t>(status.st_size), '\0');
  SNUG_TRY(read_at(fd, std::as_writable_bytes(std::span(text)), 0));
  return Papers::parse(text);
}

// Returns only what kept it from that.
Result<void> take_over_machine(const Papers& papers, HandedEnds handed) {
  auto parsed = parse_spec_text(papers.spec, "spec.yaml", "");
  if (!parsed.problems.empty()) return fail("its spec: {}", format_problem(parsed.problems.front()));
  const Spec& spec = parsed.spec;
  SNUG_TRY(log_open(spec.log.level, spec.log.file));
  const auto kvm = SNUG_TRY(kvm::Kvm::open());
  auto directory = SNUG_TRY(VmDirectory::of_another(papers.directory, papers.keep ? Keep::kYes : Keep::kNo));
  RunnerOptions options;
  options.directory = &directory;
  options.background = papers.background;
  options.program = version_text();
  options.ended = [](const RunReport& report, const std::vector<CommandResult>&) {
    if (!report.detail.empty()) log_error("{}", report.detail);
    if (!report.message.empty()) put(stderr, "snug: {}\n", report.message);
    return report.exit_status;
  };
  const auto runner = SNUG_TRY(Runner::adopt(kvm, spec, std::move(options), papers, std::move(handed)));
  return tl::unexpected(runner->hand_to_warden());
}

int take_over(const std::string& number) {
  const auto papers = read_papers(number);
  if (!papers) return fail_command(papers.error());
  auto handed = HandedEnds::take(*papers);
  if (!handed) return fail_command(handed.error());
  const auto talk = duplicate(handed->talk.get());
  if (!talk) return fail_command(talk.error());
  const auto taken = take_over_machine(*papers, std::move(*handed));
  (void)warden::send(talk->get(), UpdateTalk{static_cast<uint32_t>(UpdateWord::kFailed), 0},
                     taken.error().text());
  return kStatusFailure;
}

struct Options {
  std::vector<std::string> names;
  std::string papers;
  bool all = false;
};

}  // namespace

void add_update_commands(CommandSet& commands) {
  const auto given = std::make_shared<Options>();
  commands.add(
      "update", "Let this snug run a machine that an older one runs, while its guest goes on",
      [given](Command command) {
        command.argument("NAME", given->names, "The machines");
        command.flag("--all", given->all, "All that run");
        command.footer(
            "Its guest stands still for some milliseconds. Connections of its network and disks go on; "
            "those\n"
            "of its socket device (snug exec, shell, cp) end, as do those to its console. A command that it\n"
            "runs goes on. If the new program cannot take it over it goes on as it was.\n");
      },
      [given] { return update(given->names, given->all); });
  commands.add(
      "take-over", "Take a machine over, for its warden",
      [given](Command command) {
        command.hide();
        command.argument("PAPERS", given->papers).required();
      },
      [given] { return take_over(given->papers); });
}

}  // namespace snug::cli
