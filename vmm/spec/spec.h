// What to run: every setting of a machine, typed and checked. A plain value without a relation to YAML, flags
// or files; see load.h for how one is made and key_table.cpp for the keys behind the fields.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
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

enum class DiskFormat { kRaw };

struct DiskSpec {
  std::string path;  // a file or a block device
  DiskFormat format = DiskFormat::kRaw;
  bool readonly = false;
  std::string serial;   // what the guest reads as the disk's id: at most 20 bytes of [a-zA-Z0-9_.-]
  uint32_t queues = 1;  // 1 to 16
  bool operator==(const DiskSpec&) const = default;
};

enum class NetMode { kUser, kNone };

// A port of the host that leads to one of the guest.
struct PortForward {
  std::string host_ip = "127.0.0.1";  // IPv4 or IPv6, valid
  uint16_t host_port = 0;             // not 0, as is guest_port
  uint16_t guest_port = 0;
  bool udp = false;
  bool operator==(const PortForward&) const = default;
};

using MacAddress = std::array<uint8_t, 6>;

// A network interface.
struct NetSpec {
  NetMode mode = NetMode::kUser;
  std::vector<PortForward> ports;  // at most 256
  bool host_loopback = false;      // the guest reaches the host's 127.0.0.1 at its gateway's address
  std::optional<MacAddress> mac;   // nothing: made from the machine's name
  uint32_t mtu = 0;                // 576 to 65520; 0: the mode's own
  bool operator==(const NetSpec&) const = default;
};

// snug's own log.
struct LogSpec {
  LogLevel level = LogLevel::kWarn;
  std::string file;  // empty: stderr
  bool operator==(const LogSpec&) const = default;
};

// Nothing: no limit. Otherwise at least 1 ms.
using TimeLimit = std::optional<std::chrono::milliseconds>;

// Paths are absolute wherever the loader knew the folder they are relative to; all text is UTF-8 without
// control characters.
struct Spec {
  std::string name = "snug";              // [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}
  uint32_t cpus = 1;                      // 1 to 64
  uint64_t memory = uint64_t{256} << 20;  // bytes: 16 MiB to 1 TiB, whole pages of 4 KiB
  std::string kernel;                     // empty: none given
  bool kernel_cache = true;               // keep the kernel ready to be mapped
  std::vector<std::string> initrd;        // loaded one behind the other; at most 64
  std::string cmdline;                    // appended to snug's own defaults
  std::vector<DiskSpec> disks;            // the guest sees them in this order; at most 16
  std::vector<NetSpec> net;               // at most 8; the guest sees them in this order
  std::vector<PortForward> ports;         // of the first interface of mode user, besides its own
  bool rng = true;                        // an entropy device
  ConsoleSpec console;
  TimeLimit timeout;                                  // for the whole run
  TimeLimit boot_timeout;                             // from the first guest instruction to user space
  TimeLimit grace_period = std::chrono::seconds(10);  // between asking the guest to power off and killing it
  OnReboot on_reboot = OnReboot::kRestart;
  OnPanic on_panic = OnPanic::kExit;
  LogSpec log;
  bool operator==(const Spec&) const = default;
};

}  // namespace snug
