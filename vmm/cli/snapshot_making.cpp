#include "vmm/cli/snapshot_making.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "vmm/cli/machines.h"
#include "vmm/cli/snapshot_disks.h"
#include "vmm/control/control_client.h"
#include "vmm/run/run_report.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/load.h"

namespace snug::cli {
namespace {

using nlohmann::json;

Result<json> take_snapshot(const FoundVm& vm, const NewSnapshot& files, const SnapshotDisks& disks) {
  std::vector<int> descriptors{files.state(), files.memory()};
  descriptors.insert(descriptors.end(), disks.files.begin(), disks.files.end());
  // For as long as its disks take: there is no limit of ours.
  const auto response = SNUG_TRY(ask_machine(vm, "POST", "/v1/snapshot", {}, std::nullopt, descriptors));
  json body = json::parse(response.body, nullptr, false);
  if (response.status != 200)
    return fail("{}", body.is_object() ? body.value("error", "it was refused") : "it was refused");
  return body;
}

}  // namespace

Result<Spec> spec_of(const json& machine) {
  auto parsed = parse_spec_text(machine.value("spec", ""), "spec.yaml", "");
  if (!parsed.problems.empty()) return fail("its spec: {}", format_problem(parsed.problems.front()));
  return std::move(parsed.spec);
}

Result<json> save_machine(const FoundVm& vm, NewSnapshot& made) {
  const json machine_now = SNUG_TRY(ask_json(vm, "GET", "/v1/vm"));
  Spec spec = SNUG_TRY(spec_of(machine_now));
  const auto disks = SNUG_TRY(add_disks(made, spec));
  json taken = SNUG_TRY(take_snapshot(vm, made, disks));
  SNUG_TRY(made.write_file("spec.yaml", effective_spec_yaml(spec)));
  json about{{"machine", vm.name}, {"snug", version_text()}, {"disks", disks.elsewhere}};
  if (const auto commands = taken.find("commands"); commands != taken.end()) about["commands"] = *commands;
  SNUG_TRY(made.write_file("snapshot.json", about.dump(2) + "\n"));
  return taken;
}

void add_beginning_flags(Command command, RunArguments& how) {
  command
      .option_to(
          "-p,--ports", [&how](const std::vector<std::string>& ports) { how.flags.by_key["ports"] = ports; },
          "Ports of this host that lead to the guest, in the place of those of the machine that was saved")
      .placeholder("[[HOST_IP:]HOST_PORT:]GUEST_PORT[/udp]");
}

int begin_there(const StoredSnapshot& snapshot, const std::string& name, RunArguments how) {
  if (const auto same = check_disks_elsewhere(snapshot.disks); !same) return fail_command(same.error());
  how.spec_path = (snapshot.folder / "spec.yaml").string();
  how.snapshot = snapshot.folder.string();
  how.snapshot_of = snapshot.machine;
  how.commands = snapshot.commands;
  if (!name.empty()) {
    how.flags.add("name", name);
  } else if (const auto there = find_machine(snapshot.machine); there && there->alive) {
    how.flags.add("name", unused_name(snapshot.machine));
  }
  return run(how);
}

}  // namespace snug::cli
