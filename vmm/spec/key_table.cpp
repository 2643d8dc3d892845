// The keys of a spec. A new setting is a row here and a field in spec.h; everything else follows.
#include "vmm/base/checked.h"
#include "vmm/spec/key.h"
#include "vmm/spec/spec.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

Keys<LogSpec> log_keys() {
  return {
      {.name = "level",
       .flags = "--log-level",
       .placeholder = "LEVEL",
       .group = "Console and log",
       .help = "How much snug says about its own work.",
       .example = "debug",
       .value = word(&LogSpec::level, {{"trace", LogLevel::kTrace},
                                       {"debug", LogLevel::kDebug},
                                       {"info", LogLevel::kInfo},
                                       {"warn", LogLevel::kWarn},
                                       {"error", LogLevel::kError},
                                       {"off", LogLevel::kOff}})},
      {.name = "file",
       .flags = "--log-file",
       .placeholder = "PATH",
       .group = "Console and log",
       .help = "Where snug's log lines go; appended to.",
       .example = "snug.log",
       .default_text = "stderr",
       .value = path(&LogSpec::file, FileUse::Kind::kOutput)},
  };
}

Keys<Spec> all_keys() {
  return {
      {.name = "name",
       .flags = "--name",
       .placeholder = "NAME",
       .group = "Machine",
       .help = "Name of the machine, by which other commands find it.",
       .example = "web",
       .default_text = "the spec file's name",
       .also = "id hostname",
       .value = machine_name(&Spec::name)},
      {.name = "cpus",
       .flags = "-c,--cpus",
       .placeholder = "N",
       .group = "Machine",
       .help = "Number of virtual CPUs.",
       .example = "2",
       .also = "cpu vcpus smp cores vcpu_count",
       .value = whole_number(&Spec::cpus, 1, 64)},
      {.name = "memory",
       .flags = "-m,--memory",
       .placeholder = "SIZE",
       .group = "Machine",
       .help = "Memory of the guest.",
       .example = "512M",
       .also = "mem ram mem_size memory_mib mem_size_mib",
       .value = size(&Spec::memory, 16 * kMiB, 1024 * kGiB, 4 * kKiB)},
      {.name = "kernel",
       .flags = "-k,--kernel",
       .placeholder = "PATH",
       .group = "Boot",
       .help = "The kernel: a bzImage or an ELF image (vmlinux).",
       .example = "bzImage",
       .also = "vmlinux image kernel_image_path",
       .value = path(&Spec::kernel, FileUse::Kind::kInput)},
      {.name = "initrd",
       .flags = "-i,--initrd",
       .placeholder = "PATH",
       .group = "Boot",
       .help = "Initial RAM disk, or a list of several, loaded one behind the other.",
       .example = "initrd.cpio",
       .also = "initramfs ramdisk initrd_path",
       .value = path_list(&Spec::initrd, 64, FileUse::Kind::kInput)},
      {.name = "cmdline",
       .flags = "-a,--cmdline",
       .placeholder = "TEXT",
       .group = "Boot",
       .help = "Kernel parameters, appended to snug's own; a list is joined by spaces.",
       .example = "quiet loglevel=3",
       .also = "append args params boot_args kernel_args",
       .value = line(&Spec::cmdline)},
      {.name = "console",
       .flags = "--console",
       .placeholder = "WHERE",
       .group = "Console and log",
       .help =
           "Where the first serial console goes: this terminal, a file, a new pseudo terminal or nowhere.",
       .example = "file:console.log",
       .also = "serial tty",
       .value = console(&Spec::console)},
      {.name = "timeout",
       .flags = "--timeout",
       .placeholder = "TIME",
       .group = "Life cycle",
       .help = "How long the machine may run, all in all.",
       .example = "5m",
       .also = "time_limit",
       .value = time_limit(&Spec::timeout)},
      {.name = "boot_timeout",
       .flags = "--boot-timeout",
       .placeholder = "TIME",
       .group = "Life cycle",
       .help = "How long the guest may take to reach user space.",
       .example = "30s",
       .value = time_limit(&Spec::boot_timeout)},
      {.name = "grace_period",
       .flags = "--grace-period",
       .placeholder = "TIME",
       .group = "Life cycle",
       .help = "How long a guest asked to power off is waited for.",
       .example = "1m30s",
       .also = "stop_timeout shutdown_timeout",
       .value = time_limit(&Spec::grace_period)},
      {.name = "on_reboot",
       .flags = "--on-reboot",
       .placeholder = "WHAT",
       .group = "Life cycle",
       .help = "What to do when the guest resets the machine.",
       .example = "exit",
       .also = "reboot restart",
       .value = word(&Spec::on_reboot, {{"restart", OnReboot::kRestart}, {"exit", OnReboot::kExit}})},
      {.name = "on_panic",
       .flags = "--on-panic",
       .placeholder = "WHAT",
       .group = "Life cycle",
       .help = "What to do when the guest's kernel panics or its CPU triple-faults.",
       .example = "restart",
       .also = "panic on_crash",
       .value =
           word(&Spec::on_panic,
                {{"exit", OnPanic::kExit}, {"restart", OnPanic::kRestart}, {"ignore", OnPanic::kIgnore}})},
      {.name = "log",
       .help = "snug's own log: a level, or a map.",
       .example = "debug",
       .also = "logging verbosity",
       .nested = map_of(&Spec::log, log_keys(), "level")},
  };
}

}  // namespace

std::string long_flag(const Key& key) {
  const auto start = key.flags.find("--");
  return start == std::string::npos ? key.flags : key.flags.substr(start);
}

const KeyList& spec_keys() {
  static const Keys<Spec> keys = all_keys();
  return keys.list;
}

}  // namespace snug
