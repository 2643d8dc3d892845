#include "vmm/cli/container_image.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>

#include "vmm/base/log.h"
#include "vmm/cli/host_image.h"
#include "vmm/cli/image_ports.h"
#include "vmm/cli/storage.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

std::string name_of(const std::string& variable) { return variable.substr(0, variable.find('=')); }

bool is_named(const std::vector<std::string>& variables, const std::string& name) {
  return std::ranges::any_of(variables, [&](const std::string& each) { return name_of(each) == name; });
}

// Of a guest image, or of this host.
bool is_word(const std::string& kernel) {
  return kernel.empty() || std::ranges::find(kKernelImages, kernel) != kKernelImages.end();
}

oci::PullPolicy policy_of(PullMode mode) {
  switch (mode) {
    case PullMode::kAlways:
      return oci::PullPolicy::kAlways;
    case PullMode::kNever:
      return oci::PullPolicy::kNever;
    case PullMode::kMissing:
      break;
  }
  return oci::PullPolicy::kMissing;
}

// As the agent reads it (guest-images/agent/kernel_words.h).
void add_word(std::string_view word, const std::string& value, Spec& spec) {
  spec.cmdline += fmt::format("{}{}=", spec.cmdline.empty() ? "" : " ", word);
  for (const char c : value) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                       std::string_view("/_.-").find(c) != std::string_view::npos;
    spec.cmdline += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
}

Result<void> add_root(const fs::path& root, Spec& spec) {
  // Kernels of guest images take it as memory, so that guests of one image have one copy of it, the host's.
  // What one of the user's own has is not known.
  const bool as_memory = is_word(spec.kernel);
  const auto guest = SNUG_TRY(kernel_for_image(spec.kernel));
  spec.kernel = guest.kernel;
  spec.initrd.insert(spec.initrd.begin(), guest.initrds.begin(), guest.initrds.end());
  DiskSpec disk;
  disk.path = root.string();
  disk.readonly = true;
  disk.mode = as_memory ? DiskMode::kPmem : DiskMode::kBlock;
  spec.disks.insert(spec.disks.begin(), disk);
  add_word("snug.root", as_memory ? "/dev/pmem0" : "/dev/vda", spec);
  return {};
}

// As its first program the image's own; commands of the spec's are run beside it.
void add_init(const oci::ImageConfig& config, Spec& spec) {
  std::vector<std::string> words = config.entrypoint;
  words.insert(words.end(), config.command.begin(), config.command.end());
  if (words.empty()) words.emplace_back("/sbin/init");
  for (const std::string& word : words) add_word("snug.init", word, spec);
  for (const std::string& variable : config.environment)
    if (!is_named(spec.env, name_of(variable))) add_word("snug.env", variable, spec);
  for (const std::string& variable : spec.env) add_word("snug.env", variable, spec);
}

// Behind the disks of the spec, whose names it leaves alone.
Result<void> add_storage(Spec& spec) {
  DiskSpec disk;
  disk.path = SNUG_TRY(storage_disk(spec.name, *spec.storage)).string();
  disk.serial = kStorageSerial;
  if (std::ranges::find(spec.disks, disk.path, &DiskSpec::path) != spec.disks.end()) return {};
  spec.disks.push_back(disk);
  add_word("snug.storage", kStorageSerial, spec);
  return {};
}

// The image's entrypoint with `words`, or with its own command when there are none.
Result<void> plan_entrypoint(const oci::ImageConfig& config, const std::vector<std::string>& words,
                             CommandPlan& plan) {
  std::vector<std::string> command = config.entrypoint;
  const auto& rest = words.empty() ? config.command : words;
  command.insert(command.end(), rest.begin(), rest.end());
  if (command.empty())
    return fail_with_hint("the image says nothing about what to start",
                          "say it: snug run --image NAME -- COMMAND");
  std::string title = fmt::format("{}", fmt::join(command, " "));
  plan.commands.push_back({std::move(command), std::move(title)});
  return {};
}

}  // namespace

Result<BroughtImage> bring_image(const oci::Store& store, const oci::Reference& reference,
                                 oci::PullPolicy policy, ShowProgress show) {
  ImageProgress progress(reference.name, show);
  BroughtImage brought;
  brought.image = SNUG_TRY(store.pull(reference, policy, progress.pulling()));
  brought.root = SNUG_TRY(store.root_of(brought.image, progress.building()));
  return brought;
}

