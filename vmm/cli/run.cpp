#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "vmm/base/log.h"
#include "vmm/cli/background.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/container_image.h"
#include "vmm/cli/guest_images.h"
#include "vmm/cli/host_image.h"
#include "vmm/cli/junit.h"
#include "vmm/cli/machine_socket.h"
#include "vmm/cli/put.h"
#include "vmm/cli/service_manager.h"
#include "vmm/cli/stats_report.h"
#include "vmm/control/vm_directory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/run/runner.h"
#include "vmm/run/saved_commands.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/load.h"
#include "vmm/spec/shares.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

int fail_run(const Error& error) {
  log_error("{}", error.text());
  return kStatusFailure;
}

// The words as a person would type them: each in single quotes when it needs them.
std::string shell_words(const std::vector<std::string>& words) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:+@%=";
  std::string line;
  for (const auto& word : words) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

// What the machine is started for; no commands: for itself.
Result<CommandPlan> plan_commands(const Spec& spec, const RunArguments& arguments,
                                  const oci::ImageConfig* image) {
  // What was started goes on, and is not started once more.
  if (!arguments.commands.empty()) return parse_saved_commands(arguments.commands);
  CommandPlan plan;
  if (!arguments.snapshot.empty()) return plan;
  if (!arguments.command.empty() && image == nullptr) {
    plan.commands.push_back({arguments.command, shell_words(arguments.command)});
  } else {
    for (const auto& line : spec.command) plan.commands.push_back({{"sh", "-c", line}, line});
  }
  const bool wants_streams = arguments.interactive || arguments.tty;
  plan.variables = spec.env;
  plan.folder = spec.workdir;
  plan.user = spec.user;
  if (image != nullptr) SNUG_TRY(plan_image(*image, spec, arguments.command, plan));
  if (plan.commands.empty() && (wants_streams || !arguments.junit.empty()))
    return fail_with_hint("-i, -t and --junit are for a command in the guest",
                          "give one: snug run -it -- sh");
  if (plan.commands.size() > 1 && wants_streams)
    return fail_with_hint("-i and -t are for one command, not for several", "give one behind --");
  // As a person stands here, so the command does there.
  if (std::error_code error; plan.folder.empty() && !plan.commands.empty())
    plan.folder = guest_folder_of(spec.shares, std::filesystem::current_path(error).string());
  plan.interactive = arguments.interactive;
  plan.tty = arguments.tty;
  plan.keep_output = !arguments.junit.empty();
  return plan;
}

// The guest waits for commands.
void make_ready_for_commands(Spec& spec) {
  // Nobody watches it, and every line costs the guest time. Whoever wants to see more says so.
  bool chosen = false;
  for (const char* word : {"quiet", "loglevel", "debug"})
    chosen |= spec.cmdline.find(word) != std::string::npos;
  if (!chosen) spec.cmdline += spec.cmdline.empty() ? "quiet" : " quiet";
  spec.cmdline += " snug.agent";
}

// For exec, shell and cp, and for what the agent mounts. A machine of one's own has the device when its spec
// says so.
void give_socket(Spec& spec, bool wanted) {
  if (wanted && spec.vsock.socket.kind == VsockKind::kNone) spec.vsock.socket.kind = VsockKind::kAuto;
}

bool is_image(const std::string& kernel) {
  return kernel.empty() ||
         std::find(kKernelImages.begin(), kKernelImages.end(), kernel) != kKernelImages.end();
}

// A guest without an image has this host's kernel, and its files for a root.
Result<GuestImage> host_image_for(Spec& spec) {
  auto image = host_image(HostKernels::here());
  if (!image) return image;
  if (spec.root.empty()) spec.root = std::string("/");
  put(stderr, "snug: no guest image: {} with the files of {}, which stay as they are, for its root\n",
      image->kernel, spec.root == "/" ? "this host" : spec.root);
  return image;
}

// As prepared, else of this host, where that will do.
Result<GuestImage> choose_image(Spec& spec) {
  auto image = find_image(spec.kernel);
  if (image || !spec.kernel.empty() || !spec.initrd.empty()) return image;
  auto own = host_image_for(spec);
  if (own) return own;
  image.error().message += fmt::format("; nor can this host's kernel be booted: {}", own.error().message);
  return image;
}

