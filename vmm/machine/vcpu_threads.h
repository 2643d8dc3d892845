// The vCPU threads and the one way to stop the world: a command that all of them obey between two entries of
// the guest, made known by a kick that cannot get lost (immediate_exit first, then a signal).
//
// Thread: create, start, pause, resume, stop on the loop's thread; request_stop() from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/bus.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/state.h"
#include "vmm/kvm/coalesced_writes.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine/exit_stats.h"

namespace snug {

// Why a vCPU cannot go on by itself.
enum class VcpuEnd { kTripleFault, kReset, kPowerOff, kFailure };

struct VcpuReport {
  VcpuEnd end;
  uint32_t vcpu;
  std::string what;    // one line
  std::string detail;  // registers and the faulting bytes, several lines
};

class VcpuThreads {
 public:
  struct Environment {
    Bus& ports;
    Bus& mmio;
    const GuestMemory& memory;
    // Called on the vCPU's thread after each access has been handled, with no lock held.
    std::function<void()> after_access;
    // Called on the vCPU's thread, once per vCPU at most; must not block. The vCPU stays parked afterwards.
    std::function<void(VcpuReport)> on_end;
    // What each thread does first; may be empty.
    std::function<void()> thread_begins = {};
  };

  VcpuThreads(std::vector<std::unique_ptr<kvm::Vcpu>> vcpus, Environment environment);
  ~VcpuThreads() { stop(); }  // joins
  VcpuThreads(const VcpuThreads&) = delete;

  // Installs the kick signal's handler, starts one thread per vCPU, and lets them run.
  Result<void> start();
  // Returns when every vCPU is parked outside the guest, its last access finished.
  void pause();
  void resume();
  // Handles the port writes that KVM has kept back until now; returns how many. From any thread.
  size_t handle_coalesced_writes();
  // Asks all vCPUs to leave for good, without waiting.
  void request_stop();
  // request_stop() and join. Idempotent.
  void stop();

  // While paused: a section for each (vmm/kvm/vcpu_state.h).
  Result<void> save(const kvm::Vm& vm, StateWriter& state) const;

  // After stop(): where each vCPU was, registers and code bytes, several lines.
  std::string describe() const;
  // After stop().
  ExitStats stats() const;
  // CPU time of the whole process when vCPU 0 entered the guest first; 0 before.
  uint64_t cpu_ns_at_first_run() const { return cpu_ns_at_first_run_; }

 private:
  enum class Command : uint8_t { kRun, kPause, kStop };
  struct Worker {
    std::unique_ptr<kvm::Vcpu> vcpu;
    ExitStats stats;
    bool ended = false;  // its thread only
    std::thread thread;
  };

  void command(Command command);
  void kick_all();
  void change_running(int by);
  void run(Worker& worker);
  void park(Worker& worker, Command until_not);
  // False when the vCPU cannot go on.
  bool handle(Worker& worker, kvm::Exit exit);
  void port_access(Worker& worker, const kvm::PortExit& exit);
  void mmio_access(Worker& worker, const kvm::MmioExit& exit);
  void end(Worker& worker, VcpuEnd end, std::string what);
  std::string describe(const kvm::Vcpu& vcpu) const;

  Environment environment_;
  std::atomic<Command> command_ = Command::kPause;
  std::atomic<uint64_t> cpu_ns_at_first_run_ = 0;
  std::mutex mutex_;  // guards parked_, running_, and command_ changes that parked threads wait for
  std::condition_variable changed_;
  size_t parked_ = 0;
  size_t running_ = 0;  // threads that may still kick others: nothing is joined before it is 0
  bool started_ = false;
  std::atomic<uint64_t> coalesced_count_ = 0;
  kvm::CoalescedWrites coalesced_;  // in the run area of the first vCPU
  std::vector<Worker> workers_;     // last: threads go before what they use
};

}  // namespace snug
