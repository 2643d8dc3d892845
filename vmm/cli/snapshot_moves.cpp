#include "vmm/cli/snapshot_moves.h"

#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "vmm/cli/host_facts.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/send.h"
#include "vmm/cli/snapshot_making.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/cli/snapshot_stream.h"
#include "vmm/control/vm_directory.h"
#include "vmm/oci/held_signals.h"

namespace snug::cli {
namespace {

using nlohmann::json;

constexpr int kClonesMax = 1000;

struct Options {
  std::string machine;
  std::string name;
  int count = 1;
  RunArguments run;
};

// --- fork -------------------------------------------------------------------------------------------

struct Forked {
  NewSnapshot files;
  StoredSnapshot snapshot;
};

Result<Forked> save_for_clones(const std::string& machine) {
  const FoundVm vm = SNUG_TRY(find_alive(machine));
  // Whoever wants us to end waits until the machine goes on.
  oci::HeldSignals signals;
  auto made = SNUG_TRY(NewSnapshot::passing());
  const json taken = SNUG_TRY(save_machine(vm, made));
  auto stored = SNUG_TRY(made.as_stored());
  put(stderr, "snug: {} stood still for {:.1f} ms\n", vm.name, number_in(taken, "paused_seconds") * 1000);
  return Forked{std::move(made), std::move(stored)};
}

int fork_machine(const Options& given) {
  // The files go when this ends: the clones have them open.
  const auto forked = save_for_clones(given.machine);
  if (!forked) return fail_command(forked.error());
  for (int number = 1; number <= given.count; ++number) {
    std::string name = given.name;
    if (!name.empty() && given.count > 1) name += "-" + std::to_string(number);
    if (const int status = begin_there(forked->snapshot, name, given.run); status != 0) {
      if (given.count > 1) put(stderr, "snug: {} of {} were begun\n", number - 1, given.count);
      return status;
    }
  }
  return 0;
}

// --- receive ----------------------------------------------------------------------------------------

Result<std::pair<NewSnapshot, StoredSnapshot>> take_in() {
  if (::isatty(STDIN_FILENO) != 0)
    return fail_with_hint("a machine comes through stdin",
                          "snug send NAME -- ssh HOST snug receive, on the host where it runs");
  oci::HeldSignals signals;
  auto made = SNUG_TRY(NewSnapshot::passing());
  SNUG_TRY(with_context(receive_snapshot_into(made, STDIN_FILENO, signals.fd(), check_host_facts), "stdin"));
  if (signals.came()) return fail("interrupted; no machine was begun");
  auto stored = SNUG_TRY(made.as_stored());
  return std::pair(std::move(made), std::move(stored));
}

int receive(const Options& given) {
  const auto taken = take_in();
  return taken ? begin_there(taken->second, given.name, given.run) : fail_command(taken.error());
}

}  // namespace

void add_moving_commands(CommandSet& commands, const std::vector<std::string>& behind) {
  const auto given = std::make_shared<Options>();
  given->run.detach = true;
  const auto machine = [given](Command command) {
    command.argument("MACHINE", given->machine, "The machine").required();
  };
  const auto beginning = [given](Command command) {
    add_beginning_flags(command, given->run);
    command.flag("--wait", given->run.wait, "Until the agent in each guest answers");
    command.flag("--rm", given->run.remove, "Keep nothing of a machine when it has ended");
  };
  commands.add(
      "fork", "Begin others where a machine stands, which goes on: snug fork MACHINE -n 10",
      [given, machine, beginning](Command command) {
        machine(command);
        command.option("-n,--count", given->count, "How many (default: one)").within(1, kClonesMax);
        command
            .option("--name", given->name,
                    "What it is called; of several, with a number (default: as the first one, with a number)")
            .placeholder("NAME");
        beginning(command);
        command.footer(
            "They run in the background; prints their names. Each has its own random numbers, clock, host\n"
            "name and disks; what it writes to them is gone when it ends. They have the memory of the\n"
            "first in common, but for what each of them writes.\n");
      },
      [given] { return fork_machine(*given); });
  add_send_command(commands, behind);
  commands.add(
      "receive", "Begin the machine that snug send writes to our stdin; prints its name",
      [given, beginning](Command command) {
        command.option("--name", given->name, "What it is called here (default: as there)")
            .placeholder("NAME");
        beginning(command);
        command.footer("It runs in the background. Whoever sends it chose what its guest gets.\n");
      },
      [given] { return receive(*given); });
}

}  // namespace snug::cli
