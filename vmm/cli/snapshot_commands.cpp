#include "vmm/cli/snapshot_commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/oci/held_signals.h"
#include "vmm/run/run_report.h"

namespace snug::cli {
namespace {

using nlohmann::json;

struct Options {
  std::string machine;
  std::string name;
  std::vector<std::string> names;
  bool as_json = false;
  RunArguments run;
};

std::string date_text(time_t when) {
  tm local{};
  ::localtime_r(&when, &local);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M", &local)};
}

json about(const StoredSnapshot& snapshot) {
  return {
      {"name", snapshot.name}, {"machine", snapshot.machine},           {"folder", snapshot.folder.string()},
      {"made", snapshot.made}, {"memory_bytes", snapshot.memory_bytes}, {"disk_bytes", snapshot.disk_bytes}};
}

Result<json> take_snapshot(const FoundVm& vm, const NewSnapshot& files) {
  const std::array descriptors{files.state(), files.memory()};
  // For as long as its disks take: there is no limit of ours.
  const auto response = SNUG_TRY(ask_machine(vm, "POST", "/v1/snapshot", {}, std::nullopt, descriptors));
  json body = json::parse(response.body, nullptr, false);
  if (response.status != 200)
    return fail("{}", body.is_object() ? body.value("error", "it was refused") : "it was refused");
  return body;
}

Result<void> make_snapshot(const std::string& machine, std::string name) {
  const FoundVm vm = SNUG_TRY(find_machine(machine));
  if (!vm.alive) return fail("{} has ended", vm.name);
  if (name.empty()) name = vm.name;
  // Whoever wants us to end waits until the machine goes on; nothing half-made is left then.
  oci::HeldSignals signals;
  auto made = SNUG_TRY(NewSnapshot::begin(name));
  const json machine_now = SNUG_TRY(ask_json(vm, "GET", "/v1/vm"));
  const json taken = SNUG_TRY(take_snapshot(vm, made));
  if (signals.came()) return fail("interrupted; no snapshot was made");
  SNUG_TRY(made.write_file("spec.yaml", machine_now.value("spec", "")));
  SNUG_TRY(
      made.write_file("snapshot.json", json{{"machine", vm.name}, {"snug", version_text()}}.dump(2) + "\n"));
  const auto kept = SNUG_TRY(made.keep());
  put("{}\n", kept.name);
  put(stderr, "snug: {} of memory on disk, {} of state; {} stood still for {:.0f} ms\n",
      size_text(static_cast<double>(kept.disk_bytes)), size_text(number_in(taken, "state_bytes")), vm.name,
      number_in(taken, "paused_seconds") * 1000);
  return {};
}

int list_snapshots(bool as_json) {
  const auto all = stored_snapshots();
  if (!all) return fail_command(all.error());
  if (all->empty() && !as_json)
    put(stderr, "snug: there are no snapshots; snug snapshot NAME makes one of a machine that runs\n");
  if (!all->empty() && !as_json)
    put("{:<20} {:<20} {:>8} {:>8}  {}\n", "NAME", "MACHINE", "MEMORY", "ON DISK", "MADE");
  for (const StoredSnapshot& snapshot : *all) {
    if (as_json)
      put("{}\n", about(snapshot).dump());
    else
      put("{:<20} {:<20} {:>8} {:>8}  {}\n", snapshot.name, snapshot.machine,
          size_text(static_cast<double>(snapshot.memory_bytes)),
          size_text(static_cast<double>(snapshot.disk_bytes)), date_text(snapshot.made));
  }
  return 0;
}

int inspect_snapshot(const std::string& name) {
  const auto snapshot = find_snapshot(name);
  if (!snapshot) return fail_command(snapshot.error());
  put("{}\n", about(*snapshot).dump(2));
  return 0;
}

int remove_snapshots(const std::vector<std::string>& names) {
  int status = 0;
  for (const std::string& name : names)
    if (const auto removed = remove_snapshot(name); !removed) status = fail_command(removed.error());
  return status;
}

// Under the name that it had, unless a machine has it.
int restore(Options& given) {
  const auto snapshot = find_snapshot(given.name);
  if (!snapshot) return fail_command(snapshot.error());
  RunArguments& run_arguments = given.run;
  run_arguments.spec_path = (snapshot->folder / "spec.yaml").string();
  run_arguments.snapshot = snapshot->folder.string();
  if (!given.machine.empty()) {
    run_arguments.flags.add("name", given.machine);
  } else if (const auto there = find_machine(snapshot->machine); there && there->alive) {
    run_arguments.flags.add("name", unused_name(snapshot->machine));
  }
  return run(run_arguments);
}

}  // namespace

void add_snapshot_commands(CommandSet& commands, CommandSet::Action& chosen) {
  const auto given = std::make_shared<Options>();
  const auto describe = [given, &chosen](CLI::App& snapshot) {
    snapshot.add_option("MACHINE", given->machine, "The machine; it goes on afterwards");
    snapshot.add_option("NAME", given->name,
                        "What the snapshot is called, or a folder's path (default: as the machine)");
    snapshot.footer(
        "The machine stands still while its memory is written. Its disks must be read-only: what a\n"
        "disk holds is not part of a snapshot. snug restore NAME begins a machine where it stood.\n"
        "Whoever can read a snapshot reads all that was in the guest's memory.\n");
    snapshot.callback([&chosen, given, &snapshot] {
      if (!snapshot.get_subcommands().empty()) return;
      chosen = [given] {
        if (given->machine.empty())
          return fail_command(Error{"which machine?", "snug snapshot MACHINE [NAME]"});
        const auto made = make_snapshot(given->machine, given->name);
        return made ? 0 : fail_command(made.error());
      };
    });
    const auto command = [&](const char* name, const char* about, CommandSet::Action action) {
      return add_subcommand(snapshot, name, about, chosen, std::move(action));
    };
    command("list", "List the snapshots", [given] {
      return list_snapshots(given->as_json);
    })->add_flag("--json", given->as_json, "One JSON object for each");
    command("inspect", "What a snapshot is of, as JSON", [given] { return inspect_snapshot(given->name); })
        ->add_option("NAME", given->name)
        ->required();
    command("rm", "Remove snapshots", [given] { return remove_snapshots(given->names); })
        ->add_option("NAME", given->names)
        ->required();
  };
  commands.add("snapshot", "Save a machine that runs: snug snapshot MACHINE [NAME]", describe, nullptr);

  commands.add(
      "restore", "Begin a machine where another stood: snug restore SNAPSHOT",
      [given](CLI::App& back) {
        back.add_option("SNAPSHOT", given->name, "Its name, or its folder's path")->required();
        back.add_option("--name", given->machine,
                        "What the machine is called (default: as the one that was saved)")
            ->type_name("NAME");
        back.add_flag("-d,--detach", given->run.detach,
                      "In the background; prints the name once the guest runs");
        back.add_flag("--wait", given->run.wait, "With --detach: until the agent in the guest answers");
        back.add_flag("--rm", given->run.remove,
                      "With --detach: keep nothing of the machine when it has ended");
        back.add_flag("--stats", given->run.stats, "Print exits and CPU time at the end, on stderr");
      },
      [given] { return restore(*given); });
}

}  // namespace snug::cli
