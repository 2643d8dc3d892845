#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/put.h"
#include "vmm/machine/runner.h"

namespace {

using namespace snug;

constexpr const char* kAbout =
    "snug runs a whole machine with its own operating system, as light as a container.\n"
    "\n"
    "  snug run                          boot the default guest image; Ctrl-A x quits\n"
    "  snug run vm.yaml                  boot what a spec describes\n"
    "  snug run -k bzImage -i initrd.img -m 512M -c 2\n"
    "  snug run -- uname -a              run a command in the default guest, take its exit status\n"
    "  snug doctor                       can guests run here? what is missing?\n";

constexpr const char* kRunFooter =
    "Console: on a terminal, Ctrl-A x quits, Ctrl-A h helps, Ctrl-A Ctrl-A sends a Ctrl-A.\n"
    "Ends: SIGTERM and SIGINT press the power button; a second one stops the guest at once.\n"
    "\n"
    "Exit status: 0 power-off (or the guest's own status), 123 panic or triple fault,\n"
    "124 timeout, 125 snug could not do its work, 128+N stopped by signal N.\n";

// CLI11 does not know of the words behind "--", which never reach it.
class RunHelp : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = CLI::Formatter::make_usage(app, std::move(name));
    usage.insert(usage.find_last_not_of('\n') + 1, " [-- COMMAND...]");
    return usage;
  }
};

// Descriptors 0 to 2 must exist: otherwise the first files opened become somebody's stdout.
void fill_standard_descriptors() {
  for (;;) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd < 0) return;
    if (fd > 2) {
      ::close(fd);
      return;
    }
  }
}

int dispatch(int argc, char** argv) {
  // What stands behind "--" belongs to the guest, untouched by our own flags.
  char** const separator =
      std::find_if(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--"; });
  const int own_arguments = static_cast<int>(separator - argv);

  CLI::App app(kAbout);
  app.name("snug");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("snug ") + SNUG_VERSION);

  cli::RunArguments run_arguments;
  if (separator != argv + argc) run_arguments.command.assign(separator + 1, argv + argc);
  std::string run_spec;
  auto* run = app.add_subcommand("run", "Boot a guest and stay with it until it ends");
  run->add_option("SPEC", run_spec, "YAML file that describes the guest; flags win over it");
  add_spec_flags(*run, run_arguments.flags);
  run->add_flag("--stats", run_arguments.stats, "Print exits and CPU time at the end, on stderr");
  run->formatter(std::make_shared<RunHelp>());
  run->footer(kRunFooter);

  cli::ValidateArguments validate_arguments;
  auto* validate = app.add_subcommand("validate", "Check a spec and report every problem in it");
  validate->add_option("SPEC", validate_arguments.spec_path, "YAML file to check")->required();
  validate->add_flag("--print", validate_arguments.print, "Print the spec with every default filled in");

  auto* schema = app.add_subcommand("schema", "Print the JSON Schema of specs, for editors");
  auto* doctor = app.add_subcommand("doctor", "Say whether guests can run here, and what to do if not");
  auto* version = app.add_subcommand("version", "Print the version");
  auto* completion =
      app.add_subcommand("completion", "Print a bash completion script: source <(snug completion)");

  try {
    app.parse(own_arguments, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    cli::put(stderr, "snug: {}\n", error.what());
    const bool in_run = run->parsed();
    cli::put(stderr, "snug: try: snug {}--help\n", in_run ? "run " : "");
    return kStatusFailure;
  }
  if (!run_spec.empty()) run_arguments.spec_path = run_spec;
  if (separator != argv + argc && run_arguments.command.empty() && run->parsed()) {
    cli::put(stderr, "snug: nothing behind --: give the command to run in the guest\n");
    return kStatusFailure;
  }
  if (run->parsed()) return cli::run(run_arguments);
  if (validate->parsed()) return cli::validate(validate_arguments);
  if (schema->parsed()) return cli::schema();
  if (doctor->parsed()) return cli::doctor();
  if (version->parsed()) return cli::version();
  if (completion->parsed()) return cli::completion();
  return kStatusFailure;
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  (void)log_open(LogLevel::kWarn);
  const int status = dispatch(argc, argv);
  // A result that could not be written is a failure: the reader must not take half of it for the whole.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    cli::put(stderr, "snug: cannot write to stdout: {}\n", errno_text(errno));
    return kStatusFailure;
  }
  return status;
}
