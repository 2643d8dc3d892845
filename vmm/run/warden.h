// The warden of a machine: the process that opened everything that has a name, and stays in front of the wall
// (runner.h). It passes signals on, keeps passt running, answers what the machine's process asks of it
// (warden_protocol.h), removes what has a name at the end, and ends that process when it ends itself.
//
// Nothing that the machine's process sends can do more than end the machine: that process may be the guest's.
//
// Thread: the one that calls run(), its only one.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/signals.h"
#include "vmm/host/user_network.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/live_update.h"
#include "vmm/run/run_report.h"
#include "vmm/run/share_server.h"
#include "vmm/run/warden_protocol.h"

namespace snug {

class Warden {
 public:
  using Machine = MachineEnds;
  struct Duties {
    HostEnds& ends;
    const VmDirectory* directory = nullptr;              // or none
    ShareServer* share_server = nullptr;                 // or none; the caller's
    bool commands = false;                               // it takes the signals of a command too
    std::function<void()> started;                       // the guest runs; may be empty
    std::function<void(const TimeLimit& grace)> ending;  // it was asked to power off; may be empty
    std::function<bool()> killed_for_memory;  // the kernel has killed for limits.memory; may be empty
    Updatable updatable;                      // of a machine with a directory; else none
  };

  static Result<std::unique_ptr<Warden>> create(Machine machine, Duties duties);
  // Kills the process when it is still there.
  ~Warden();

  // Returns when the process has ended. Errors: what the machine's set-up met.
  Result<MachineEnd> run();

  // One call, as it came; for tests too. False: it made no sense, and the machine is to end.
  bool answer(const warden::Call& call, const std::string& text);

 private:
  Warden(Machine machine, Duties duties) : machine_(std::move(machine)), duties_(std::move(duties)) {}
  // Of the process that is to take the machine's place: what it asks for is answered, or it is none.
  struct Next {
    Machine machine;
    std::optional<warden::Call> ready;  // it waits for the state
    EventLoop::Watch calls_watch;       // watches before what they watch
    EventLoop::Watch process_watch;
  };
  void on_calls();
  Result<void> begin_update(bool ram_is_given);
  void launch_update();
  bool hand_over(const warden::Call& call);
  void next_arrived(Machine machine);
  void on_next_calls();
  void answer_next(const warden::Call& call, const std::string& text);
  void next_takes_over(const warden::Call& call);
  void end_update(const std::string& why);
  void drop_next();
  Result<void> watch_machine();
  void on_signal(int number);
  void on_end();
  void stop_both();
  void tell(const warden::News& news, int descriptor = -1, std::string_view text = {});
  void signal_machine(int number) const;
  void end_machine(std::string why);
  std::string share_server_end();
  void remember_end(MachineEnd end);

  bool reply(const warden::Call& call, int error, uint64_t value = 0);
  bool reply(const warden::Call& call, Result<UniqueFd> asked);
  bool reply(const warden::Call& call, const Error& error);
  bool replied(int error);
  Result<UniqueFd> start_network(uint64_t index);
  Result<UniqueFd> next_log(uint64_t kind) const;
  Result<UniqueFd> kernel_file(warden::CallKind kind);

  Machine machine_;
  Duties duties_;
  std::unique_ptr<EventLoop> loop_;
  SignalWatch signals_;
  EndingWish wish_;
  unsigned wishes_ = 0;
  std::map<uint64_t, std::unique_ptr<UserNetwork>> networks_;  // by interface
  std::map<uint64_t, UniqueFd> sockets_;                       // of theirs, that the machine has, too
  UniqueFd ram_;                                               // of a machine that has been updated
  std::unique_ptr<LiveUpdate> update_;
  std::optional<Next> next_;
  std::optional<warden::Call> handed_over_;  // by the machine, which waits
  std::vector<warden::News> unheard_;        // told since then
  bool kernels_sealed_ = false;
  bool started_ = false;
  bool suspending_ = false;
  std::optional<Error> failure_;
  std::optional<MachineEnd> end_;
  std::optional<termios> terminal_;  // as it was
  EventLoop::Watch calls_watch_;
  EventLoop::Watch process_watch_;
  EventLoop::Watch share_server_watch_;
  EventLoop::Timer settled_;  // set-up is long over
  EventLoop::Timer suspend_late_;
  EventLoop::Timer end_late_;
  EventLoop::Timer machine_late_;
  EventLoop::Timer next_late_;
};

}  // namespace snug
