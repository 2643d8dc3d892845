#include "vmm/run/host_ends.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "devices/virtio/fs/share_protocol.h"
#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"
#include "vmm/host/host_network.h"
#include "vmm/host/host_ports.h"
#include "vmm/host/input_file.h"
#include "vmm/spec/network.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

// How long a consumer that stalls gets at the end to take what the guest printed last.
constexpr std::chrono::milliseconds kOutputPatience{1000};

// noearly: Linux looks through every slot for chips with known bugs before it knows what machine it is on;
// there are none here, and each look is an exit (46 in all).
constexpr std::string_view kDefaultCmdline = "console=ttyS0 panic=-1 pci=noearly";

// For requests. A guest uses as many as it has processors, at most.
constexpr size_t kShareQueuesMax = share::kQueuesMax - 1;

// What had been written to an ephemeral disk lies beside the snapshot. One that is the snapshot's own may
// have none.
Result<DiskFile> open_saved_disk(const DiskSpec& disk, size_t index, const std::string& snapshot) {
  if (!disk.ephemeral) return DiskFile::open_saved(disk, -1);
  const std::filesystem::path path(disk.path);
  std::error_code error;
  const std::string image = snapshot + "/" + SavedEnds::overlay_name(index);
  const bool own = std::filesystem::equivalent(path.parent_path(), snapshot, error);
  if (own && !std::filesystem::exists(image, error)) return DiskFile::open_saved(disk, -1);
  const UniqueFd overlay = SNUG_TRY(open_file(image, O_RDONLY));
  return DiskFile::open_saved(disk, overlay.get());
}

}  // namespace

Result<std::unique_ptr<HostEnds>> HostEnds::open(const Spec& spec, const std::string& snapshot) {
  auto ends = std::make_unique<HostEnds>();
  SNUG_TRY(ends->open_boot_files(spec));
  SNUG_TRY(ends->open_networks(spec));
  if (!snapshot.empty()) ends->saved = SNUG_TRY(with_context(SavedEnds::open(snapshot), "snapshot"));
  SNUG_TRY(ends->open_disks(spec, snapshot));
  ends->shares = SNUG_TRY(ShareEnd::open(spec));
  ends->share_mounts = plan_mounts(spec.shares);
  return ends;
}

Result<void> HostEnds::open_disks(const Spec& spec, const std::string& snapshot) {
  for (size_t i = 0; i < spec.disks.size(); ++i) {
    const DiskSpec& disk = spec.disks[i];
    auto opened = snapshot.empty() ? DiskFile::open(disk) : open_saved_disk(disk, i, snapshot);
    disks.push_back(SNUG_TRY(with_context(std::move(opened), "disk " + disk.path)));
  }
  return {};
}

void HostEnds::open_template(const Spec& spec, MachineStarts starts) {
  const MachineKind kind(spec, nics, starts);
  TemplateEnds::BootFiles boot{{kernel.get()}, 0};
  for (const UniqueFd& initrd : initrds) boot.files.push_back(initrd.get());
  for (size_t i = 0; i < disks.size(); ++i) {
    if (i != kind.image())
      boot.files.push_back(disks[i].file());
    else if (const auto image = disks[i].pmem())
      boot.image_bytes = image->bytes;
  }
  templates = TemplateEnds::open(spec, kind, boot);
  if (!templates) return;
  saved = templates->find();
  if (!saved && !templates->wanted()) templates.reset();
}

Result<void> HostEnds::open_streams(const Spec& spec, EventLoop& loop, const Options& options) {
  SNUG_TRY(open_console(spec, loop, options));
  SNUG_TRY(open_vsock(spec, loop, options));
  SNUG_TRY(open_ports(spec, loop));
  // In the background they are nobody's, and whoever reads them waits for their end.
  if (options.commands && !options.background) command_streams = CommandStreams::open();
  if (options.commands && options.background)
    output_log = SNUG_TRY(BoundedLog::create(options.directory->fd(), kOutputLog));
  return {};
}