Result<void> complete(Spec& spec, CommandPlan& plan, const RunArguments& arguments) {
  const bool of_image = is_image(spec.kernel);
  const bool mounts = std::any_of(spec.shares.begin(), spec.shares.end(),
                                  [](const ShareSpec& share) { return !share.target.empty(); });
  give_socket(spec, arguments.detach || of_image || !plan.commands.empty() || mounts || !spec.image.empty());
  if (of_image) {
    const bool chosen = !spec.kernel.empty();
    const auto image = SNUG_TRY(choose_image(spec));
    spec.kernel = image.kernel;
    std::string said = image.kernel;
    if (spec.initrd.empty()) {
      spec.initrd = image.initrds;
      said += " with " + image.initrds.front();
    }
    // The command's output is all that its caller wants to see.
    if (plan.commands.empty() && !chosen && image.name != "host")
      put(stderr, "snug: no kernel given: using {}\n", said);
    log_info("{}: using {}", chosen ? "image " + image.name : "no kernel given", said);
  }
  if (plan.commands.empty() || !arguments.snapshot.empty()) return {};
  make_ready_for_commands(spec);
  if (std::error_code error; plan.folder.empty() && !spec.root.empty())
    plan.folder = guest_folder_in_root(spec.root, std::filesystem::current_path(error).string());
  return {};
}

// The machine's directory. One in the foreground does without when there is no place for it.
Result<std::optional<VmDirectory>> take_name(Spec& spec, bool named, const RunArguments& arguments) {
  if (!named) spec.name = unused_name(spec.name);
  const Keep keep = arguments.detach && !arguments.remove ? Keep::kYes : Keep::kNo;
  if (const auto folder = machines_folder(); !folder && !arguments.detach) {
    log_info("{}; snug ps will not show this machine", folder.error().text());
    if (spec.vsock.socket.kind == VsockKind::kAuto) spec.vsock.socket.kind = VsockKind::kNone;
    return std::nullopt;
  }
  auto directory = SNUG_TRY(VmDirectory::create(spec.name, keep));
  SNUG_TRY(directory.write_file("spec.yaml", effective_spec_yaml(spec)));
  return std::optional(std::move(directory));
}

int report_end(const RunReport& report, const RunArguments& arguments) {
  if (!report.detail.empty()) log_error("{}", report.detail);
  if (!report.message.empty()) put(stderr, "snug: {}\n", report.message);
  if (arguments.stats) put(stderr, "{}", stats_report(report));
  return report.exit_status;
}

int run_here(Spec& spec, bool named, CommandPlan& plan, const RunArguments& arguments,
             Background* background) {
  if (auto completed = complete(spec, plan, arguments); !completed) return fail_run(completed.error());
  const auto kvm = kvm::Kvm::open();
  if (!kvm) return fail_run(kvm.error());
  auto directory = take_name(spec, named, arguments);
  if (!directory) return fail_run(directory.error());
  RunnerOptions options;
  options.commands = plan.commands.empty() ? nullptr : &plan;
  options.health = plan.health ? &*plan.health : nullptr;
  options.directory = *directory ? &**directory : nullptr;
  options.background = background != nullptr;
  options.program = version_text();
  options.snapshot = arguments.snapshot;
  options.snapshot_of = arguments.snapshot_of;
  const auto manager = background == nullptr ? ServiceManager::take_from_environment() : ServiceManager();
  options.ending = [&](const TimeLimit& grace) { manager.stopping(grace); };
  options.started = [&] {
    manager.ready(spec.name);
    // What machines have left that were killed goes now, while the guest boots.
    if (*directory) (void)list_machines();
    if (background != nullptr) background->started((*directory)->name());
  };
  if (background != nullptr) {
    background->prepare(**directory);
    options.leave_terminal = [&] { background->leave_terminal(); };
  }
  auto junit = JunitFile::open(arguments.junit);
  if (!junit) return fail_run(junit.error());
  options.ended = [&](const RunReport& report, const std::vector<CommandResult>& results) {
    if (!arguments.junit.empty()) junit->keep(junit_xml(spec.name, plan, results, report.message));
    return report_end(report, arguments);
  };
  auto runner = Runner::create(*kvm, spec, std::move(options));
  if (!runner) return fail_run(runner.error());
  const auto end = (*runner)->run();
  // What has a name goes before the end is told.
  runner->reset();
  if (!end) return fail_run(end.error());
  const auto written = junit->write([&] { return junit_xml(spec.name, plan, {}, end->message); });
  if (!written) put(stderr, "snug: {}\n", written.error().text());
  // Results that nobody will see are no success.
  return written || end->exit_status != 0 ? end->exit_status : kStatusFailure;
}

