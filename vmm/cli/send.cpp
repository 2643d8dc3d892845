#include "vmm/cli/send.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "vmm/cli/commands.h"
#include "vmm/cli/host_facts.h"
#include "vmm/cli/life_commands.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/send_rounds.h"
#include "vmm/cli/sent_machine.h"
#include "vmm/cli/snapshot_disks.h"
#include "vmm/cli/snapshot_making.h"
#include "vmm/cli/stream_taker.h"
#include "vmm/cli/stream_writer.h"
#include "vmm/control/vm_directory.h"
#include "vmm/oci/held_signals.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/units.h"

namespace snug::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string machine;
  std::string downtime;  // "": as Downtime has it
};

// What goes beside memory and state.
struct Papers {
  std::string facts;
  std::string spec;  // YAML
  json about;        // but for what it is started for
};

Result<Papers> papers_of(const FoundVm& vm, const json& now) {
  Spec spec = SNUG_TRY(spec_of(now));
  const json disks = SNUG_TRY(disks_elsewhere(spec));
  // It is kept on one of its disks.
  spec.storage.reset();
  return Papers{SNUG_TRY(host_facts(disks)), effective_spec_yaml(spec),
                json{{"machine", vm.name}, {"snug", version_text()}, {"disks", disks}}};
}

Result<Downtime> downtime_of(const std::string& text) {
  if (text.empty()) return Downtime{};
  return Downtime{.limit = SNUG_TRY(with_context(parse_duration(text), "--downtime")), .must = true};
}

class Sending {
 public:
  Sending(FoundVm vm, SentMachine& machine, Papers papers, const Downtime& downtime)
      : vm_(std::move(vm)), machine_(machine), papers_(std::move(papers)), downtime_(downtime) {}

  // Through a program. The name that the machine has there.
  Result<std::string> through(const std::vector<std::string>& words, bool running);
  // To stdout.
  Result<void> to_stdout(bool running);
  // How long it has stood still so far.
  double stands_ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - stands_since_).count();
  }

 private:
  Result<void> all_but_the_end(StreamWriter& stream, bool running);

  FoundVm vm_;
  SentMachine& machine_;
  Papers papers_;
  Downtime downtime_;
  Clock::time_point stands_since_;
  // From where whoever reads it may go on with the machine, nothing ends us until it is known who has it.
  std::optional<oci::HeldSignals> signals_;
};

Result<void> Sending::all_but_the_end(StreamWriter& stream, bool running) {
  SNUG_TRY(stream.begin(kStreamOfMachine, vm_.name));
  SNUG_TRY(stream.facts(papers_.facts));
  SNUG_TRY(stream.text("spec.yaml", papers_.spec));
  SendRounds rounds(machine_, stream, vm_.name, downtime_);
  if (running) SNUG_TRY(rounds.run());
  stands_since_ = Clock::now();
  const std::string commands = SNUG_TRY(rounds.finish());
  if (!commands.empty()) papers_.about["commands"] = json::parse(commands, nullptr, false);
  SNUG_TRY(
      stream.text("snapshot.json", papers_.about.dump(2, ' ', false, json::error_handler_t::replace) + "\n"));
  signals_.emplace();
  return {};
}

Result<std::string> Sending::through(const std::vector<std::string>& words, bool running) {
  auto taker = SNUG_TRY(StreamTaker::start(words));
  StreamWriter stream(taker.input());
  auto sent = all_but_the_end(stream, running);
  if (sent) sent = stream.end();
  // Whoever has no end of it does not go on with it, however long he takes to end.
  if (!sent) machine_.give_up();
  auto name = taker.finish();
  // What became of the one that read is the better reason where it has gone.
  if (!sent && (name || !stream.nobody_reads())) return tl::unexpected(std::move(sent.error()));
  if (!name) return name;
  SNUG_TRY(with_context(machine_.stay(), "it runs there, and here as well"));
  return name;
}

Result<void> Sending::to_stdout(bool running) {
  StreamWriter stream(STDOUT_FILENO);
  SNUG_TRY(all_but_the_end(stream, running));
  SNUG_TRY(stream.end());
  return machine_.stay();
}

Result<void> send_machine(const Options& given, const std::vector<std::string>& words) {
  const Downtime downtime = SNUG_TRY(downtime_of(given.downtime));
  const FoundVm vm = SNUG_TRY(find_alive(given.machine));
  if (words.empty() && ::isatty(STDOUT_FILENO) != 0)
    return fail_with_hint("where to?", "snug send " + vm.name + " -- ssh HOST snug receive");
  ::signal(SIGPIPE, SIG_IGN);
  const json now = SNUG_TRY(ask_json(vm, "GET", "/v1/vm"));
  Papers papers = SNUG_TRY(papers_of(vm, now));
  const bool running = now.value("state", "") == "running";
  auto machine = SNUG_TRY(SentMachine::begin(vm));
  Sending sending(vm, machine, std::move(papers), downtime);
  Result<std::string> name;
  if (!words.empty()) {
    name = sending.through(words, running);
  } else if (auto sent = sending.to_stdout(running); !sent) {
    name = tl::unexpected(std::move(sent.error()));
  }
  if (!name) {
    // Nothing has become of it: it goes on here.
    machine.give_up();
    return tl::unexpected(
        std::move(name.error()).with_context(vm.name + (running ? " goes on here" : " stays here")));
  }
  if (words.empty()) {
    put(stderr,
        "snug: {0} is paused. Once it runs there: snug kill {0}; to go on here after all: snug resume {0}\n",
        vm.name);
    return {};
  }
  put(stderr, "snug: {} stood still for {:.0f} ms, and runs there\n", vm.name, sending.stands_ms());
  put("{}\n", *name);
  return kill_machine(vm);
}

}  // namespace

void add_send_command(CommandSet& commands, const std::vector<std::string>& behind) {
  const auto given = std::make_shared<Options>();
  commands.add(
      "send", "Move a machine to where a command takes it: snug send MACHINE -- ssh HOST snug receive",
      [given](Command command) {
        command.argument("MACHINE", given->machine, "The machine").required();
        command
            .option("--downtime", given->downtime,
                    "How long it may stand still while the last of its memory goes; it is not sent where "
                    "that cannot be kept (default: 300ms, and longer where that cannot be kept)")
            .placeholder("TIME");
        command.takes_command();
        command.footer(
            "Its memory goes while it runs, and what changes meanwhile goes again; it stands still for the\n"
            "last of it. It goes on here where the command fails; where it does not, it has ended here and\n"
            "runs there. Without a command it is written to stdout, and stays paused.\n");
      },
      [given, &behind] {
        const auto sent = send_machine(*given, behind);
        return sent ? 0 : fail_command(sent.error());
      });
}

}  // namespace snug::cli
