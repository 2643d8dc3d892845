#include "vmm/machine/vcpu_threads.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <array>

#include "vmm/base/assertion.h"
#include "vmm/base/log.h"
#include "vmm/kvm/vcpu_state.h"

namespace snug {
namespace {

int kick_signal() { return SIGRTMIN; }

uint64_t process_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
// clang 14 needs to be told.
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

}  // namespace

VcpuThreads::VcpuThreads(std::vector<std::unique_ptr<kvm::Vcpu>> vcpus, Environment environment)
    : environment_(std::move(environment)),
      coalesced_(vcpus.empty() ? nullptr : vcpus.front()->coalesced_ring()),
      workers_(vcpus.size()) {
  for (size_t i = 0; i < vcpus.size(); ++i) workers_[i].vcpu = std::move(vcpus[i]);
}

Result<void> VcpuThreads::start() {
  SNUG_ASSERT(!started_);
  // The handler does nothing: the signal's work is to make KVM_RUN return.
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kick_signal(), &action, nullptr);
  started_ = true;
  for (Worker& worker : workers_) {
    change_running(1);
    try {
      worker.thread = std::thread([this, &worker] {
        run(worker);
        change_running(-1);
      });
    } catch (const std::system_error& error) {
      change_running(-1);
      stop();
      return fail("thread for vCPU {}: {}", worker.vcpu->id(), error.what());
    }
  }
  // Threads are born parked: no vCPU can kick the others before all of them are there.
  resume();
  return {};
}

void VcpuThreads::change_running(int by) {
  // Notified with the lock held: the last to leave must not touch what stop() lets go of.
  std::lock_guard lock(mutex_);
  running_ += static_cast<size_t>(by);
  changed_.notify_all();
}

void VcpuThreads::command(Command command) {
  {
    std::lock_guard lock(mutex_);
    // A stop is final.
    if (command_ != Command::kStop) command_ = command;
  }
  changed_.notify_all();
  kick_all();
}

void VcpuThreads::kick_all() {
  for (Worker& worker : workers_) {
    worker.vcpu->request_exit();
    // Whoever kicks is outside the guest itself.
    const bool other = worker.thread.get_id() != std::this_thread::get_id();
    if (other && worker.thread.joinable()) ::pthread_kill(worker.thread.native_handle(), kick_signal());
  }
}

void VcpuThreads::pause() {
  command(Command::kPause);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return parked_ == workers_.size() || command_ == Command::kStop; });
  lock.unlock();
  handle_coalesced_writes();
}

void VcpuThreads::resume() {
  for (const Worker& worker : workers_) worker.vcpu->forgive_pause();
  command(Command::kRun);
}

void VcpuThreads::request_stop() { command(Command::kStop); }

void VcpuThreads::stop() {
  if (!started_) return;
  request_stop();
  {
    // A vCPU that ends kicks the others: their threads must be there to be kicked.
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return running_ == 0; });
  }
  for (Worker& worker : workers_)
    if (worker.thread.joinable()) worker.thread.join();
  // The last words of a guest that was stopped from outside.
  handle_coalesced_writes();
}

Result<void> VcpuThreads::save(const kvm::Vm& vm, StateWriter& state) const {
  std::vector<const kvm::Vcpu*> vcpus;
  for (const Worker& worker : workers_) vcpus.push_back(worker.vcpu.get());
  return kvm::save_vcpus(vm, vcpus, state);
}

std::string VcpuThreads::describe() const {
  std::string text;
  for (const Worker& worker : workers_)
    text += fmt::format("vCPU {}:\n{}\n", worker.vcpu->id(), describe(*worker.vcpu));
  return text;
}

ExitStats VcpuThreads::stats() const {
  ExitStats sum;
  for (const Worker& worker : workers_) sum.add(worker.stats);
  sum.coalesced_writes = coalesced_count_;
  return sum;
}

// Waits until the command is neither `until_not` nor, for a vCPU that has ended, anything but a stop.
void VcpuThreads::park(Worker& worker, Command until_not) {
  std::unique_lock lock(mutex_);
  ++parked_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return command_ == Command::kStop || (command_ != until_not && !worker.ended); });
  --parked_;
}

void VcpuThreads::run(Worker& worker) {
  ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", worker.vcpu->id()).c_str());
  // A kick must reach this thread even where whoever started us had blocked the signal.
  sigset_t kicks;
  ::sigemptyset(&kicks);
  ::sigaddset(&kicks, kick_signal());
  ::pthread_sigmask(SIG_UNBLOCK, &kicks, nullptr);
  if (environment_.thread_begins) environment_.thread_begins();
  bool entered = false;
  for (;;) {
    // The request is cleared before the command is read, and set after it is written: a command given
    // between the two makes the next entry return at once.
    worker.vcpu->clear_exit_request();
    const Command command = command_;
    if (command == Command::kStop) return;
    if (command == Command::kPause || worker.ended) {
      if (entered && !worker.ended) worker.vcpu->complete_access();
      park(worker, Command::kPause);
      continue;
    }
    if (!entered && worker.vcpu->id() == 0) cpu_ns_at_first_run_ = process_cpu_ns();
    entered = true;
    if (!handle(worker, worker.vcpu->run())) worker.ended = true;
  }
}

