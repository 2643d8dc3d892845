#include "vmm/cli/snapshot_moves.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "vmm/cli/life_commands.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_disks.h"
#include "vmm/cli/snapshot_making.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/cli/snapshot_stream.h"
#include "vmm/control/vm_directory.h"
#include "vmm/oci/held_signals.h"
#include "vmm/run/run_report.h"

namespace snug::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kClonesMax = 1000;

struct Options {
  std::string machine;
  std::string name;
  int count = 1;
  RunArguments run;
};

Result<FoundVm> find_alive(const std::string& name) {
  FoundVm vm = SNUG_TRY(find_machine(name));
  if (!vm.alive) return fail("{} has ended", vm.name);
  return vm;
}

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

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

// --- send -------------------------------------------------------------------------------------------

// A program that reads what is sent, and says by its status whether the machine runs there.
class Taker {
 public:
  static Result<Taker> start(const std::vector<std::string>& words, const sigset_t& mask);
  Taker(Taker&&) = default;
  int input() const { return input_.get(); }
  // It gets no more. What it has printed, up to a limit. Errors: its status.
  Result<std::string> finish();

 private:
  Taker() = default;
  std::string program_;
  pid_t pid_ = -1;
  UniqueFd input_;
  UniqueFd output_;
};

[[noreturn]] void become(const std::vector<std::string>& words, const sigset_t& mask, int in, int out) {
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::signal(SIGPIPE, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  put(stderr, "snug: {}: {}\n", words.front(), errno_text(errno));
  ::_exit(errno == ENOENT ? 127 : 126);
}

Result<Taker> Taker::start(const std::vector<std::string>& words, const sigset_t& mask) {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  if (::pipe2(in.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd read_end(in[0]);
  Taker taker;
  taker.program_ = words.front();
  taker.input_ = UniqueFd(in[1]);
  if (::pipe2(out.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  taker.output_ = UniqueFd(out[0]);
  const UniqueFd write_end(out[1]);
  std::fflush(nullptr);
  taker.pid_ = ::fork();
  if (taker.pid_ < 0) return fail_errno(errno, "fork");
  if (taker.pid_ == 0) become(words, mask, read_end.get(), write_end.get());
  return taker;
}

Result<std::string> Taker::finish() {
  constexpr size_t kMost = 4096;
  input_.reset();
  std::string said;
  for (std::array<char, 512> buffer{};;) {
    const ssize_t count = ::read(output_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    if (said.size() < kMost) said.append(buffer.data(), static_cast<size_t>(count));
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return said.substr(0, said.find('\n'));
  return fail("{} has ended with {}", program_,
              WIFEXITED(status) ? fmt::format("status {}", WEXITSTATUS(status))
                                : fmt::format("signal {}", WTERMSIG(status)));
}

// What is on a disk that lasts would be there once more, and what the guest writes there gone with it.
Result<void> check_goes(const Spec& spec) {
  for (const DiskSpec& disk : spec.disks)
    return fail_with_hint(fmt::format("disk {}: disks do not go with a machine that is sent", disk.path),
                          "stop it, copy the disk, and start it there");
  return {};
}

// The name that it has there.
Result<std::string> send_to(const StoredSnapshot& saved, const std::vector<std::string>& words,
                            const sigset_t& mask) {
  auto taker = SNUG_TRY(Taker::start(words, mask));
  auto sent = send_snapshot(saved, taker.input());
  auto name = taker.finish();
  // What became of the one that read is the better reason for a pipe that has broken.
  if (name && !sent) return tl::unexpected(std::move(sent.error()));
  return name;
}

Result<std::string> send_paused(const FoundVm& vm, const std::vector<std::string>& words,
                                const sigset_t& mask) {
  auto made = SNUG_TRY(NewSnapshot::passing());
  SNUG_TRY(save_machine(vm, made));
  auto saved = SNUG_TRY(made.as_stored());
  saved.name = vm.name;
  if (!words.empty()) return send_to(saved, words, mask);
  SNUG_TRY(send_snapshot(saved, STDOUT_FILENO));
  return std::string();
}

Result<void> send_machine(const std::string& machine, const std::vector<std::string>& words) {
  const FoundVm vm = SNUG_TRY(find_alive(machine));
  if (words.empty() && ::isatty(STDOUT_FILENO) != 0)
    return fail_with_hint("where to?", "snug send " + vm.name + " -- ssh HOST snug receive");
  oci::HeldSignals signals;
  ::signal(SIGPIPE, SIG_IGN);
  const json before = SNUG_TRY(ask_json(vm, "GET", "/v1/vm"));
  const auto since = Clock::now();
  const Spec spec = SNUG_TRY(spec_of(before));
  SNUG_TRY(check_goes(spec));
  const bool running = before.value("state", "") == "running";
  if (running) SNUG_TRY(ask_json(vm, "POST", "/v1/pause"));
  auto sent = send_paused(vm, words, signals.mask_before());
  if (!sent) {
    // Nothing has become of it: it goes on here.
    if (running) (void)ask_json(vm, "POST", "/v1/resume");
    return tl::unexpected(
        std::move(sent.error()).with_context(vm.name + (running ? " goes on here" : " stays here")));
  }
  if (words.empty()) {
    put(stderr,
        "snug: {0} is paused. Once it runs there: snug kill {0}; to go on here after all: snug resume {0}\n",
        vm.name);
    return {};
  }
  put(stderr, "snug: {} stood still for {:.0f} ms, and runs there\n", vm.name, milliseconds_since(since));
  put("{}\n", *sent);
  return kill_machine(vm);
}

// --- receive ----------------------------------------------------------------------------------------

Result<std::pair<NewSnapshot, StoredSnapshot>> take_in() {
  if (::isatty(STDIN_FILENO) != 0)
    return fail_with_hint("a machine comes through stdin",
                          "snug send NAME -- ssh HOST snug receive, on the host where it runs");
  oci::HeldSignals signals;
  auto made = SNUG_TRY(NewSnapshot::passing());
  SNUG_TRY(with_context(receive_snapshot_into(made, STDIN_FILENO, signals.fd()), "stdin"));
  if (signals.came()) return fail("interrupted; no machine was begun");
  auto stored = SNUG_TRY(made.as_stored());
  return std::pair(std::move(made), std::move(stored));
}

int receive(const Options& given) {
  const auto taken = take_in();
  return taken ? begin_there(taken->second, given.name, given.run) : fail_command(taken.error());
}

int status_of(const Result<void>& done) { return done ? 0 : fail_command(done.error()); }

}  // namespace

void add_moving_commands(CommandSet& commands, const std::vector<std::string>& behind) {
  const auto given = std::make_shared<Options>();
  given->run.detach = true;
  const auto machine = [given](CLI::App& command) {
    command.add_option("MACHINE", given->machine, "The machine")->required();
  };
  const auto beginning = [given](CLI::App& command) {
    add_beginning_flags(command, given->run);
    command.add_flag("--wait", given->run.wait, "Until the agent in each guest answers");
    command.add_flag("--rm", given->run.remove, "Keep nothing of a machine when it has ended");
  };
  commands.add(
      "fork", "Begin others where a machine stands, which goes on: snug fork MACHINE -n 10",
      [given, machine, beginning](CLI::App& command) {
        machine(command);
        command.add_option("-n,--count", given->count, "How many (default: one)")
            ->check(CLI::Range(1, kClonesMax));
        command
            .add_option(
                "--name", given->name,
                "What it is called; of several, with a number (default: as the first one, with a number)")
            ->type_name("NAME");
        beginning(command);
        command.footer(
            "They run in the background; prints their names. Each has its own random numbers, clock, host\n"
            "name and disks; what it writes to them is gone when it ends. They have the memory of the\n"
            "first in common, but for what each of them writes.\n");
      },
      [given] { return fork_machine(*given); });
  commands.add(
      "send", "Move a machine to where a command takes it: snug send MACHINE -- ssh HOST snug receive",
      [machine](CLI::App& command) {
        machine(command);
        takes_command(command);
        command.footer(
            "It stands still, and goes on here where the command fails; where it does not, it has ended\n"
            "here and runs there. Without a command it is written to stdout, and stays paused.\n");
      },
      [given, &behind] { return status_of(send_machine(given->machine, behind)); });
  commands.add(
      "receive", "Begin the machine that snug send writes to our stdin; prints its name",
      [given, beginning](CLI::App& command) {
        command.add_option("--name", given->name, "What it is called here (default: as there)")
            ->type_name("NAME");
        beginning(command);
        command.footer("It runs in the background. Whoever sends it chose what its guest gets.\n");
      },
      [given] { return receive(*given); });
}

}  // namespace snug::cli
