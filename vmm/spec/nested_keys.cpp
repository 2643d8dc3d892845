#include "vmm/spec/nested_keys.h"

#include "vmm/spec/limits.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

constexpr uint32_t kMaxId = 0xfffffffe;  // the last one is nobody's

}  // namespace

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

Keys<DiskSpec> disk_keys() {
  return {
      {.name = "path",
       .placeholder = "PATH",
       .help = "The disk's content: a file or a block device.",
       .example = "disk.img",
       .also = "file path_on_host source image",
       .value = path(&DiskSpec::path, FileUse::Kind::kDisk)},
      {.name = "format",
       .placeholder = "WORD",
       .help = "How the file holds it; never guessed from the content.",
       .example = "raw",
       .also = "type driver",
       .value = word(&DiskSpec::format, {{"raw", DiskFormat::kRaw}})},
      {.name = "mode",
       .placeholder = "WORD",
       .help =
           "How the guest has it: block is a disk, vda; pmem is memory, pmem0, which mount -o dax reads and "
           "writes without a copy of the guest's own: guests of one file share its pages.",
       .example = "pmem",
       .also = "kind attach",
       .value = word(&DiskSpec::mode, {{"block", DiskMode::kBlock}, {"pmem", DiskMode::kPmem}})},
      {.name = "readonly",
       .placeholder = "BOOL",
       .help = "Whether the guest can only read it.",
       .example = "true",
       .also = "ro read_only is_read_only",
       .value = boolean(&DiskSpec::readonly)},
      {.name = "ephemeral",
       .placeholder = "BOOL",
       .help =
           "Whether what the guest writes is thrown away at its end; the file stays as it is, and several "
           "machines may share it.",
       .example = "true",
       .also = "snapshot temporary",
       .value = boolean(&DiskSpec::ephemeral)},
      {.name = "direct",
       .placeholder = "BOOL",
       .help = "Whether transfers go past the host's page cache (O_DIRECT).",
       .example = "true",
       .also = "cache o_direct",
       .value = boolean(&DiskSpec::direct)},
      {.name = "serial",
       .placeholder = "TEXT",
       .help = "The id that the guest sees, as in /dev/disk/by-id.",
       .example = "data-1",
       .also = "id drive_id",
       .value = serial_number(&DiskSpec::serial)},
      {.name = "queues",
       .placeholder = "N",
       .help = "Number of request queues.",
       .example = "2",
       .also = "num_queues",
       .value = whole_number(&DiskSpec::queues, 1, 16)},
      {.name = "queue_size",
       .placeholder = "N",
       .help = "How many buffers a request queue has room for: a power of two.",
       .example = "1024",
       .also = "ring_size",
       .value = power_of_two(&DiskSpec::queue_size, 16, 1024)},
      {.name = "io",
       .placeholder = "WORD",
       .help = "What does its work on the host: auto is io_uring, or threads where the host has none.",
       .example = "threads",
       .also = "aio io_engine backend",
       .value =
           word(&DiskSpec::io,
                {{"auto", DiskIo::kAuto}, {"io_uring", DiskIo::kIoUring}, {"threads", DiskIo::kThreads}})},
      {.name = "thread",
       .placeholder = "BOOL",
       .help =
           "Whether its work gets a thread of its own, for a busy disk beside other busy devices; else one "
           "thread serves all devices.",
       .example = "true",
       .also = "iothread io_thread",
       .value = boolean(&DiskSpec::thread)},
  };
}

