// The runner as its control interface sees it.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "vmm/machine/runner.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/network.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

// What the guest has told is as good as new for so long.
constexpr std::chrono::milliseconds kGuestAnswerLasts{100};

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// Resident bytes: of the whole process, and of guest RAM, which is what no child inherits (flag "dc").
VmUsage memory_in_use() {
  VmUsage usage;
  std::ifstream maps("/proc/self/smaps");
  uint64_t resident = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with("Rss:")) resident = std::stoull(line.substr(4)) * 1024;
    if (!line.starts_with("VmFlags:")) continue;
    usage.memory_bytes += resident;
    if ((line + " ").find(" dc ") != std::string::npos) usage.guest_memory_bytes += resident;
  }
  return usage;
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

VmInfo Runner::info() const {
  VmInfo info;
  info.name = spec_.name;
  info.state = run_state_name(machine_ ? machine_->state() : RunState::kStopping);
  info.pid = ::getpid();
  info.cpus = spec_.cpus;
  info.memory_bytes = spec_.memory;
  info.kernel = spec_.kernel;
  info.boots = report_.boots;
  info.started_at = std::chrono::system_clock::to_time_t(created_at_);
  info.uptime_seconds = std::chrono::duration<double>(std::chrono::system_clock::now() - created_at_).count();
  info.directory = options_.directory != nullptr ? options_.directory->path() : "";
  info.console = console_text(spec_.console, console_->pty_path(), console_server_ != nullptr);
  info.agent = agent_state();
  for (const NetSpec& nic : nics_)
    for (const PortForward& port : nic.ports) info.ports.push_back(detail::print_port(port));
  info.spec = effective_spec_yaml(spec_);
  return info;
}

VmUsage Runner::usage() const {
  VmUsage usage = memory_in_use();
  rusage times{};
  ::getrusage(RUSAGE_SELF, &times);
  usage.cpu_seconds = seconds_of(times.ru_utime) + seconds_of(times.ru_stime);
  if (const auto balloon = machine_ ? machine_->virtio().balloon() : std::nullopt) {
    usage.guest_total_bytes = balloon->stats.total;
    usage.guest_free_bytes = balloon->stats.free;
    usage.guest_available_bytes = balloon->stats.available;
    usage.balloon_bytes = balloon->size;
  }
  return usage;
}

bool Runner::ask_guest() {
  if (!machine_ || machine_->state() != RunState::kRunning) return false;
  if (!guest_has_answered()) return true;
  const auto now = std::chrono::steady_clock::now();
  if (now - guest_asked_ < kGuestAnswerLasts) return false;
  guest_asked_ = now;
  return machine_->virtio().refresh_balloon();
}

bool Runner::guest_has_answered() const {
  const auto balloon = machine_ ? machine_->virtio().balloon() : std::nullopt;
  return !balloon || !balloon->stats_awaited;
}

Result<void> Runner::pause() {
  if (!machine_ || machine_->state() != RunState::kRunning)
    return fail("{} is {}, not running", spec_.name, info().state);
  machine_->pause();
  return {};
}

Result<void> Runner::resume() {
  if (!machine_ || machine_->state() != RunState::kPaused)
    return fail("{} is {}, not paused", spec_.name, info().state);
  machine_->resume();
  set_guest_clock();
  return {};
}

Result<void> Runner::press_power_button() {
  if (!machine_) return fail("{} is between two boots", spec_.name);
  if (machine_->state() == RunState::kPaused)
    return fail("{} is paused: the guest would not notice; resume it first, or use stop", spec_.name);
  machine_->press_power_button();
  return {};
}

Result<void> Runner::stop(std::optional<std::chrono::milliseconds> grace) {
  if (!machine_) return fail("{} is between two boots", spec_.name);
  // As the signal: the command in the guest gets it.
  if (commands_under_way()) {
    if (machine_->state() == RunState::kPaused) machine_->resume();
    on_command_signal(SIGTERM);
    ending_grace_ = grace ? grace : spec_.grace_period;
    if (ending_grace_) grace_.arm(*ending_grace_);
    return {};
  }
  begin_ending(SIGTERM, grace ? grace : spec_.grace_period);
  return {};
}

void Runner::kill() { finish(RunState::kKilled, 128 + SIGKILL, "killed"); }

}  // namespace snug
