#include "vmm/run/machine_control.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <span>
#include <sstream>
#include <string>

#include "vmm/spec/describe.h"
#include "vmm/spec/limits.h"
#include "vmm/spec/network.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

// What the guest has told is as good as new for so long.
constexpr std::chrono::milliseconds kGuestAnswerLasts{100};

// Of all threads, those that have ended too.
double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

ssize_t read_at(int file, std::span<char> buffer, off_t at) {
  const iovec part{buffer.data(), buffer.size()};
  return ::preadv2(file, &part, 1, at, 0);
}

// From the start of a file of /proc.
void for_each_line(int file, const std::function<void(const std::string&)>& each) {
  std::array<char, 16384> buffer;
  std::string line;
  off_t at = 0;
  for (ssize_t count = 0; (count = read_at(file, buffer, at)) > 0; at += count) {
    for (const char c : std::string_view(buffer.data(), static_cast<size_t>(count))) {
      if (c != '\n') {
        line += c;
        continue;
      }
      each(line);
      line.clear();
    }
  }
}

// Resident bytes: of the whole process; of the guest's memory, which is what no child inherits (flag "dc");
// and of files that are memory of the guest, mapped to be shared ("ms"). RAM that a share server has as well
// is a file without a name.
VmUsage memory_in_use(int smaps) {
  VmUsage usage;
  uint64_t resident = 0;
  bool nameless = false;
  for_each_line(smaps, [&](const std::string& line) {
    // "7f0000000000-7f0000001000 rw-s ..."
    if (const size_t dash = line.find('-'); dash != std::string::npos && dash < line.find(' '))
      nameless = line.find(" /memfd:") != std::string::npos;
    if (line.starts_with("Rss:")) resident = std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
    if (!line.starts_with("VmFlags:")) return;
    usage.memory_bytes += resident;
    const auto has = [flags = line + " "](std::string_view flag) {
      return flags.find(fmt::format(" {} ", flag)) != std::string::npos;
    };
    if (!has("dc")) return;
    (has("ms") && !nameless ? usage.guest_shared_bytes : usage.guest_memory_bytes) += resident;
  });
  return usage;
}

std::string start_of(const UniqueFd& file) {
  std::array<char, 1024> buffer;
  const ssize_t count = read_at(file.get(), buffer, 0);
  return {buffer.data(), static_cast<size_t>(count > 0 ? count : 0)};
}

// proc(5): utime and stime, the 14th and 15th, in ticks. The name before may hold anything.
double cpu_seconds_of(const UniqueFd& stat) {
  const std::string text = start_of(stat);
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  constexpr int kBefore = 11;
  std::string field;
  for (int i = 0; i < kBefore; ++i) fields >> field;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

// proc(5), in pages: all that is resident is the second, and of it what is of files, and of memory that
// others have as well, the third.
struct Pages {
  uint64_t resident = 0, shared = 0;
};
Pages pages_of(const UniqueFd& statm) {
  std::istringstream fields(start_of(statm));
  uint64_t size = 0;
  Pages pages;
  fields >> size >> pages.resident >> pages.shared;
  return pages;
}

uint64_t bytes_of(uint64_t pages) { return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)); }

VmLimits limits_of(const Spec& spec) {
  VmLimits limits{.cpu = std::nullopt, .memory_bytes = memory_max(spec), .io_weight = spec.limits.io_weight};
  if (spec.limits.cpu) limits.cpu = *spec.limits.cpu / 1000.0;
  return limits;
}

std::optional<double> seconds(const std::optional<uint64_t>& microseconds) {
  if (!microseconds) return std::nullopt;
  return static_cast<double>(*microseconds) / 1e6;
}

// Of what there is a limit for.
void add_limits(const Spec& spec, const CgroupGauges& gauges, VmUsage& usage) {
  usage.limits = limits_of(spec);
  const auto reading = gauges.read();
  if (usage.limits.cpu) {
    usage.limited_cpu_seconds = seconds(reading.cpu_us);
    usage.cpu_periods = reading.periods;
    usage.throttled_periods = reading.throttled;
    usage.throttled_seconds = seconds(reading.throttled_us);
  }
  if (usage.limits.memory_bytes) {
    usage.limited_memory_bytes = reading.memory;
    usage.memory_hits = reading.memory_hit;
    usage.memory_kills = reading.killed;
  }
}

std::string console_text(const ConsoleSpec& console, const std::string& pty_path, bool served) {
  switch (console.kind) {
    case ConsoleKind::kStdio:
      return served ? "log" : "stdio";
    case ConsoleKind::kFile:
      return "file:" + console.path;
    case ConsoleKind::kPty:
      return "pty:" + pty_path;
    case ConsoleKind::kNone:
      break;
  }
  return "none";
}

}  // namespace

Result<FrontFiles> FrontFiles::open(const std::string& cgroup, pid_t warden, pid_t share_server) {
  const auto process = [](const std::string& which) -> Result<Process> {
    Process files;
    files.stat = SNUG_TRY(open_file("/proc/" + which + "/stat", O_RDONLY));
    files.statm = SNUG_TRY(open_file("/proc/" + which + "/statm", O_RDONLY));
    return files;
  };
  FrontFiles files;
  files.warden = SNUG_TRY(process(std::to_string(warden)));
  if (share_server >= 0) files.share_server = SNUG_TRY(process(std::to_string(share_server)));
  files.cgroup = cgroup;
  if (!cgroup.empty()) files.gauges = CgroupGauges::open(cgroup);
  return files;
}