Keys<NetSpec> net_keys() {
  return {
      {.name = "mode",
       .placeholder = "WORD",
       .help = "What is at the other end: user needs no privileges (by passt), tap is an interface of the "
               "host, none "
               "is no interface.",
       .example = "user",
       .also = "type backend",
       .value = word(&NetSpec::mode,
                     {{"user", NetMode::kUser}, {"tap", NetMode::kTap}, {"none", NetMode::kNone}})},
      {.name = "tap",
       .placeholder = "NAME",
       .help = "Of mode tap: the interface, which exists and belongs to this user; or fd:N, a descriptor "
               "that snug is "
               "started with (fd:N:M for two queues).",
       .example = "tap0",
       .also = "ifname host_dev_name tap_name fd",
       .value = tap_name(&NetSpec::tap)},
      {.name = "queues",
       .placeholder = "N",
       .help = "Of mode tap: pairs of queues; the interface must be made with multi_queue for more than one.",
       .example = "2",
       .also = "vq_pairs num_queues",
       .value = whole_number(&NetSpec::queues, 1, 16)},
      {.name = "queue_size",
       .placeholder = "N",
       .help = "How many frames a queue has room for: a power of two.",
       .example = "1024",
       .also = "ring_size rx_queue_size tx_queue_size",
       .value = power_of_two(&NetSpec::queue_size, 16, 1024)},
      {.name = "vhost",
       .placeholder = "WORD",
       .help =
           "Of mode tap: whether the host's kernel moves the frames by itself, by /dev/vhost-net; auto is "
           "where it can.",
       .example = "off",
       .also = "vhost_net",
       .value = word(&NetSpec::vhost,
                     {{"auto", VhostUse::kAuto}, {"on", VhostUse::kOn}, {"off", VhostUse::kOff}})},
      {.name = "thread",
       .placeholder = "BOOL",
       .help = "Whether its work gets a thread of its own, for a busy interface beside other busy devices; "
               "frames that vhost moves need none.",
       .example = "true",
       .also = "iothread io_thread",
       .value = boolean(&NetSpec::thread)},
      {.name = "ports",
       .placeholder = "[[HOST_IP:]HOST_PORT:]GUEST_PORT[/udp]",
       .help = "Ports of the host that lead to the guest; without an address, on 127.0.0.1 only, without "
               "HOST_PORT on one that is free.",
       .example = "8080:80",
       .also = "publish forward hostfwd portForwards",
       .value = port_list(&NetSpec::ports, kPortsMax)},
      {.name = "host_loopback",
       .placeholder = "BOOL",
       .help = "Whether the guest reaches services on the host's 127.0.0.1, at its gateway's address.",
       .example = "true",
       .value = boolean(&NetSpec::host_loopback)},
      {.name = "mac",
       .placeholder = "MAC",
       .help = "The interface's address; without one it is made from the machine's name.",
       .example = "02:00:00:12:34:56",
       .also = "mac_address macaddr guest_mac",
       .value = mac_address(&NetSpec::mac)},
      {.name = "mtu",
       .placeholder = "N",
       .help = "The longest packet; 0 is the mode's own.",
       .example = "1500",
       .value = whole_number(&NetSpec::mtu, 0, 65520)},
  };
}

Keys<VsockSpec> vsock_keys() {
  return {
      {.name = "socket",
       .flags = "--vsock",
       .placeholder = "WHERE",
       .group = "Devices",
       .help = "The unix socket that leads to the guest's sockets: a path, or auto for one in the machine's "
               "folder. Without one the guest has no such device.",
       .example = "auto",
       .also = "uds_path path uds",
       .value = vsock_socket(&VsockSpec::socket)},
      {.name = "cid",
       .flags = "--vsock-cid",
       .placeholder = "N",
       .group = "Devices",
       .help = "The guest's context id; guests of other machines may have the same.",
       .example = "3",
       .also = "guest_cid",
       .value = whole_number(&VsockSpec::cid, 3, 0xfffffffe)},
  };
}

Keys<HvcSpec> hvc_keys() {
  return {
      {.name = "to",
       .placeholder = "WHERE",
       .help = "Where it goes: a new pseudo terminal, a file, or whoever connects to a unix socket.",
       .example = "socket:hvc0.sock",
       .also = "type path output",
       .value = port_end(&HvcSpec::to)},
  };
}