Result<void> HostEnds::open_boot_files(const Spec& spec) {
  kernel = SNUG_TRY(with_context(open_input(spec.kernel), "kernel"));
  open_kernel_store(spec);
  for (const auto& path : spec.initrd) initrds.push_back(SNUG_TRY(with_context(open_input(path), "initrd")));
  return {};
}

void HostEnds::open_kernel_store(const Spec& spec) {
  const std::string cache = spec.kernel_cache ? cache_folder() : "";
  if (!cache.empty()) {
    auto opened = KernelStore::open(cache + "/kernels");
    if (opened) {
      kernel_store = std::move(*opened);
      kernel_store.choose(kernel.get());
    } else {
      log_debug("kernel cache: {}", opened.error().text());
    }
  }
}

Result<void> HostEnds::open_networks(const Spec& spec) {
  nics = network_interfaces(spec);
  for (size_t i = 0; i < nics.size(); ++i) {
    const std::vector<PortForward> wanted = nics[i].ports;
    SNUG_TRY(with_context(choose_ports(nics[i].ports), fmt::format("net[{}]", i)));
    for (size_t port = 0; port < wanted.size(); ++port)
      if (wanted[port] != nics[i].ports[port])
        log_line(LogLevel::kWarn, "published: " + detail::print_port(nics[i].ports[port]));
    if (nics[i].mode != NetMode::kUser || nics[i].ports.empty()) continue;
    for (const PortForward& port : take_unpublishable(nics[i].ports, look_at_host_network()))
      log_warn("net[{}]: {} is not published: no interface of this host has IPv6", i,
               detail::print_port(port));
  }
  for (size_t i = 0; i < nics.size(); ++i)
    if (nics[i].mode == NetMode::kTap)
      taps.emplace(i, SNUG_TRY(with_context(Tap::open(nics[i]), fmt::format("net[{}]", i))));
  return {};
}

Result<void> HostEnds::open_console(const Spec& spec, EventLoop& loop, const Options& options) {
  ConsoleSpec wanted = spec.console;
  // Our streams are those of the commands: the console has a log, where there is a place for it.
  if ((options.background || options.commands) && wanted.kind == ConsoleKind::kStdio) {
    if (options.directory != nullptr) return serve_console(loop, *options.directory);
    wanted.kind = ConsoleKind::kNone;
  }
  console = SNUG_TRY(Console::open(wanted, loop, options.on_quit));
  return {};
}

Result<void> HostEnds::serve_console(EventLoop& loop, const VmDirectory& directory, UniqueFd listening) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return fail_errno(errno, "console: socketpair");
  UniqueFd near(ends[0]);
  UniqueFd far(ends[1]);
  console = SNUG_TRY(Console::open_socket(std::move(near), loop));
  if (listening) {
    console_server =
        SNUG_TRY(ConsoleServer::go_on(loop, directory.fd(), std::move(listening), std::move(far)));
    return {};
  }
  listening = SNUG_TRY(directory.listen("console.sock"));
  console_server =
      SNUG_TRY(ConsoleServer::create(loop, directory.fd(), std::move(listening), std::move(far)));
  return {};
}

Result<void> HostEnds::open_vsock(const Spec& spec, EventLoop& loop, const Options& options) {
  const VsockSocket& socket = spec.vsock.socket;
  // For the agent in the guest, without a socket for others.
  const bool for_agent = options.commands || !share_mounts.empty() || templates;
  if (socket.kind == VsockKind::kNone && !for_agent) return {};
  std::string path = socket.path;
  if (socket.kind == VsockKind::kAuto) {
    if (options.directory == nullptr)
      return fail_with_hint("vsock: no folder for the socket", "name its path: vsock: {socket: PATH}");
    path = options.directory->path() + "/vsock.sock";
  }
  vsock = SNUG_TRY(VsockHub::create(loop, path));
  if (path.empty()) return {};
  vsock_path = std::filesystem::absolute(path);
  log_debug("vsock: {}", vsock_path);
  return {};
}