// What `template` is where it is left to snug.
Result<void> heed_environment(Spec& spec) {
  const char* text = std::getenv("SNUG_TEMPLATE");  // NOLINT(concurrency-mt-unsafe): nothing sets it
  const std::string_view word = text == nullptr ? "" : text;
  if (word.empty() || word == "auto" || spec.templates != TemplateMode::kAuto) return {};
  if (word != "true" && word != "false")
    return fail_with_hint(fmt::format("SNUG_TEMPLATE is {}", in_quotes(word)),
                          "set it to auto, true or false");
  spec.templates = word == "true" ? TemplateMode::kTrue : TemplateMode::kFalse;
  return {};
}

// snug run alpine: what is no file is an image, unless it looks like a file that is missing.
std::string image_in_place_of_spec(const std::optional<std::string>& path) {
  std::error_code error;
  if (!path || *path == "-" || std::filesystem::exists(*path, error)) return {};
  for (const char* suffix : {".yaml", ".yml", ".json"})
    if (path->ends_with(suffix)) return {};
  if (path->starts_with("/") || path->starts_with("./") || path->starts_with("../")) return {};
  return *path;
}

// A machine whose command has ended already had an agent.
int wait_until_ready(const std::string& name) {
  const auto agent = reach_agent(name, {});
  if (agent || agent.error().exit_status == 0) return 0;
  put(stderr, "snug: {}\n", agent.error().error.text());
  return agent.error().exit_status.value_or(kStatusFailure);
}

}  // namespace

int run(const RunArguments& arguments) {
  const std::string word = image_in_place_of_spec(arguments.spec_path);
  FlagValues flags = arguments.flags;
  if (!word.empty() && !flags.by_key.contains("image")) flags.add("image", word);
  auto outcome = load_spec(word.empty() ? arguments.spec_path : std::nullopt, flags);
  if (!outcome.problems.empty()) {
    for (const auto& problem : outcome.problems) put(stderr, "{}\n", format_problem(problem));
    return kStatusFailure;
  }
  Spec& spec = outcome.spec;
  if (auto opened = log_open(spec.log.level, spec.log.file); !opened) {
    put(stderr, "snug: error: log: {}\n", opened.error().text());
    return kStatusFailure;
  }
  if (auto heeded = heed_environment(spec); !heeded) return fail_run(heeded.error());
  if (spec.storage && !outcome.named)
    return fail_run(
        Error{"storage is kept under the machine's name, and it has none", "give it one: --name NAME"});
  std::optional<oci::ImageConfig> image;
  // A snapshot's spec names all that its image has come to.
  if (!spec.image.empty() && arguments.snapshot.empty()) {
    auto prepared = prepare_image(spec, arguments.quiet ? ShowProgress::kNo : ShowProgress::kYes);
    if (!prepared && !word.empty())
      return fail_run(std::move(prepared.error())
                          .with_context(fmt::format("no file {}, and as an image", in_quotes(word))));
    if (!prepared) return fail_run(prepared.error());
    image = std::move(*prepared);
  }
  auto plan = plan_commands(spec, arguments, image ? &*image : nullptr);
  if (!plan) return fail_run(plan.error());
  if (arguments.wait && !arguments.detach)
    return fail_run(
        Error{"--wait is for --detach: a machine in the foreground is waited for to its end", {}});
  if (!arguments.detach) return run_here(spec, outcome.named, *plan, arguments, nullptr);
  if (arguments.snapshot.empty() && (plan->interactive || plan->tty))
    return fail_run(Error{"-i and -t are for a command that is stayed with, not for --detach",
                          "start the machine without a command, then: snug exec -it NAME -- COMMAND"});
  return in_background(
      [&](Background& background) { return run_here(spec, outcome.named, *plan, arguments, &background); },
      [&](const std::string& name) { return arguments.wait ? wait_until_ready(name) : 0; });
}

}  // namespace snug::cli
