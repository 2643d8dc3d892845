// What to run: every setting of a machine, typed and checked. A plain value without a relation to YAML, flags
// or files; see load.h for how one is made and key_table.cpp for the keys behind the fields.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/log.h"

namespace snug {

// What happens when the guest asks for a reset.
enum class OnReboot { kRestart, kExit };

// What happens when the guest's kernel panics or the CPU triple-faults.
enum class OnPanic { kExit, kRestart, kIgnore };

enum class ConsoleKind { kStdio, kFile, kPty, kNone };

// Where the first serial console goes.
struct ConsoleSpec {
  ConsoleKind kind = ConsoleKind::kStdio;
  std::string path;  // kFile only
  bool operator==(const ConsoleSpec&) const = default;
};

enum class PortKind { kPty, kFile, kSocket };

// Where the host's end of a virtio console is.
struct PortSpec {
  PortKind kind = PortKind::kPty;
  std::string path;  // of a file or a socket
  bool operator==(const PortSpec&) const = default;
};

// A console beside the serial one.
struct HvcSpec {
  PortSpec to;
  bool operator==(const HvcSpec&) const = default;
};

// A stream of bytes between a program of the guest and one of the host.
struct ChannelSpec {
  std::string name;    // as a machine's; no two have the same
  std::string socket;  // where the host's program connects
  bool operator==(const ChannelSpec&) const = default;
};

enum class DiskFormat { kRaw };

enum class DiskMode {
  kBlock,
  kPmem,  // memory of the guest, which reads and writes the host's own pages of the file
};

// What does a disk's work on the host.
// Whether the process that guests run in is locked in.
// When a container image is brought from where it comes from.
enum class PullMode { kMissing, kAlways, kNever };

// What is a guest's first program that has an image for a root.
enum class InitMode {
  kAgent,  // snug's agent, which runs the image's command
  kImage,  // the image's own
};

enum class TemplateMode {
  kAuto,   // from the third of a kind on
  kTrue,   // from the second on
  kFalse,  // never
};

enum class JailMode {
  kAuto,     // as far as the host allows
  kRequire,  // or not at all
  kOff,
};

enum class PciAccess {
  kEcam,   // Linux finds the bus in segment 1, to which only ECAM leads
  kPorts,  // in segment 0: by the ports 0xcf8 to 0xcff where it can
};

enum class DiskIo {
  kAuto,     // io_uring where the host has it, else threads
  kIoUring,  // that or nothing
  kThreads,
};

struct DiskSpec {
  std::string path;  // a file or a block device
  DiskFormat format = DiskFormat::kRaw;
  DiskMode mode = DiskMode::kBlock;
  bool readonly = false;
  bool ephemeral =
      false;            // the file stays as it is; what the guest writes is gone with it. Not with readonly
  bool direct = false;  // past the host's page cache
  std::string serial;   // what the guest reads as the disk's id: at most 20 bytes of [a-zA-Z0-9_.-]
  uint32_t queues = 1;  // 1 to 16
  uint32_t queue_size = 256;  // requests that fit into each: a power of two, 16 to 1024
  DiskIo io = DiskIo::kAuto;
  bool thread = false;  // its work gets a thread of its own
  bool operator==(const DiskSpec&) const = default;
};

enum class NetMode { kUser, kTap, kNone };

// Whether the kernel moves the frames of a tap interface by itself (vhost-net).
enum class VhostUse { kAuto, kOn, kOff };

// A port of the host that leads to one of the guest.
struct PortForward {
  std::string host_ip = "127.0.0.1";  // IPv4 or IPv6, valid
  uint16_t host_port = 0;             // 0: one that is free when the machine starts
  uint16_t guest_port = 0;            // not 0
  bool udp = false;
  uint16_t host_port_last = 0;  // above host_port: whichever is free from that to this
  bool operator==(const PortForward&) const = default;
};

using MacAddress = std::array<uint8_t, 6>;

// A network interface.
struct NetSpec {
  NetMode mode = NetMode::kUser;
  std::vector<PortForward> ports;    // at most 256
  bool host_loopback = false;        // the guest reaches the host's 127.0.0.1 at its gateway's address
  std::optional<MacAddress> mac;     // nothing: made from the machine's name
  uint32_t mtu = 0;                  // 576 to 65520; 0: the mode's own
  std::string tap;                   // kTap only: an interface's name, or "fd:N[:N...]"
  uint32_t queues = 1;               // pairs, 1 to 16; more than one for kTap only
  uint32_t queue_size = 256;         // frames that fit into each: a power of two, 16 to 1024
  VhostUse vhost = VhostUse::kAuto;  // kAuto, where the host can; something else for kTap only
  bool thread = false;               // its work gets a thread of its own
  bool operator==(const NetSpec&) const = default;
};

enum class VsockKind { kNone, kAuto, kPath };

// The unix socket that leads to the guest's sockets.
struct VsockSocket {
  VsockKind kind = VsockKind::kNone;
  std::string path;  // kPath only
  bool operator==(const VsockSocket&) const = default;
};

struct VsockSpec {
  VsockSocket socket;
  uint32_t cid = 3;  // 3 to 0xfffffffe: the guest's id; guests of other machines do not see it
  bool operator==(const VsockSpec&) const = default;
};

enum class ShareCacheMode { kAuto, kAlways, kNone };

// A folder or file of the host in the guest (virtio-fs).
struct ShareSpec {
  std::string source;  // absolute once loaded
  std::string target;  // absolute path in the guest; empty: nobody mounts it by itself
  std::string tag;     // 1 to 36 bytes; as loaded always set: given, or made ("share0", ...)
  bool readonly = false;
  ShareCacheMode cache = ShareCacheMode::kAuto;
  bool submounts = false;       // what is mounted below the source on the host is seen too
  std::optional<uint32_t> uid;  // the guest's user that files of the host's user belong to
  std::optional<uint32_t> gid;
  bool operator==(const ShareSpec&) const = default;
};

enum class MemoryLimitKind {
  kNone,
  kBeyondGuest,  // the guest's memory, and so much
  kAll,
};

struct MemoryLimit {
  MemoryLimitKind kind = MemoryLimitKind::kNone;
  uint64_t bytes = 0;  // whole pages of 4 KiB
  bool operator==(const MemoryLimit&) const = default;
};

// What the processes of a machine may take of the host, all together; nothing: no limit (vmm/spec/limits.h).
struct LimitsSpec {
  std::optional<uint32_t> cpu;  // thousandths of a processor's time: 10 to 1,024,000
  MemoryLimit memory;
  std::optional<uint32_t> io_weight;  // 1 to 10,000; what has none counts 100
  bool operator==(const LimitsSpec&) const = default;
};

// snug's own log.
struct LogSpec {
  LogLevel level = LogLevel::kWarn;
  std::string file;  // empty: stderr
  bool operator==(const LogSpec&) const = default;
};

// Nothing: no limit. Otherwise at least 1 ms.
using TimeLimit = std::optional<std::chrono::milliseconds>;

// Prepared images whose kernel, with what belongs to it, is named by a word in the place of a path.
inline constexpr std::array<std::string_view, 2> kKernelImages{"default", "stock"};

// Paths are absolute wherever the loader knew the folder they are relative to; all text is UTF-8 without
// control characters, but for what is the guest's: any bytes but zero.
struct Spec {
  std::string name = "snug";                     // [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}
  uint32_t cpus = 1;                             // 1 to 64
  uint64_t memory = uint64_t{256} << 20;         // bytes: 16 MiB to 1 TiB, whole pages of 4 KiB
  std::string kernel;                            // empty: none given; or a path, or one of kKernelImages
  bool kernel_cache = true;                      // keep the kernel ready to be mapped
  TemplateMode templates = TemplateMode::kAuto;  // begin where another of the kind stood
  bool kaslr = true;                             // random addresses for a kernel that can be moved
  std::vector<std::string> initrd;               // loaded one behind the other; at most 64
  std::string cmdline;                           // appended to snug's own defaults
  std::vector<DiskSpec> disks;                   // the guest sees them in this order; at most 16
  std::vector<NetSpec> net;                      // at most 8; the guest sees them in this order
  std::vector<ShareSpec> shares;                 // at most 16; the guest sees them in this order
  std::string image;                   // of a container, whose root and command the machine gets; empty: none
  PullMode pull = PullMode::kMissing;  // when it is brought from where it comes from
  InitMode init = InitMode::kAgent;    // its first program
  std::optional<uint64_t> storage;     // bytes of the disk on which its root is kept; nothing: it is not
  std::string root;  // a folder of the host's that is the guest's root, read-only below a layer; empty: none
  std::vector<PortForward> ports;  // of the first interface of mode user, besides its own
  bool publish_all = false;        // and every port that the image exposes
  VsockSpec vsock;
  bool rng = true;           // an entropy device
  bool packed_rings = true;  // offered by virtio devices
  PciAccess pci = PciAccess::kEcam;
  // A balloon, and the bytes that the guest is asked to give back at first: whole pages, less than memory.
  std::optional<uint64_t> balloon = 0;
  std::vector<std::string> command;  // lines for the guest's shell, run one after the other; at most 1024
  std::vector<std::string> env;      // NAME=VALUE, of those commands; at most 16384
  bool no_healthcheck = false;       // that of the image is left out
  std::string workdir;               // theirs, absolute; empty: the user's home
  std::string user;                  // NAME[:GROUP] or numbers; empty: root
  ConsoleSpec console;
  std::vector<HvcSpec> consoles;                      // the guest sees them as hvc0, hvc1, ...; at most 4
  std::vector<ChannelSpec> channels;                  // at most 15
  TimeLimit timeout;                                  // for the whole run
  TimeLimit boot_timeout;                             // from the first guest instruction to user space
  TimeLimit grace_period = std::chrono::seconds(10);  // between asking the guest to power off and killing it
  OnReboot on_reboot = OnReboot::kRestart;
  OnPanic on_panic = OnPanic::kExit;
  JailMode jail = JailMode::kAuto;
  LimitsSpec limits;
  LogSpec log;
  bool operator==(const Spec&) const = default;
};

}  // namespace snug