Result<void> HostEnds::open_ports(const Spec& spec, EventLoop& loop) {
  for (size_t i = 0; i < spec.consoles.size(); ++i) {
    consoles.push_back(
        SNUG_TRY(with_context(HostPort::open(spec.consoles[i].to, loop), fmt::format("consoles[{}]", i))));
    const std::string& pty = consoles.back()->pty_path();
    if (!pty.empty()) log_line(LogLevel::kWarn, fmt::format("console hvc{} is {}", i, pty));
  }
  for (const ChannelSpec& channel : spec.channels)
    channels.push_back(SNUG_TRY(
        with_context(HostPort::open({PortKind::kSocket, channel.socket}, loop), "channel " + channel.name)));
  return {};
}

// --- from another process --------------------------------------------------------------------------------

Result<std::unique_ptr<HostEnds>> HostEnds::adopt(const Spec& spec, HandedEnds& handed) {
  auto ends = std::make_unique<HostEnds>();
  ends->nics = network_interfaces(spec);
  if (handed.disks.size() != spec.disks.size() || handed.nics.size() != ends->nics.size())
    return fail("the machine's papers do not fit its spec");
  ends->kernel = std::move(handed.kernel);
  ends->open_kernel_store(spec);
  ends->initrds = std::move(handed.initrds);
  for (size_t i = 0; i < spec.disks.size(); ++i)
    ends->disks.push_back(SNUG_TRY(with_context(
        DiskFile::adopt(spec.disks[i], std::move(handed.disks[i].file), std::move(handed.disks[i].overlay)),
        "disk " + spec.disks[i].path)));
  for (size_t i = 0; i < ends->nics.size(); ++i) {
    if (ends->nics[i].mode != NetMode::kTap) {
      ends->handed_sockets[i].socket = std::move(handed.nics[i].socket);
      continue;
    }
    NetSpec given = ends->nics[i];
    given.tap = "fd";
    for (UniqueFd& tap : handed.nics[i].taps) given.tap += fmt::format(":{}", tap.release());
    ends->taps.emplace(i, SNUG_TRY(with_context(Tap::open(given), fmt::format("net[{}]", i))));
  }
  ends->share_mounts = plan_mounts(spec.shares);
  ends->saved = SavedEnds{std::move(handed.state), std::move(handed.memory), {}, true};
  ends->handed_ends = std::move(handed.ends);
  return ends;
}

Result<void> HostEnds::adopt_streams(const Spec& spec, EventLoop& loop, const Options& options,
                                     HandedEnds& handed, const std::string& handed_vsock_path) {
  if (handed.console) {
    SNUG_TRY(serve_console(loop, *options.directory, std::move(handed.console)));
  } else {
    ConsoleSpec wanted = spec.console;
    if (options.commands && wanted.kind == ConsoleKind::kStdio) wanted.kind = ConsoleKind::kNone;
    console = SNUG_TRY(Console::open_again(wanted, loop));
  }
  vsock_path = handed_vsock_path;
  const bool for_agent =
      options.commands || !share_mounts.empty() || spec.vsock.socket.kind != VsockKind::kNone;
  if (for_agent || handed.vsock) vsock = SNUG_TRY(VsockHub::adopt(loop, std::move(handed.vsock)));
  if (options.commands && !options.background) command_streams = CommandStreams::open();
  if (options.commands && options.background)
    output_log = SNUG_TRY(BoundedLog::go_on(options.directory->fd(), kOutputLog));
  return {};
}

Result<StateReader> HostEnds::read_told() const {
  return StateReader::parse(SNUG_TRY(read_state_file(handed_ends.get())));
}