Result<oci::ImageConfig> prepare_image(Spec& spec, ShowProgress show) {
  std::error_code error;
  const auto reference = SNUG_TRY(oci::Reference::parse(spec.image, fs::current_path(error).string()));
  const auto store = SNUG_TRY(oci::Store::open());
  const auto [image, root] = SNUG_TRY(bring_image(store, reference, policy_of(spec.pull), show));
  if (spec.publish_all) SNUG_TRY(publish_exposed(image.config.ports, spec));
  log_info("image {}: {}, root {}", reference.name, image.manifest.digest, root.string());
  // A spec as inspect prints it has all of it already.
  if (spec.disks.empty() || spec.disks.front().path != root) {
    SNUG_TRY(add_root(root, spec));
    for (const std::string& volume : image.config.volumes) add_word("snug.volume", volume, spec);
    if (spec.init == InitMode::kImage) add_init(image.config, spec);
  }
  if (spec.storage) SNUG_TRY(add_storage(spec));
  return image.config;
}

HealthPlan health_plan(const oci::ImageHealth& health, protocol::ExecRequest command) {
  HealthPlan made;
  made.command = std::move(command);
  made.command.arguments = health.command;
  made.interval = health.interval.value_or(made.interval);
  made.timeout = health.timeout.value_or(made.timeout);
  made.start_period = health.start_period.value_or(made.start_period);
  made.retries = health.retries.value_or(made.retries);
  return made;
}

Result<void> plan_image(const oci::ImageConfig& config, const Spec& spec,
                        const std::vector<std::string>& words, CommandPlan& plan) {
  for (const std::string& variable : config.environment)
    if (!is_named(plan.variables, name_of(variable))) plan.variables.push_back(variable);
  // As what the image starts is run.
  protocol::ExecRequest as_image;
  as_image.variables = plan.variables;
  as_image.folder = !plan.folder.empty() ? plan.folder : config.folder.empty() ? "/" : config.folder;
  as_image.user = plan.user.empty() ? config.user : plan.user;
  if (!spec.no_healthcheck && !config.health.command.empty())
    plan.health = health_plan(config.health, as_image);
  plan.stop_signal = stop_signal_of(config.stop_signal);
  // The image's command is the first program, and not the plan's.
  if (spec.init == InitMode::kImage) {
    if (!words.empty())
      plan.commands.insert(plan.commands.begin(), {words, fmt::format("{}", fmt::join(words, " "))});
    if (plan.folder.empty()) plan.folder = "/";
    return {};
  }
  if (plan.commands.empty()) SNUG_TRY(plan_entrypoint(config, words, plan));
  plan.folder = as_image.folder;
  plan.user = as_image.user;
  return {};
}

int stop_signal_of(const std::string& name) {
  constexpr int kHighest = 64;
  constexpr std::string_view kRealTime = "RTMIN+";
  std::string_view word(name);
  if (word.starts_with("SIG")) word.remove_prefix(3);
  const auto number = [](std::string_view digits, int base) {
    int found = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found);
    const bool good = error == std::errc() && end == digits.data() + digits.size() && found >= 0 &&
                      base + found <= kHighest;
    return good && base + found > 0 ? base + found : SIGTERM;
  };
  if (word.starts_with(kRealTime)) return number(word.substr(kRealTime.size()), SIGRTMIN);
  if (!word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos) return number(word, 0);
  for (int i = 1; i < kHighest; ++i)
    if (const char* known = ::sigabbrev_np(i); known != nullptr && word == known) return i;
  return SIGTERM;
}

Result<GuestImage> kernel_for_image(const std::string& kernel) {
  const std::string agent = SNUG_TRY(agent_initrd());
  // One of the user's own has what it needs, or brings it in an initrd.
  if (!is_word(kernel)) return GuestImage{"", {}, kernel, {agent}};
  auto image = find_image(kernel);
  if (image) {
    // In the place of its initrd the agent, and the drivers stay.
    image->initrds.front() = agent;
    return image;
  }
  if (!kernel.empty()) return image;
  auto own = host_image(HostKernels::here());
  if (own) return own;
  image.error().message += fmt::format("; nor can this host's kernel be booted: {}", own.error().message);
  return image;
}

}  // namespace snug::cli
