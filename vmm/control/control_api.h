// The control interface of a machine: what can be asked of it, and the answers. HTTP and JSON, described by
// openapi.json beside this file, which a test holds against the table of routes here.
//
// Thread: the loop's. Whoever may open the socket (mode 0600) may do all of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/http.h"

namespace snug {

// What a machine may take of the host; nothing: no limit.
struct VmLimits {
  std::optional<double> cpu;             // processors' worth of time
  std::optional<uint64_t> memory_bytes;  // of all its processes, guest memory included
  std::optional<uint32_t> io_weight;
};

// A folder or file of the host in the guest.
struct VmShare {
  std::string tag;     // by which a guest mounts it
  std::string source;  // on the host
  std::string target;  // where the agent mounts it; "": nowhere
  bool readonly = false;
  // In this boot: "mounted", "awaited", "failed"; "offered", to the guest to mount it itself.
  std::string state;
  std::string why;  // it has failed
};

// Whether what runs in the guest is well, by a command that is run again and again.
struct VmHealth {
  std::string state;               // "starting", "healthy", "unhealthy"
  uint32_t failures = 0;           // in a row
  std::optional<int> last_status;  // of the last one that has ended by itself
  std::string last_output;         // or why there is no status
};

// What a machine says of itself.
struct VmInfo {
  std::string name;
  std::string state;  // "running", "paused", ...
  int pid = 0;
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;
  std::string kernel;
  uint32_t boots = 0;
  std::string program;                   // the version of the program that runs it now
  uint32_t updates = 0;                  // how many processes it has had before
  std::optional<double> update_seconds;  // how long it stood still for the last of these changes
  int64_t started_at = 0;                // seconds since 1970
  double uptime_seconds = 0;             // since the monitor started
  std::string directory;                 // of its sockets and logs
  std::string console;                   // "stdio", "log", "file:PATH", "pty:PATH", "none"
  // Of the agent in the guest: "ready", has called in this boot; "awaited", has not yet; "silent", has not in
  // the time there is for it; "none", the machine has no socket device.
  std::string agent;
  std::optional<VmHealth> health;  // nothing: nobody looks
  std::string vsock;               // the unix socket that leads to the guest's sockets, absolute; "": none
  std::vector<std::string> ports;  // published, as the spec writes them
  std::vector<VmShare> shares;
  // Of the machine's process: "complete", "partial" or "off"; and the steps that the host has refused.
  std::string jail;
  std::vector<std::string> jail_missing;
  VmLimits limits;
  std::string cgroup;  // the folder of its control group; "": it has no limits
  std::string spec;    // YAML, every default filled in
};

struct VmUsage {
  double cpu_seconds = 0;           // of the machine's processes, guest time included; not of passt
  uint64_t memory_bytes = 0;        // resident, of the same, guest memory included once
  uint64_t guest_memory_bytes = 0;  // of that, what the guest has touched of its own
  uint64_t guest_shared_bytes = 0;  // and of files that are its memory: the host's, whoever else has them
  // What the guest has told of its memory (ControlTarget::ask_guest()); nothing: it tells none.
  std::optional<uint64_t> guest_total_bytes, guest_free_bytes, guest_available_bytes, balloon_bytes;
  // Of a machine with limits, and what its control group has used of them, passt included.
  VmLimits limits;
  std::optional<double> limited_cpu_seconds, throttled_seconds;
  std::optional<uint64_t> cpu_periods, throttled_periods;  // of 100 ms each
  std::optional<uint64_t> limited_memory_bytes;  // pages of files that it has read or written included
  std::optional<uint64_t> memory_hits;   // it was at its limit, and the kernel took back what it could
  std::optional<uint64_t> memory_kills;  // processes
};

// Where a snapshot goes: files of whoever asks, empty and open for writing.
struct SnapshotFiles {
  UniqueFd state;
  UniqueFd memory;
  std::vector<UniqueFd> disks;  // one for each that the guest may write to, in the order of the spec
  // For others to begin with, who have disks and shares of their own: there are no files of disks, and it is
  // refused unless the guest has written to none of them and has mounted no share.
  bool untouched = false;
};
// What comes besides, of whoever sends the machine to another place (send_talk.h).
struct SendingEnds {
  UniqueFd pages;  // a file, for which pages of the memory a round has written: a bit for each
  UniqueFd talk;   // connected, SOCK_SEQPACKET
};
// One that was taken.
struct SnapshotTaken {
  uint64_t state_bytes = 0;
  double paused_seconds = 0;  // that the guest stood still for it
  uint64_t disk_bytes = 0;    // that were copied of disks, because no blocks could be shared
  std::string commands;       // JSON, of what the machine is started for, as it stands; "": for nothing
};

// The machine, as the interface sees it.
class ControlTarget {
 public:
  virtual ~ControlTarget() = default;
  virtual VmInfo info() const = 0;
  virtual VmUsage usage() const = 0;
  // Asks the guest for the part of its usage that only it knows. False: there is no answer to wait for.
  virtual bool ask_guest() = 0;
  virtual bool guest_has_answered() const = 0;
  // Errors: not in a state for it.
  virtual Result<void> pause() = 0;
  virtual Result<void> resume() = 0;
  virtual Result<void> press_power_button() = 0;
  // The power button, and a hard stop when the guest takes longer than `grace`; nothing: the spec's.
  virtual Result<void> stop(std::optional<std::chrono::milliseconds> grace) = 0;
  virtual void kill() = 0;
  // `done`: once, now or later, on the loop. Errors: not in a state for it; what cannot be saved; the files.
  virtual void snapshot(SnapshotFiles files, std::function<void(Result<SnapshotTaken>)> done) = 0;
  // Begins it; the rest is said over `ends`. Errors: as of snapshot().
  virtual Result<void> send(SnapshotFiles files, SendingEnds ends) = 0;
  // A new process takes the place of this one, which is killed then; or `failed` is told why it does not.
  virtual void update(std::function<void(Error)> failed) = 0;
};

struct ControlAnswer {
  int status = 200;
  std::string json;
  bool waits = false;  // nothing yet: the answer is how the machine ends
};

// One row of the interface.
struct ControlRoute {
  std::string_view method;
  std::string_view path;
  ControlAnswer (*handle)(ControlTarget& target, const HttpRequest& request);
  bool asks_guest = false;   // it had better be asked before
  bool takes_files = false;  // descriptors come with the request; see begin_with_files()
};
std::span<const ControlRoute> control_routes();

// Whether the answer wants ControlTarget::ask_guest() before it.
bool asks_guest(const HttpRequest& request);
ControlAnswer answer_control_request(ControlTarget& target, const HttpRequest& request);
// Whether it is one for begin_with_files().
bool takes_files(const HttpRequest& request);
// `answer`: once, now or later, unless what this returns is the answer. `files`: what came with the request.
std::optional<ControlAnswer> begin_with_files(ControlTarget& target, const HttpRequest& request,
                                              std::vector<UniqueFd> files,
                                              std::function<void(ControlAnswer)> answer);
// {"error": TEXT}
ControlAnswer control_error(int status, const std::string& text);
// The answer to those who wait.
std::string control_end_json(int exit_status, const std::string& message);

}  // namespace snug