VmInfo MachineControl::info() const {
  const Machine* machine = life_.machine();
  VmInfo info;
  info.name = spec_.name;
  info.state = run_state_name(machine != nullptr ? machine->state() : RunState::kStopping);
  info.pid = own_.pid;
  info.cpus = spec_.cpus;
  info.memory_bytes = spec_.memory;
  info.kernel = spec_.kernel;
  info.boots = life_.boots();
  info.started_at = static_cast<std::time_t>(own_.created_at);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  info.uptime_seconds = std::chrono::duration<double>(now).count() - static_cast<double>(own_.created_at);
  info.program = own_.program;
  info.updates = life_.updates();
  info.update_seconds = life_.update_seconds();
  info.directory = directory_.path();
  info.console = console_text(spec_.console, ends_.console->pty_path(), ends_.console_server != nullptr);
  info.agent = life_.agent_state();
  if (const HealthCheck* health = life_.health()) {
    const HealthState& state = health->state();
    info.health = VmHealth{health_word(state.word), state.failures, state.last_status, state.last_output};
  }
  info.vsock = ends_.vsock_path;
  for (const NetSpec& nic : ends_.nics)
    for (const PortForward& port : nic.ports) info.ports.push_back(detail::print_port(port));
  for (const ShareSpec& share : spec_.shares) info.shares.push_back(share_info(share));
  info.jail = spec_.jail == JailMode::kOff ? "off" : own_.jail_missing.empty() ? "complete" : "partial";
  info.jail_missing = own_.jail_missing;
  info.limits = limits_of(spec_);
  info.cgroup = own_.front.cgroup;
  info.spec = effective_spec_yaml(spec_);
  return info;
}

VmShare MachineControl::share_info(const ShareSpec& share) const {
  VmShare info{.tag = share.tag,
               .source = share.source,
               .target = share.target,
               .readonly = share.readonly,
               .state = {},
               .why = {}};
  const auto outcome = life_.share_outcome(share.tag);
  if (share.target.empty())
    info.state = "offered";
  else if (!outcome)
    info.state = "awaited";
  else
    info.state = outcome->empty() ? "mounted" : "failed";
  if (outcome) info.why = *outcome;
  return info;
}

VmUsage MachineControl::usage() const {
  VmUsage usage = memory_in_use(own_.smaps.get());
  const FrontFiles& front = own_.front;
  usage.cpu_seconds = cpu_seconds() + cpu_seconds_of(front.warden.stat);
  usage.memory_bytes += bytes_of(pages_of(front.warden.statm).resident);
  if (front.share_server.stat) {
    usage.cpu_seconds += cpu_seconds_of(front.share_server.stat);
    // Guest memory is counted, and so is the program.
    const Pages pages = pages_of(front.share_server.statm);
    usage.memory_bytes += bytes_of(pages.resident - std::min(pages.shared, pages.resident));
  }
  if (!front.cgroup.empty()) add_limits(spec_, front.gauges, usage);
  if (const auto status = balloon()) {
    usage.guest_total_bytes = status->stats.total;
    usage.guest_free_bytes = status->stats.free;
    usage.guest_available_bytes = status->stats.available;
    usage.balloon_bytes = status->size;
  }
  return usage;
}

std::optional<BalloonStatus> MachineControl::balloon() const {
  return life_.machine() != nullptr ? life_.machine()->virtio().balloon() : std::nullopt;
}

bool MachineControl::ask_guest() {
  Machine* machine = life_.machine();
  if (machine == nullptr || machine->state() != RunState::kRunning) return false;
  if (!guest_has_answered()) return true;
  const auto now = std::chrono::steady_clock::now();
  if (now - guest_asked_ < kGuestAnswerLasts) return false;
  guest_asked_ = now;
  return machine->virtio().refresh_balloon();
}

bool MachineControl::guest_has_answered() const {
  const auto status = balloon();
  return !status || !status->stats_awaited;
}

Result<void> MachineControl::pause() {
  Machine* machine = life_.machine();
  if (machine == nullptr || machine->state() != RunState::kRunning)
    return fail("{} is {}, not running", spec_.name, info().state);
  machine->pause();
  return {};
}

Result<void> MachineControl::resume() {
  Machine* machine = life_.machine();
  if (machine == nullptr || machine->state() != RunState::kPaused)
    return fail("{} is {}, not paused", spec_.name, info().state);
  life_.resume();
  return {};
}

Result<void> MachineControl::press_power_button() {
  Machine* machine = life_.machine();
  if (machine == nullptr) return fail("{} is between two boots", spec_.name);
  if (machine->state() == RunState::kPaused)
    return fail("{} is paused: the guest would not notice; resume it first, or use stop", spec_.name);
  machine->press_power_button();
  return {};
}

Result<void> MachineControl::stop(std::optional<std::chrono::milliseconds> grace) {
  if (life_.machine() == nullptr) return fail("{} is between two boots", spec_.name);
  life_.stop(grace ? grace : spec_.grace_period);
  return {};
}

void MachineControl::snapshot(SnapshotFiles files, std::function<void(Result<SnapshotTaken>)> done) {
  life_.snapshot(std::move(files), std::move(done));
}

Result<void> MachineControl::send(SnapshotFiles files, SendingEnds ends) {
  return life_.send(std::move(files), std::move(ends));
}

void MachineControl::kill() { life_.finish(RunState::kKilled, 128 + SIGKILL, "killed"); }

}  // namespace snug
