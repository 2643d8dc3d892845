#include "vmm/cli/snapshot_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_disks.h"
#include "vmm/cli/snapshot_making.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/cli/snapshot_stream.h"
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
  std::string file;
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

void tell_what_it_cost(const std::string& machine, const StoredSnapshot& kept, const json& taken) {
  const double copied = number_in(taken, "disk_bytes");
  put(stderr, "snug: {} on disk, {} of state; {} stood still for {:.1f} ms\n",
      size_text(static_cast<double>(kept.disk_bytes)), size_text(number_in(taken, "state_bytes")), machine,
      number_in(taken, "paused_seconds") * 1000);
  if (copied > 0)
    put(stderr, "snug: {} of disks were copied: here files cannot share blocks (as on btrfs and XFS)\n",
        size_text(copied));
}

Result<void> make_snapshot(const std::string& machine, std::string name) {
  const FoundVm vm = SNUG_TRY(find_alive(machine));
  if (name.empty()) name = vm.name;
  // Whoever wants us to end waits until the machine goes on; nothing half-made is left then.
  oci::HeldSignals signals;
  auto made = SNUG_TRY(NewSnapshot::begin(name));
  const json taken = SNUG_TRY(save_machine(vm, made));
  if (signals.came()) return fail("interrupted; no snapshot was made");
  const auto kept = SNUG_TRY(made.keep());
  put("{}\n", kept.name);
  tell_what_it_cost(vm.name, kept, taken);
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
  json all = about(*snapshot);
  std::ifstream spec(snapshot->folder / "spec.yaml");
  all["spec"] = std::string(std::istreambuf_iterator<char>(spec), {});
  put("{}\n", all.dump(2, ' ', false, json::error_handler_t::replace));
  return 0;
}

int remove_snapshots(const std::vector<std::string>& names) {
  int status = 0;
  for (const std::string& name : names)
    if (const auto removed = remove_snapshot(name); !removed) status = fail_command(removed.error());
  return status;
}

// A file that is there already stays: it may be somebody's only one.
Result<UniqueFd> open_export(const std::string& path) {
  if (path == "-") {
    if (::isatty(STDOUT_FILENO) != 0)
      return fail_with_hint("a snapshot is nothing for a terminal", "> FILE, or name one");
    return duplicate(STDOUT_FILENO);
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) return open_file(path, O_WRONLY);
  // It is as secret as the guest's memory.
  return open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
}

Result<void> export_snapshot(const std::string& name, const std::string& path) {
  const auto snapshot = SNUG_TRY(find_snapshot(name));
  const UniqueFd out = SNUG_TRY(open_export(path));
  auto sent = send_snapshot(snapshot, out.get());
  struct stat status {};
  // Half of one is none.
  if (!sent && ::fstat(out.get(), &status) == 0 && S_ISREG(status.st_mode) && path != "-")
    ::unlink(path.c_str());
  return sent;
}

Result<void> import_snapshot(const std::string& path, const std::string& name) {
  const UniqueFd in = SNUG_TRY(path == "-" ? duplicate(STDIN_FILENO) : open_file(path, O_RDONLY));
  oci::HeldSignals signals;
  const auto kept = SNUG_TRY(with_context(
      receive_snapshot(in.get(), name.empty() ? std::nullopt : std::optional(name), signals.fd()),
      path == "-" ? "stdin" : path));
  put("{}\n", kept.name);
  return {};
}

int status_of(const Result<void>& done) { return done ? 0 : fail_command(done.error()); }

int restore(const Options& given) {
  const auto snapshot = find_snapshot(given.name);
  if (!snapshot) return fail_command(snapshot.error());
  if (has_own_disks(snapshot->folder))
    put(stderr,
        "snug: what the guest writes to its disks now is gone when it ends; snug snapshot keeps it\n");
  return begin_there(*snapshot, given.machine, given.run);
}

}  // namespace

void add_snapshot_commands(CommandSet& commands, CommandSet::Action& chosen) {
  const auto given = std::make_shared<Options>();
  const auto describe = [given, &chosen](Command snapshot) {
    snapshot.argument("MACHINE", given->machine, "The machine; it goes on afterwards");
    snapshot.argument("NAME", given->name,
                      "What the snapshot is called, or a folder's path (default: as the machine)");
    snapshot.footer(
        "The machine stands still for a moment. Its memory, and what it can write to of its disks, are\n"
        "of that moment. snug restore NAME begins a machine where it stood, as often as one likes; each\n"
        "has disks of its own, and what it writes to them is gone when it ends, unless it is saved.\n"
        "Whoever can read a snapshot reads all that was in the guest's memory.\n");
    snapshot.callback([&chosen, given, snapshot] {
      if (snapshot.parsed_subcommand()) return;
      chosen = [given] {
        if (given->machine.empty())
          return fail_command(Error{"which machine?", "snug snapshot MACHINE [NAME]"});
        return status_of(make_snapshot(given->machine, given->name));
      };
    });
    const auto command = [&](const char* name, const char* about, CommandSet::Action action) {
      return add_subcommand(snapshot, name, about, chosen, std::move(action));
    };
    command("list", "List the snapshots", [given] {
      return list_snapshots(given->as_json);
    }).flag("--json", given->as_json, "One JSON object for each");
    command("inspect", "What a snapshot is of, as JSON", [given] { return inspect_snapshot(given->name); })
        .argument("NAME", given->name)
        .required();
    command("rm", "Remove snapshots", [given] { return remove_snapshots(given->names); })
        .argument("NAME", given->names)
        .required();

    const Command out = command("export", "Write a snapshot into one file, or into a pipe: -",
                                [given] { return status_of(export_snapshot(given->name, given->file)); });
    out.argument("NAME", given->name).required();
    out.argument("FILE", given->file, "A new file; -: our stdout").required();
    const Command in =
        command("import", "Read one that export has written; whoever made it chose what its guest gets",
                [given] { return status_of(import_snapshot(given->file, given->name)); });
    in.argument("FILE", given->file, "-: our stdin").required();
    in.argument("NAME", given->name, "What it is called here (default: as there)");
  };
  commands.add("snapshot", "Save a machine that runs: snug snapshot MACHINE [NAME]", describe, nullptr);

  commands.add(
      "restore", "Begin a machine where another stood: snug restore SNAPSHOT",
      [given](Command back) {
        back.argument("SNAPSHOT", given->name, "Its name, or its folder's path").required();
        back.option("--name", given->machine,
                    "What the machine is called (default: as the one that was saved)")
            .placeholder("NAME");
        add_beginning_flags(back, given->run);
        back.flag("-d,--detach", given->run.detach, "In the background; prints the name once the guest runs");
        back.flag("--wait", given->run.wait, "With --detach: until the agent in the guest answers");
        back.flag("--rm", given->run.remove, "With --detach: keep nothing of the machine when it has ended");
        back.flag("--stats", given->run.stats, "Print exits and CPU time at the end, on stderr");
      },
      [given] { return restore(*given); });
}

}  // namespace snug::cli