Keys<ChannelSpec> channel_keys() {
  return {
      {.name = "name",
       .placeholder = "NAME",
       .help = "What the guest finds it by: /dev/virtio-ports/NAME, where udev makes the links.",
       .example = "org.example.agent",
       .also = "id port",
       .value = machine_name(&ChannelSpec::name)},
      {.name = "socket",
       .placeholder = "PATH",
       .help = "The unix socket that snug makes for one client at a time.",
       .example = "agent.sock",
       .also = "path to unix",
       .value = path(&ChannelSpec::socket, FileUse::Kind::kSocket)},
  };
}

Keys<ShareSpec> share_keys() {
  return {
      {.name = "source",
       .placeholder = "PATH",
       .help = "The folder or file of the host.",
       .example = "src",
       .also = "src path host_path host_dir dir directory location device file shared_dir",
       .value = share_source(&ShareSpec::source)},
      {.name = "target",
       .placeholder = "DIR",
       .help = "Where the guest's agent mounts it, an absolute path; without one nobody does by himself, and "
               "mount -t virtiofs TAG DIR in the guest does.",
       .example = "/work",
       .also = "dst destination to mount_point mount_path mountpoint container_path guest_path",
       .value = checked_text(&ShareSpec::target, detail::share_target_value(), detail::parse_share_target)},
      {.name = "tag",
       .placeholder = "NAME",
       .help = "What the guest's kernel finds it by; without one it is share0, share1 and so on.",
       .example = "src",
       .also = "name mount_tag id",
       .value = checked_text(&ShareSpec::tag, detail::share_tag_value(), detail::parse_share_tag)},
      {.name = "readonly",
       .placeholder = "BOOL",
       .help = "Whether the guest can only read it.",
       .example = "true",
       .also = "ro read_only writable rw",
       .value = boolean(&ShareSpec::readonly)},
      {.name = "cache",
       .placeholder = "WORD",
       .help = "When the guest sees what the host changes: auto is within a second, and the content of files "
               "as they are opened; none at once; always is for what the guest alone changes.",
       .example = "none",
       .also = "cache_mode cache_policy caching",
       .value = word(&ShareSpec::cache, {{"auto", ShareCacheMode::kAuto},
                                         {"always", ShareCacheMode::kAlways},
                                         {"none", ShareCacheMode::kNone}})},
      {.name = "submounts",
       .placeholder = "BOOL",
       .help = "Whether what is mounted below the source on the host is seen too.",
       .example = "true",
       .also = "announce_submounts recursive rbind",
       .value = boolean(&ShareSpec::submounts)},
      {.name = "uid",
       .placeholder = "N",
       .help = "The guest's user that files of the host's user belong to.",
       .example = "1000",
       .default_text = "root; served by root, as it is on the host",
       .also = "user owner",
       .value = optional_number(&ShareSpec::uid, 0, kMaxId)},
      {.name = "gid",
       .placeholder = "N",
       .help = "The guest's group that files of the host's group belong to.",
       .example = "1000",
       .default_text = "root; served by root, as it is on the host",
       .also = "group",
       .value = optional_number(&ShareSpec::gid, 0, kMaxId)},
  };
}

Keys<LimitsSpec> limit_keys() {
  return {
      {.name = "cpu",
       .flags = "--limits-cpu",
       .placeholder = "N",
       .group = "Limits",
       .help = "How many processors' time the machine may take, all its threads together.",
       .example = "1.5",
       .also = "cpus cpu_quota quota nano_cpus",
       .value = cpu_limit(&LimitsSpec::cpu)},
      {.name = "memory",
       .flags = "--limits-memory",
       .placeholder = "[+]SIZE",
       .group = "Limits",
       .help = "How much of the host's memory the machine may take: with a + beyond the guest's memory, else "
               "all in all. A machine that needs more is killed.",
       .example = "+64M",
       .also = "mem memory_max ram",
       .value = memory_limit(&LimitsSpec::memory)},
      {.name = "io_weight",
       .flags = "--limits-io-weight",
       .placeholder = "N",
       .group = "Limits",
       .help = "The machine's share of a busy disk of the host: what has no weight counts 100.",
       .example = "50",
       .also = "io weight blkio blkio_weight",
       .value = whole_or_none(&LimitsSpec::io_weight, 1, 10'000)},
  };
}

}  // namespace snug
