#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <span>
#include <sstream>

#include "vmm/base/log.h"
#include "vmm/cli/command_tree.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/image_commands.h"
#include "vmm/cli/life_commands.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_commands.h"
#include "vmm/cli/usage.h"
#include "vmm/run/runner.h"
#include "vmm/spec/given_flags.h"

namespace {

using namespace snug;

constexpr const char* kAbout =
    "snug runs a whole machine with its own operating system, as light as a container.\n"
    "\n"
    "  snug run                          boot the default guest image; Ctrl-A x quits\n"
    "  snug run vm.yaml                  boot what a spec describes\n"
    "  snug run -k bzImage --initrd initrd.img -m 512M\n"
    "  snug run -- uname -a              run a command in the default guest, take its exit status\n"
    "  snug run -d vm.yaml               in the background: then ps, logs, attach, stop\n"
    "  snug exec NAME -- ps              in a guest that runs; snug shell NAME, snug cp FILE NAME:/tmp\n"
    "  snug doctor                       can guests run here? what is missing?\n";

constexpr const char* kRunFooter =
    "Console: on a terminal, Ctrl-A x quits, Ctrl-A h helps, Ctrl-A Ctrl-A sends a Ctrl-A.\n"
    "Ends: SIGTERM and SIGINT press the power button; a second one stops the guest at once.\n"
    "\n"
    "Exit status: 0 power-off (or the guest's own status), 123 panic or triple fault,\n"
    "124 timeout, 125 snug could not do its work, 128+N stopped by signal N.\n";

constexpr const char* kWaitHelp =
    "How long to wait for the agent in the guest; 0: not at all, none: for ever. "
    "Default: as long as the guest boots";

// CLI11 does not know of the words behind "--", which never reach it.
class RunHelp : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = CLI::Formatter::make_usage(app, std::move(name));
    usage.insert(usage.find_last_not_of('\n') + 1, " [-- COMMAND...]");
    return usage;
  }
};

// Descriptors 0 to 2 must exist: otherwise the first files opened become somebody's stdout. What is written
// to a stdout that was closed is still an error.
void fill_standard_descriptors() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(standard, F_GETFD) < 0 && errno == EBADF)
      (void)::open("/dev/null", standard == STDOUT_FILENO ? O_RDONLY : O_RDWR);
}

// Whoever started us may have it ignored, as some supervisors do: then the kernel tells nobody how a child
// of ours has ended.
void hear_of_children() { ::signal(SIGCHLD, SIG_DFL); }

