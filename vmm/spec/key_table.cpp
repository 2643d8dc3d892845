// The keys of a spec. A new setting is a row here and a field in spec.h; everything else follows.
#include "vmm/base/checked.h"
#include "vmm/spec/key.h"
#include "vmm/spec/nested_keys.h"
#include "vmm/spec/shares.h"
#include "vmm/spec/spec.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

constexpr size_t kCommandsMax = 1024;
constexpr size_t kVariablesMax = 16 * 1024;

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
       .help = "The kernel: a bzImage or an ELF image (vmlinux); or a word: 'default', what is booted when "
               "none is "
               "named, or 'stock', Debian's own kernel with its modules (snug image build stock).",
       .example = "bzImage",
       .also = "vmlinux kernel_image_path",
       .value = kernel_path(&Spec::kernel)},
      {.name = "kernel_cache",
       .flags = "--kernel-cache",
       .placeholder = "BOOL",
       .group = "Boot",
       .help = "Whether the kernel is kept unpacked in the cache folder, for the next boot to map.",
       .example = "false",
       .value = boolean(&Spec::kernel_cache)},
      {.name = "template",
       .flags = "--template",
       .placeholder = "WHEN",
       .group = "Boot",
       .help =
           "Whether a machine that is started for a command begins where another of its kind stood when it "
           "had booted: from the third of a kind on, where the second has left that behind, for a day "
           "(auto); "
           "from the second on (true); never (false). With true also one that is started for no command, "
           "where "
           "the initramfs of its guest waits for it, as that of the Debian image does: before it looks at "
           "the "
           "root. Guests of one template have the same random addresses. "
           "Not with interfaces of mode tap, consoles, channels, or disks that keep what is written to them, "
           "which boot.",
       .example = "false",
       .value =
           auto_or_boolean(&Spec::templates, TemplateMode::kAuto, TemplateMode::kTrue, TemplateMode::kFalse)},
      {.name = "kaslr",
       .flags = "--kaslr",
       .placeholder = "BOOL",
       .group = "Boot",
       .help = "Whether a kernel that can be moved is put at random addresses, other ones at each boot.",
       .example = "false",
       .value = boolean(&Spec::kaslr)},
      {.name = "initrd",
       .flags = "--initrd",
       .placeholder = "PATH",
       .group = "Boot",
       .help = "Initial RAM disk, or a list of several, loaded one behind the other.",
       .example = "initrd.cpio",
       .also = "initramfs ramdisk initrd_path",
       .value = path_list(&Spec::initrd, 64, FileUse::Kind::kInput)},
      {.name = "image",
       .flags = "--image",
       .placeholder = "NAME",
       .group = "Boot",
       .help = "A container image, of which the machine gets its root, below a layer in the guest's memory, "
               "and its "
               "command: alpine, nginx:1.25, quay.io/me/app@sha256:..., oci:PATH, docker-archive:PATH; by "
               "skopeo.",
       .example = "docker.io/library/alpine",
       .also = "container oci docker",
       .value = image_name(&Spec::image)},
      {.name = "pull",
       .flags = "--pull",
       .placeholder = "WHEN",
       .group = "Boot",
       .help = "When the image is brought: where it is not here yet, each time, or never.",
       .example = "always",
       .value = word(
           &Spec::pull,
           {{"missing", PullMode::kMissing}, {"always", PullMode::kAlways}, {"never", PullMode::kNever}})},
      {.name = "init",
       .flags = "--init",
       .placeholder = "WHAT",
       .group = "Boot",
       .help =
           "The first program of an image's guest: snug's agent, which runs the image's command, or that "
           "command itself (systemd, busybox init), the agent beside it; commands of the spec are then run "
           "beside it too.",
       .example = "image",
       .also = "systemd pid1",
       .value = word(&Spec::init, {{"agent", InitMode::kAgent}, {"image", InitMode::kImage}})},
      {.name = "storage",
       .flags = "--storage",
       .placeholder = "SIZE",
       .group = "Boot",
       .help =
           "What the guest of an image writes to its root and its volumes is kept, on a disk of that size "
           "under the machine's name, which takes room as it fills and can grow; with none it is gone "
           "with the guest. `snug rm --storage NAME` removes it.",
       .example = "10G",
       .also = "persistent persist disk_size size",
       .value = size_or_none(&Spec::storage, 16 * 1024 * kGiB, 4 * kKiB)},
      {.name = "root",
       .flags = "--root",
       .placeholder = "DIR",
       .group = "Boot",
       .help =
           "A folder of the host that is the guest's root: shared read-only, below a layer in the guest's "
           "memory that takes what it writes. / gives the host's own programs. Needs an initrd of snug's. "
           "Without a kernel and any prepared image it is /, with the host's own kernel.",
       .example = "/",
       .also = "rootfs rootdir root_dir chroot",
       .value = path(&Spec::root, FileUse::Kind::kFolder)},
      {.name = "cmdline",
       .flags = "-a,--cmdline",
       .placeholder = "TEXT",
       .group = "Boot",
       .help = "Kernel parameters, appended to snug's own; a list is joined by spaces.",
       .example = "quiet loglevel=3",
       .also = "append args params boot_args kernel_args",
       .value = line(&Spec::cmdline)},
      {.name = "disks",
       .flags = "--disk",
       .placeholder = "PATH[,KEY=VALUE...]",
       .group = "Devices",
       .help = "A disk, or a list of several; the guest sees them as vda, vdb, ..., those of mode pmem as "
               "pmem0, pmem1, ... On the command line a comma "
               "in a path, and in every other value of such a list, is written twice.",
       .example = "disk.img,readonly=true",
       .also = "disk drive drives block",
       .nested = list_of(&Spec::disks, disk_keys(), "path")},
      {.name = "net",
       .flags = "-n,--net",
       .placeholder = "MODE[,KEY=VALUE...]",
       .group = "Devices",
       .help = "A network interface, or a list of several; without one the guest has no network.",
       .example = "user,ports=8080:80",
       .also = "network networks nics interfaces netdev",
       .nested = list_of(&Spec::net, net_keys(), "mode")},
      {.name = "ports",
       .flags = "-p,--ports",
       .placeholder = "[[HOST_IP:]HOST_PORT:]GUEST_PORT[/udp]",
       .group = "Devices",
       .help = "Ports of the host that lead to the guest, on the first interface of mode user, which is "
               "made if there is none. Without an address, on 127.0.0.1 only; without HOST_PORT, or with "
               "0, on one that is free, which `snug ps` shows. Ranges: 8000-8003:8000-8003.",
       .example = "8080:80",
       .also = "publish forward",
       .value = port_list(&Spec::ports, kPortsMax)},
      {.name = "publish_all",
       .flags = "-P,--publish-all",
       .placeholder = "BOOL",
       .group = "Devices",
       .help = "Whether every port that the image exposes is published, each on a free port of 127.0.0.1, "
               "which `snug ps` shows; those that ports names are left to it.",
       .example = "true",
       .also = "publishall expose",
       .value = bare_boolean(&Spec::publish_all)},
      {.name = "shares",
       .flags = "-v,--share,--volume",
       .placeholder = "SOURCE[:TARGET][:ro|rw][,KEY=VALUE...]",
       .group = "Devices",
       .help = "A folder or file of the host in the guest, or a list of several. Without TARGET it has the "
               "same path in the guest; the agent there mounts it. A source with a colon in it is written "
               "source=PATH,target=DIR.",
       .example = ".:/work:ro",
       .also = "share volume volumes mount mounts virtiofs virtio_fs filesystem filesystems fs bind binds "
               "shared_folders 9p",
       .nested = list_of(&Spec::shares, share_keys(), "source", share_short_form())},
      {.name = "vsock",
       .help = "Sockets between host and guest (AF_VSOCK).",
       .example = "auto",
       .also = "socket virtio-vsock",
       .nested = map_of(&Spec::vsock, vsock_keys(), "socket")},
      {.name = "rng",
       .flags = "--rng",
       .placeholder = "BOOL",
       .group = "Devices",
       .help = "Whether the guest has an entropy device.",
       .example = "false",
       .also = "entropy random",
       .value = boolean(&Spec::rng)},
      {.name = "packed_rings",
       .flags = "--packed-rings",
       .placeholder = "BOOL",
       .group = "Devices",
       .help = "Whether virtio devices offer packed rings, the newer of the two layouts of their queues.",
       .example = "true",
       .also = "packed ring_packed",
       .value = boolean(&Spec::packed_rings)},
      {.name = "pci",
       .flags = "--pci",
       .placeholder = "WORD",
       .group = "Devices",
       .help = "How Linux reads what a PCI device is: ecam costs no exits, ports is for a kernel without "
               "CONFIG_PCI_MMCONFIG.",
       .example = "ports",
       .value = word(&Spec::pci, {{"ecam", PciAccess::kEcam}, {"ports", PciAccess::kPorts}})},
      {.name = "balloon",
       .flags = "--balloon",
       .placeholder = "SIZE",
       .group = "Devices",
       .help = "Memory that the guest is asked to give back to the host; with 0 it gives back what it has no "
               "use for, with none nothing.",
       .example = "128M",
       .also = "virtio_balloon",
       .value = size_or_none(&Spec::balloon, 1024 * kGiB, 4 * kKiB)},
      {.name = "virtio_consoles",
       .flags = "--virtio-console",
       .placeholder = "WHERE",
       .group = "Console and log",
       .help = "A further console, or a list of several; the guest sees them as hvc0, hvc1, ...",
       .example = "pty",
       .also = "consoles virtio_console hvc virtconsole",
       .nested = list_of(&Spec::consoles, hvc_keys(), "to")},
      {.name = "channels",
       .flags = "--channel",
       .placeholder = "NAME,socket=PATH",
       .group = "Devices",
       .help = "A stream of bytes between a program of the guest and one of the host, or a list of several.",
       .example = "org.example.agent,socket=agent.sock",
       .also = "channel virtio_ports virtserialport",
       .nested = list_of(&Spec::channels, channel_keys(), "name")},
      {.name = "command",
       .flags = "--command",
       .placeholder = "LINE",
       .group = "Command",
       .help = "What the guest's shell runs, or a list, one after the other; then the machine ends with the "
               "status "
               "of the first that failed.",
       .example = "make check",
       .also = "cmd commands run exec entrypoint",
       .value =
           text_list(&Spec::command, kCommandsMax, detail::shell_lines_value(), detail::parse_shell_line)},
      {.name = "env",
       .flags = "-e,--env",
       .placeholder = "NAME=VALUE",
       .group = "Command",
       .help = "A variable of the command's environment, a list of them, or a map of NAME: VALUE.",
       .example = "LANG=C.UTF-8",
       .also = "environment variables",
       .value = text_list(&Spec::env, kVariablesMax, detail::variables_value(), detail::parse_variable)},
      {.name = "workdir",
       .flags = "-w,--workdir",
       .placeholder = "DIR",
       .group = "Command",
       .help = "The folder of the guest in which the command runs.",
       .example = "/tmp",
       .default_text = "the working folder where the guest has it, else the user's home",
       .also = "working_dir cwd chdir",
       .value = checked_text(&Spec::workdir, detail::guest_folder_value(), detail::parse_guest_folder)},
      {.name = "user",
       .flags = "-u,--user",
       .placeholder = "USER",
       .group = "Command",
       .help = "The guest's user that runs the command: NAME[:GROUP] or UID[:GID].",
       .example = "nobody",
       .default_text = "root",
       .also = "uid",
       .value = checked_text(&Spec::user, detail::user_value(), detail::parse_user)},
      {.name = "no_healthcheck",
       .flags = "--no-healthcheck",
       .placeholder = "BOOL",
       .group = "Command",
       .help = "Whether the image's own way of telling that what runs is well (HEALTHCHECK) is left out; "
               "`snug ps` shows what it says.",
       .example = "true",
       .also = "healthcheck health",
       .value = bare_boolean(&Spec::no_healthcheck)},
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
       .help = "How long a guest asked to power off is waited for; 0 stops it at once, none waits for ever.",
       .example = "1m30s",
       .also = "stop_timeout shutdown_timeout",
       .value = time_limit(&Spec::grace_period, Zero::kAtOnce)},
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
      {.name = "jail",
       .flags = "--jail",
       .placeholder = "WHAT",
       .group = "Life cycle",
       .help =
           "Whether the process that the guest runs in is locked in, away from the host's files, processes "
           "and networks: as far as the host allows (auto), completely or not at all (require), or off.",
       .example = "require",
       .also = "sandbox confinement seccomp",
       .value = word(&Spec::jail,
                     {{"auto", JailMode::kAuto}, {"require", JailMode::kRequire}, {"off", JailMode::kOff}})},
      {.name = "limits",
       .help = "What the machine may take of the host.",
       .example = "{cpu: 1.5, memory: +64M}",
       .also = "limit resources quota cgroup",
       .nested = map_of(&Spec::limits, limit_keys())},
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
  if (start == std::string_view::npos) return std::string(key.flags);
  return std::string(key.flags.substr(start, key.flags.find(',', start) - start));
}

const KeyList& spec_keys() {
  static const Keys<Spec> keys = all_keys();
  return keys.list;
}

}  // namespace snug