size_t VcpuThreads::handle_coalesced_writes() {
  const size_t count =
      coalesced_.drain([this](AddressSpace space, uint64_t address, std::span<const std::byte> data) {
        Bus& bus = space == AddressSpace::kPort ? environment_.ports : environment_.mmio;
        bus.write(address, data);
      });
  coalesced_count_ += count;
  return count;
}

bool VcpuThreads::handle(Worker& worker, kvm::Exit exit) {
  // Before each exit, so that devices see the guest's order.
  handle_coalesced_writes();
  const bool interrupted = std::holds_alternative<kvm::InterruptedExit>(exit);
  if (interrupted)
    ++worker.stats.interrupted;
  else
    ++worker.stats.by_reason[std::min(worker.vcpu->last_reason(), kvm::kExitReasons - 1)];
  return std::visit(
      Overloaded{
          [&](const kvm::PortExit& port) {
            port_access(worker, port);
            environment_.after_access();
            return true;
          },
          [&](const kvm::MmioExit& mmio) {
            mmio_access(worker, mmio);
            environment_.after_access();
            return true;
          },
          [&](kvm::InterruptedExit) {
            // By nobody here: the whole process was stopped for a time (SIGSTOP, a debugger, a frozen control
            // group). The guest learns of it before it runs on, as after a pause.
            if (!worker.vcpu->exit_requested()) worker.vcpu->forgive_pause();
            return true;
          },
          [&](kvm::HaltExit) {
            return end(worker, VcpuEnd::kFailure, "the CPU halted with no interrupt to wake it"), false;
          },
          [&](kvm::ShutdownExit) { return end(worker, VcpuEnd::kTripleFault, "triple fault"), false; },
          [&](kvm::ResetExit) { return end(worker, VcpuEnd::kReset, "reset"), false; },
          [&](kvm::PowerOffExit) { return end(worker, VcpuEnd::kPowerOff, "power-off"), false; },
          [&](kvm::FailureExit& failure) {
            return end(worker, VcpuEnd::kFailure, std::move(failure.what)), false;
          },
      },
      exit);
}

void VcpuThreads::port_access(Worker& worker, const kvm::PortExit& exit) {
  const bool write = exit.direction == kvm::Direction::kWrite;
  ExitStats::count(write ? worker.stats.port_writes : worker.stats.port_reads, exit.port);
  // INS and OUTS move several items through one port.
  for (size_t at = 0; at + exit.size <= exit.data.size(); at += exit.size) {
    const auto item = exit.data.subspan(at, exit.size);
    const bool claimed =
        write ? environment_.ports.write(exit.port, item) : environment_.ports.read(exit.port, item);
    if (!claimed)
      log_at(LogLevel::kTrace, "{} port {:#x}: no device", write ? "write to" : "read of", exit.port);
  }
}

void VcpuThreads::mmio_access(Worker& worker, const kvm::MmioExit& exit) {
  const bool write = exit.direction == kvm::Direction::kWrite;
  ExitStats::count(write ? worker.stats.mmio_writes : worker.stats.mmio_reads, exit.gpa);
  const bool claimed =
      write ? environment_.mmio.write(exit.gpa, exit.data) : environment_.mmio.read(exit.gpa, exit.data);
  if (!claimed)
    log_at(LogLevel::kTrace, "{} address {:#x}: no device", write ? "write to" : "read of", exit.gpa);
}

void VcpuThreads::end(Worker& worker, VcpuEnd end, std::string what) {
  environment_.on_end({end, worker.vcpu->id(), std::move(what), describe(*worker.vcpu)});
}

std::string VcpuThreads::describe(const kvm::Vcpu& vcpu) const {
  std::string text = vcpu.describe_registers();
  const auto at = vcpu.instruction_pointer();
  if (!at) return text;
  text += fmt::format("\ncode at {:#x}:", *at);
  const auto gpa = vcpu.translate(*at);
  std::array<std::byte, 16> bytes{};
  // Of RAM alone: where a file is memory, its pages may be what is missing.
  if (!gpa || !environment_.memory.contains(*gpa, bytes.size()) || !environment_.memory.read(*gpa, bytes))
    return text + " not in guest memory";
  for (const std::byte byte : bytes) text += fmt::format(" {:02x}", std::to_integer<unsigned>(byte));
  return text;
}

}  // namespace snug
