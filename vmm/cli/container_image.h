// A machine made of a container image: its file system for a root, its configuration for a command.
//
// Main thread, before others exist.
#pragma once

#include <filesystem>

#include "vmm/base/result.h"
#include "vmm/cli/guest_images.h"
#include "vmm/cli/image_progress.h"
#include "vmm/oci/image_config.h"
#include "vmm/oci/store.h"
#include "vmm/run/guest_commands.h"
#include "vmm/spec/spec.h"

namespace snug::cli {

struct BroughtImage {
  oci::StoredImage image;
  std::filesystem::path root;
};
// An image with its root, shown as it comes. Errors: it cannot be had.
Result<BroughtImage> bring_image(const oci::Store& store, const oci::Reference& reference,
                                 oci::PullPolicy policy, ShowProgress show);

// Brings spec.image here and makes it the machine's root: its first disk, entered by the agent. Errors: it
// cannot be had.
Result<oci::ImageConfig> prepare_image(Spec& spec, ShowProgress show);

// What the image starts, where nothing else is said: its entrypoint with `words`, or with its own command
// when there are none; with init: image, `words` beside it. And how it is seen that it is well, either way.
// Errors: the image has neither, and there are no words.
Result<void> plan_image(const oci::ImageConfig& config, const Spec& spec,
                        const std::vector<std::string>& words, CommandPlan& plan);
// `command`: its variables, folder and user.
HealthPlan health_plan(const oci::ImageHealth& health, protocol::ExecRequest command);

// "SIGQUIT", "QUIT", "3", "SIGRTMIN+3". SIGTERM for anything else.
int stop_signal_of(const std::string& name);

// Kernel and initrds of a machine whose root the agent enters: the guest image's kernel with its drivers, and
// the agent alone. `kernel`: as the spec has it.
Result<GuestImage> kernel_for_image(const std::string& kernel);

}  // namespace snug::cli
