#include <fmt/format.h>

#include <cstdio>

#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/default_image.h"
#include "vmm/cli/put.h"
#include "vmm/cli/stats_report.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/runner.h"
#include "vmm/spec/load.h"

namespace snug::cli {
namespace {

int fail_run(const Error& error) {
  log_error("{}", error.text());
  return kStatusFailure;
}

// One word of a kernel command line: everything but harmless characters as %XX.
std::string percent_encoded(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-_./,:+@").find(c) != std::string_view::npos;
    if (plain)
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

// The words as one shell command: each in single quotes when it needs them.
std::string shell_command(const std::vector<std::string>& words) {
  std::string command;
  for (const auto& word : words) {
    if (!command.empty()) command += ' ';
    if (!word.empty() && percent_encoded(word) == word) {
      command += word;
      continue;
    }
    command += '\'';
    for (const char c : word) command += c == '\'' ? std::string("'\\''") : std::string(1, c);
    command += '\'';
  }
  return command;
}

Result<void> complete(Spec& spec, const RunArguments& arguments) {
  if (spec.kernel.empty()) {
    const auto image = SNUG_TRY(find_default_image());
    spec.kernel = image.kernel;
    std::string said = image.kernel;
    if (spec.initrd.empty()) {
      spec.initrd = {image.initrd};
      said += " with " + image.initrd;
    }
    put(stderr, "snug: no kernel given: using {}\n", said);
  }
  if (!arguments.command.empty()) {
    if (!spec.cmdline.empty()) spec.cmdline += ' ';
    spec.cmdline += "snug.run=" + percent_encoded(shell_command(arguments.command));
  }
  return {};
}

}  // namespace

int run(const RunArguments& arguments) {
  auto outcome = load_spec(arguments.spec_path, arguments.flags);
  if (!outcome.problems.empty()) {
    for (const auto& problem : outcome.problems) put(stderr, "{}\n", format_problem(problem));
    return kStatusFailure;
  }
  Spec& spec = outcome.spec;
  if (auto opened = log_open(spec.log.level, spec.log.file); !opened) {
    put(stderr, "snug: error: log: {}\n", opened.error().text());
    return kStatusFailure;
  }
  if (auto completed = complete(spec, arguments); !completed) return fail_run(completed.error());
  const auto kvm = kvm::Kvm::open();
  if (!kvm) return fail_run(kvm.error());
  auto runner = Runner::create(*kvm, spec);
  if (!runner) return fail_run(runner.error());
  const auto report = (*runner)->run();
  // The terminal is itself again before anything is said about the end.
  runner->reset();
  if (!report) return fail_run(report.error());
  if (!report->detail.empty()) log_error("{}", report->detail);
  if (!report->message.empty()) put(stderr, "snug: {}\n", report->message);
  if (arguments.stats) put(stderr, "{}", stats_report(*report));
  return report->exit_status;
}

}  // namespace snug::cli
