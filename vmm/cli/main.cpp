#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <span>

#include "vmm/base/log.h"
#include "vmm/cli/command.h"
#include "vmm/cli/command_set.h"
#include "vmm/cli/command_tree.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/guest_commands.h"
#include "vmm/cli/image_commands.h"
#include "vmm/cli/life_commands.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_commands.h"
#include "vmm/cli/snapshot_moves.h"
#include "vmm/cli/spec_flags.h"
#include "vmm/cli/update.h"
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

struct Arguments {
  std::span<char* const> own;       // the words in front of "--"
  std::vector<std::string> behind;  // the words behind "--"
  bool has_separator = false;
  std::string run_spec;
  cli::RunArguments run;
  cli::ValidateArguments validate;
  std::string shell = "bash";
  std::string page = "snug";
};

// Of `run`, besides those of the spec.
constexpr std::array<std::string_view, 12> kRunFlags{"-i",      "--interactive", "-t",     "--tty", "--junit",
                                                     "-d",      "--detach",      "--wait", "--rm",  "-q",
                                                     "--quiet", "--stats"};

void describe_run(cli::Command run, Arguments& given) {
  cli::RunArguments& arguments = given.run;
  run.argument("SPEC", given.run_spec, "YAML file that describes the guest; flags win over it");
  const bool asked = given.own.size() > 1 && std::string_view(given.own[1]) == "run";
  auto flags = asked ? given_spec_flags(given.own.subspan(1), kRunFlags) : std::nullopt;
  if (!flags) flags = spec_flags();
  cli::add_flags(run, *flags, arguments.flags);
  run.flag("-i,--interactive", arguments.interactive, "Give our stdin to the command behind --")
      .group("Command");
  run.flag("-t,--tty", arguments.tty, "Run the command on a terminal; Ctrl-] three times leaves it")
      .group("Command");
  run.option("--junit", arguments.junit, "Write the results of the commands to a file, as JUnit XML")
      .placeholder("PATH")
      .group("Command");
  run.flag("-d,--detach", arguments.detach, "In the background; prints the name once the guest runs");
  run.flag("--wait", arguments.wait, "With --detach: until the agent in the guest answers");
  run.flag("--rm", arguments.remove, "With --detach: keep nothing of the machine when it has ended");
  run.flag("-q,--quiet", arguments.quiet, "Without showing how far an image is that is brought");
  run.flag("--stats", arguments.stats, "Print exits and CPU time at the end, on stderr");
  run.takes_command();
  run.footer(kRunFooter);
}

int run(Arguments& given) {
  if (!given.run_spec.empty()) given.run.spec_path = given.run_spec;
  if (given.has_separator && given.behind.empty()) {
    cli::put(stderr, "snug: nothing behind --: give the command to run in the guest\n");
    return kStatusFailure;
  }
  given.run.command = given.behind;
  return cli::run(given.run);
}

void add_plain_commands(cli::CommandSet& commands, Arguments& given) {
  commands.add(
      "validate", "Check a spec and report every problem in it",
      [&given](cli::Command validate) {
        validate.argument("SPEC", given.validate.spec_path, "YAML file to check").required();
        validate.flag("--print", given.validate.print, "Print the spec with every default filled in");
      },
      [&given] { return cli::validate(given.validate); });
  commands.add("schema", "Print the JSON Schema of specs, for editors", nullptr, cli::schema);
  commands.add("doctor", "Say whether guests can run here, and what to do if not", nullptr, cli::doctor);
  commands.add("version", "Print the version", nullptr, cli::version);
  commands.add(
      "completion", "Print a completion script: source <(snug completion bash)",
      [&given](cli::Command completion) {
        completion.argument("SHELL", given.shell, "bash (unless another is named), zsh or fish")
            .one_of({"bash", "zsh", "fish"});
      },
      [&given] { return cli::completion(given.shell); });
}

// Those that describe the program: what they print is made of the description of every command.
void add_describing_commands(cli::Command program, Arguments& given, cli::CommandSet::Action& chosen) {
  const cli::Command manual =
      program.subcommand("manual", "Print a manual page: snug manual snug.yaml | man -l -");
  manual.argument("PAGE", given.page, "snug (unless another is named) or snug.yaml")
      .one_of({"snug", "snug.yaml"});
  manual.callback([program, &given, &chosen] {
    chosen = [&given, commands = cli::command_tree(program)] { return cli::manual(given.page, commands); };
  });
  // For the completion scripts, with the words of the command line behind "--".
  const cli::Command complete = program.subcommand("complete", "Print what may stand there");
  complete.hide();
  complete.callback([program, &given, &chosen] {
    chosen = [&given, commands = cli::command_tree(program)] {
      return cli::complete_words(given.behind, commands);
    };
  });
}

// What is to be done, with `given` then. The parser goes before it is done: a machine that runs for days has
// no use for its memory.
cli::CommandSet::Action parse(int argc, char** argv, Arguments& given) {
  const auto ends_with = [](int status) { return [status] { return status; }; };
  // What stands behind "--" belongs to the guest, untouched by our own flags.
  char** const separator =
      std::find_if(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  const int own_arguments = static_cast<int>(separator - argv);
  given.own = std::span(argv, static_cast<size_t>(own_arguments));
  given.has_separator = separator != argv + argc;
  if (given.has_separator) given.behind.assign(separator + 1, argv + argc);

  cli::CommandSet::Action chosen;
  cli::CommandSet commands;
  commands.add(
      "run", "Boot a guest and stay with it until it ends",
      [&given](cli::Command command) { describe_run(command, given); }, [&given] { return run(given); });
  cli::add_guest_commands(commands, given.behind);
  add_plain_commands(commands, given);
  cli::add_life_commands(commands);
  cli::add_image_commands(commands, chosen);
  cli::add_snapshot_commands(commands, chosen);
  cli::add_moving_commands(commands, given.behind);
  cli::add_update_commands(commands);

  cli::CommandLine line(kAbout);
  line.version(cli::version_text());
  const cli::Command program = line.program();
  program.needs_subcommand();
  if (!commands.describe(program, own_arguments > 1 ? argv[1] : "", chosen))
    add_describing_commands(program, given, chosen);
  const auto parsed = line.parse(given.own);
  using Kind = cli::CommandLine::Parsed::Kind;
  if (parsed.kind == Kind::kWrong) return ends_with(cli::explain_usage(program, given.own, parsed.text));
  if (parsed.kind == Kind::kHelp) {
    cli::put_text(stdout, parsed.text);
    return ends_with(0);
  }
  return chosen ? chosen : ends_with(kStatusFailure);
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  hear_of_children();
  limit_stacks();
  (void)log_open(LogLevel::kWarn);
  Arguments given;
  const cli::CommandSet::Action chosen = parse(argc, argv, given);
  const int status = chosen();
  // A result that could not be written is a failure: the reader must not take half of it for the whole.
  if (cli::put_failure() != 0 && status == 0) {
    cli::put(stderr, "snug: cannot write to stdout: {}\n", errno_text(cli::put_failure()));
    return kStatusFailure;
  }
  return status;
}
