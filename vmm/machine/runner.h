// Runs a guest from its first boot to its end: boots, restarts after resets, keeps the time limits, turns
// signals into the power button, and says how it ended.
//
// Thread: run() owns the calling thread, which becomes the loop's. Call it before any other thread exists.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/console.h"
#include "vmm/machine/kernel_cache.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/signals.h"
#include "vmm/machine/user_network.h"
#include "vmm/spec/spec.h"

namespace snug {

// Exit statuses of `snug run` (README, "Exit status").
constexpr int kStatusPanic = 123;
constexpr int kStatusTimeout = 124;
constexpr int kStatusFailure = 125;

struct RunReport {
  RunState state = RunState::kFailed;
  int exit_status = kStatusFailure;
  std::string message;  // one line for a person, "" when there is nothing to say
  std::string detail;   // registers, console tail; several lines or ""
  ExitStats exits;      // of all boots together
  uint32_t boots = 0;
  uint64_t cpu_ns_at_first_run = 0;  // of the first boot
};

class Runner {
 public:
  // `spec` is complete: kernel and initrd are filled in.
  static Result<std::unique_ptr<Runner>> create(const kvm::Kvm& kvm, const Spec& spec);
  // Returns when the guest has ended. Errors: set-up of the first boot failed.
  Result<RunReport> run();

 private:
  Runner(const kvm::Kvm& kvm, const Spec& spec) : kvm_(kvm), spec_(spec) {}
  Result<void> open_inputs();
  Result<void> boot();
  Result<void> start_networks(MachineConfig& config);
  void stop_machine(RunState state);
  void restart();

  void on_guest_event(GuestEvent event, uint32_t value);
  void on_reset();
  void on_crash(const std::string& what, std::string detail);
  void on_vcpu_end(VcpuReport report);
  void on_signal(int number);
  void on_boot_timeout();
  void finish(RunState state, int exit_status, std::string message, std::string detail = {});
  std::string last_console_line();

  const kvm::Kvm& kvm_;
  const Spec& spec_;
  UniqueFd kernel_;
  KernelCache kernel_cache_;
  std::vector<UniqueFd> initrds_;
  struct Disk {
    UniqueFd fd;
    DiskConfig config;
  };
  std::vector<Disk> disks_;
  std::vector<NetSpec> nics_;
  std::unique_ptr<EventLoop> loop_;
  SignalWatch signals_;
  std::unique_ptr<Console> console_;
  EventLoop::Timer timeout_;
  EventLoop::Timer boot_timeout_;
  EventLoop::Timer grace_;
  std::vector<std::unique_ptr<UserNetwork>> networks_;  // of this boot
  std::unique_ptr<Machine> machine_;
  RunReport report_;
  bool finished_ = false;
  int ending_signal_ = 0;  // the signal that pressed the power button
  std::chrono::steady_clock::time_point ending_since_;
};

}  // namespace snug
