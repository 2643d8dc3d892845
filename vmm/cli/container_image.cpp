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
#include "vmm/spec/nested_keys.h"
#include "vmm/spec/text.h"

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
  if (!spec.disks.empty() && spec.disks.front().path == root) return image.config;
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
  spec.cmdline +=
      fmt::format("{}snug.root=/dev/{}", spec.cmdline.empty() ? "" : " ", as_memory ? "pmem0" : "vda");
  return image.config;
}

Result<void> publish_exposed(const std::vector<std::string>& exposed, Spec& spec) {
  constexpr std::string_view kTcp = "/tcp", kUdp = "/udp";
  for (const std::string& text : exposed) {
    std::string_view port(text);
    PortForward forward;
    forward.udp = port.ends_with(kUdp);
    if (forward.udp || port.ends_with(kTcp)) port.remove_suffix(kTcp.size());
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), forward.guest_port);
    if (error != std::errc() || end != port.data() + port.size() || forward.guest_port == 0) {
      log_warn("publish_all: the image exposes {}, which is no port of TCP or UDP; left out", in_quotes(text));
      continue;
    }
    const auto is_same = [&](const PortForward& each) {
      return each.guest_port == forward.guest_port && each.udp == forward.udp;
    };
    if (std::ranges::any_of(spec.ports, is_same)) continue;
    if (spec.ports.size() >= kPortsMax)
      return fail_with_hint(fmt::format("publish_all: more than {} ports", kPortsMax),
                            "publish those that are needed: ports");
    spec.ports.push_back(forward);
  }
  return {};
}

Result<void> plan_image(const oci::ImageConfig& config, const std::vector<std::string>& words,
                        CommandPlan& plan) {
  if (plan.commands.empty()) {
    std::vector<std::string> command = config.entrypoint;
    const auto& rest = words.empty() ? config.command : words;
    command.insert(command.end(), rest.begin(), rest.end());
    if (command.empty())
      return fail_with_hint("the image says nothing about what to start",
                            "say it: snug run --image NAME -- COMMAND");
    std::string title = fmt::format("{}", fmt::join(command, " "));
    plan.commands.push_back({std::move(command), std::move(title)});
  }
  for (const std::string& variable : config.environment)
    if (!is_named(plan.variables, name_of(variable))) plan.variables.push_back(variable);
  if (plan.folder.empty()) plan.folder = config.folder.empty() ? "/" : config.folder;
  if (plan.user.empty()) plan.user = config.user;
  plan.stop_signal = stop_signal_of(config.stop_signal);
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