Result<void> HostEnds::restore(StateReader& told) {
  size_t number = 0;
  for (DiskFile& disk : disks) {
    if (disk.overlay() < 0) continue;
    auto in = SNUG_TRY(told.section(VirtioDevices::overlay_end(number++), VirtioDevices::kEndsVersion));
    disk.restore(in);
    SNUG_TRY(in.finish());
  }
  constexpr size_t kHalfWayMax = size_t{1} << 20;
  for (size_t i = 0; i < nics.size(); ++i) {
    auto in = SNUG_TRY(told.section(VirtioDevices::nic_end(i), VirtioDevices::kEndsVersion));
    const auto half_way = in.blob(kHalfWayMax);
    SNUG_TRY(in.finish());
    if (const auto handed = handed_sockets.find(i); handed != handed_sockets.end())
      handed->second.half_way.assign(half_way.begin(), half_way.end());
  }
  return {};
}

// --- in the machine's process ----------------------------------------------------------------------------

void HostEnds::go_behind(WardenLink& warden) {
  KernelCache::Files files;
  files.kept = kernel_store.find();
  if (kernel_store.chosen()) {
    files.begin = [&warden] { return warden.begin_kernel(); };
    files.keep = [&warden] { return warden.keep_kernel(); };
  }
  kernel_cache = KernelCache(std::move(files));
  kernel_store.leave();
  if (templates) templates->go_behind(warden);
  if (vsock) vsock->leave_names_to([&warden](uint32_t port) { return warden.connect_vsock(port); });
  if (console_server)
    console_server->continue_log_with([&warden] { return warden.next_log(warden::LogKind::kConsole); });
  if (output_log) output_log->continue_with([&warden] { return warden.next_log(warden::LogKind::kOutput); });
}

Result<MachineConfig> HostEnds::machine_config(const Spec& spec) {
  MachineConfig config;
  config.cpus = spec.cpus;
  config.memory = spec.memory;
  config.kernel_fd = kernel.get();
  config.kernel_cache = &kernel_cache;
  for (const UniqueFd& initrd : initrds) config.initrd_fds.push_back(initrd.get());
  // hostname: a name for guests that have none of their own (Linux 6.0; an /etc/hostname wins under systemd).
  config.cmdline = fmt::format("{} hostname={}", kDefaultCmdline, spec.name);
  if (!spec.root.empty()) config.cmdline += fmt::format(" snug.root={}", ShareEnd::kRootTag);
  // The guest's first program leaves what is this run's own until it is told to begin.
  const MachineKind* const kind = templates ? &templates->kind() : nullptr;
  if (kind != nullptr && kind->waits()) config.cmdline += fmt::format(" {}", kind->late_word());
  config.kaslr = spec.kaslr;
  const std::string words = kind != nullptr ? kind->words() : spec.cmdline;
  if (!words.empty()) config.cmdline += " " + words;
  for (size_t i = 0; i < disks.size(); ++i) {
    if (!disks[i].is_pmem()) {
      config.disks.push_back(disks[i].config());
      continue;
    }
    config.pmem.push_back(SNUG_TRY(with_context(disks[i].pmem(), "disk " + spec.disks[i].path)));
    PmemFile& file = config.pmem.back();
    if (kind != nullptr && i == kind->image()) file.room = kind->image_room(file.bytes);
  }
  for (const ShareEnd& share : shares)
    config.shares.push_back({.tag = share.spec.tag,
                             .queues = static_cast<uint16_t>(std::min<size_t>(spec.cpus, kShareQueuesMax)),
                             .socket = share.device.get()});
  if (vsock) config.vsock = {{.cid = spec.vsock.cid}, vsock.get()};
  config.rng = spec.rng;
  config.packed_rings = spec.packed_rings;
  config.pci_ports = spec.pci == PciAccess::kPorts;
  config.balloon = spec.balloon;
  for (const auto& port : consoles) config.consoles.push_back(port.get());
  for (size_t i = 0; i < channels.size(); ++i)
    config.channels.push_back({spec.channels[i].name, channels[i].get()});
  config.stop_on_panic = spec.on_panic != OnPanic::kIgnore;
  return config;
}

void HostEnds::finish() {
  console->finish(kOutputPatience);
  if (console_server) console_server->finish();
}

}  // namespace snug