// Of the threads to come. Little enough that a host that likes huge pages cannot make one of a stack.
void limit_stacks() {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return;
  ::pthread_attr_setstacksize(&attributes, size_t{1} << 20);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

// The flags of a command cost time, so they are made for the one that is given, or for who describes them
// all.
class LazyFlags {
 public:
  void when_given(CLI::App* command, std::function<void()> add_flags) {
    command->preparse_callback([add_flags](size_t) { add_flags(); });
    all_.push_back(std::move(add_flags));
  }
  void add_all() const {
    for (const auto& add_flags : all_) add_flags();
  }

 private:
  std::vector<std::function<void()>> all_;
};

struct Arguments {
  cli::RunArguments run;
  cli::ExecArguments exec;
  cli::CopyArguments copy;
  cli::ValidateArguments validate;
  std::string shell = "bash";
  std::string page = "snug";
};

// Of `run`, besides those of the spec.
constexpr std::array<std::string_view, 12> kRunFlags{"-i",      "--interactive", "-t",     "--tty", "--junit",
                                                     "-d",      "--detach",      "--wait", "--rm",  "-q",
                                                     "--quiet", "--stats"};

// What is to be done, with `given` then. The parser goes before it is done: a machine that runs for days has
// no use for its memory.
std::function<int()> parse(int argc, char** argv, Arguments& given) {
  const auto ends_with = [](int status) { return [status] { return status; }; };
  // What stands behind "--" belongs to the guest, untouched by our own flags.
  char** const separator =
      std::find_if(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  const int own_arguments = static_cast<int>(separator - argv);

  CLI::App app(kAbout);
  app.name("snug");
  app.require_subcommand(1);
  app.set_version_flag("--version", cli::version_text());

  cli::RunArguments& run_arguments = given.run;
  if (separator != argv + argc) run_arguments.command.assign(separator + 1, argv + argc);
  std::string run_spec;
  LazyFlags flags;
  auto* run = app.add_subcommand("run", "Boot a guest and stay with it until it ends");
  flags.when_given(run, [&] {
    run->add_option("SPEC", run_spec, "YAML file that describes the guest; flags win over it");
    const std::span words(argv, static_cast<size_t>(own_arguments));
    if (!run->parsed() || !add_given_spec_flags(*run, run_arguments.flags, words.subspan(1), kRunFlags))
      add_spec_flags(*run, run_arguments.flags);
    run->add_flag("-i,--interactive", run_arguments.interactive, "Give our stdin to the command behind --")
        ->group("Command");
    run->add_flag("-t,--tty", run_arguments.tty,
                  "Run the command on a terminal; Ctrl-] three times leaves it")
        ->group("Command");
    run->add_option("--junit", run_arguments.junit,
                    "Write the results of the commands to a file, as JUnit XML")
        ->type_name("PATH")
        ->group("Command");
    run->add_flag("-d,--detach", run_arguments.detach,
                  "In the background; prints the name once the guest runs");
    run->add_flag("--wait", run_arguments.wait, "With --detach: until the agent in the guest answers");
    run->add_flag("--rm", run_arguments.remove,
                  "With --detach: keep nothing of the machine when it has ended");
    run->add_flag("-q,--quiet", run_arguments.quiet, "Without showing how far an image is that is brought");
    run->add_flag("--stats", run_arguments.stats, "Print exits and CPU time at the end, on stderr");
  });
  run->formatter(std::make_shared<RunHelp>());
  run->footer(kRunFooter);

  cli::ExecArguments& exec_arguments = given.exec;
  if (separator != argv + argc) exec_arguments.command = run_arguments.command;
  auto* exec = app.add_subcommand("exec", "Run a command in a guest that runs: snug exec NAME -- COMMAND");
  auto* shell = app.add_subcommand("shell", "A shell in a guest that runs, on this terminal");
  for (auto* command : {exec, shell}) {
    flags.when_given(command, [&exec_arguments, command, exec] {
      command->add_option("NAME", exec_arguments.machine, "The machine")->required();
      command->add_option("-e,--env", exec_arguments.variables, "A variable of its environment")
          ->type_name("NAME=VALUE")
          ->allow_extra_args(false);
      command->add_option("-w,--workdir", exec_arguments.folder, "The folder in which it runs")
          ->type_name("DIR");
      command->add_option("-u,--user", exec_arguments.user, "The guest's user: NAME[:GROUP] or UID[:GID]")
          ->type_name("USER");
      command->add_option("--wait", exec_arguments.wait, kWaitHelp)->type_name("TIME");
      if (command != exec) return;
      command->add_flag("-i,--interactive", exec_arguments.interactive, "Give it our stdin");
      command->add_flag("-t,--tty", exec_arguments.tty, "On a terminal; Ctrl-] three times leaves it");
    });
  }
  exec->formatter(std::make_shared<RunHelp>());

  cli::CopyArguments& copy_arguments = given.copy;
  auto* copy = app.add_subcommand("cp", "Copy a file or a folder to or from a guest that runs");
  copy->add_flag("-a,--archive", copy_arguments.owners, "Keep owners too, by number; here that takes root");
  copy->add_option("FROM", copy_arguments.from, "PATH here, or NAME:PATH in the guest")->required();
  copy->add_option("TO", copy_arguments.to, "NAME:PATH in the guest, or PATH here")->required();
  copy->add_option("--wait", copy_arguments.wait, kWaitHelp)->type_name("TIME");

  cli::ValidateArguments& validate_arguments = given.validate;
  auto* validate = app.add_subcommand("validate", "Check a spec and report every problem in it");
  validate->add_option("SPEC", validate_arguments.spec_path, "YAML file to check")->required();
  validate->add_flag("--print", validate_arguments.print, "Print the spec with every default filled in");

  auto* schema = app.add_subcommand("schema", "Print the JSON Schema of specs, for editors");
  auto* doctor = app.add_subcommand("doctor", "Say whether guests can run here, and what to do if not");
  auto* version = app.add_subcommand("version", "Print the version");
  auto* completion =
      app.add_subcommand("completion", "Print a completion script: source <(snug completion bash)");
  completion->add_option("SHELL", given.shell, "bash (unless another is named), zsh or fish")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  auto* manual = app.add_subcommand("manual", "Print a manual page: snug manual snug.yaml | man -l -");
  manual->add_option("PAGE", given.page, "snug (unless another is named) or snug.yaml")
      ->check(CLI::IsMember({"snug", "snug.yaml"}));
  // For the completion scripts, with the words of the command line behind "--".
  auto* complete = app.add_subcommand("complete", "Print what may stand there")->group("");

  std::function<int()> on_machines;
  cli::add_life_commands(app, on_machines);
  cli::add_image_commands(app, on_machines);
  cli::add_snapshot_commands(app, on_machines);

  try {
    app.parse(own_arguments, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      std::ostringstream help;
      app.exit(error, help, help);
      cli::put_text(stdout, help.str());
      return ends_with(0);
    }
    return ends_with(cli::explain_usage(app, std::span(argv, static_cast<size_t>(own_arguments)), error));
  }
  if (!run_spec.empty()) run_arguments.spec_path = run_spec;
  if (separator != argv + argc && run_arguments.command.empty() && run->parsed()) {
    cli::put(stderr, "snug: nothing behind --: give the command to run in the guest\n");
    return ends_with(kStatusFailure);
  }
  if (on_machines) return on_machines;
  if (run->parsed()) return [&given] { return cli::run(given.run); };
  if (exec->parsed() && exec_arguments.command.empty()) {
    cli::put(stderr, "snug: what is to be run? snug exec NAME -- COMMAND\n");
    return ends_with(kStatusFailure);
  }
  if (exec->parsed()) return [&given] { return cli::exec(given.exec); };
  if (shell->parsed()) return [&given] { return cli::shell(given.exec); };
  if (copy->parsed()) return [&given] { return cli::copy(given.copy); };
  if (validate->parsed()) return [&given] { return cli::validate(given.validate); };
  if (schema->parsed()) return cli::schema;
  if (doctor->parsed()) return cli::doctor;
  if (version->parsed()) return cli::version;
  if (completion->parsed()) return [&given] { return cli::completion(given.shell); };
  if (manual->parsed() || complete->parsed()) {
    flags.add_all();
    const auto commands = cli::command_tree(app);
    if (manual->parsed()) return [&given, commands] { return cli::manual(given.page, commands); };
    return [&given, commands] { return cli::complete_words(given.run.command, commands); };
  }
  return ends_with(kStatusFailure);
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  hear_of_children();
  limit_stacks();
  (void)log_open(LogLevel::kWarn);
  Arguments given;
  const std::function<int()> chosen = parse(argc, argv, given);
  const int status = chosen();
  // A result that could not be written is a failure: the reader must not take half of it for the whole.
  if (cli::put_failure() != 0 && status == 0) {
    cli::put(stderr, "snug: cannot write to stdout: {}\n", errno_text(cli::put_failure()));
    return kStatusFailure;
  }
  return status;
}
