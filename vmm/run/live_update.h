// A new process for a machine that runs, in the place of the one that has run it so far: of the program as it
// is now, which may be newer. The warden's part.
//
// The warden starts that program with every descriptor that it needs, and papers (papers.h). It opens what is
// still to be opened, makes the process behind the wall, a child of the warden's like the one before, tells
// the warden of it and ends. That process waits until the machine stands still, takes it over, and the one
// before is killed. Until then that one can go on with the machine as if nothing had been.
//
// Nothing that the machine's process says chooses the program: it is the file Warden::kProgramFile in the
// machine's folder that names it, which only its user can write to, or else the one that runs.
//
// Thread: the warden's.
#pragma once

#include <sys/types.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/jail/process.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/warden_protocol.h"
#include "vmm/spec/spec.h"

namespace snug {

// What the warden knows of a machine whose process can be changed. All of it is the caller's.
struct Updatable {
  const Spec* spec = nullptr;  // complete
  int control = -1;            // the listening socket of its interface
  std::string cgroup;
  bool background = false;
};

// The process behind the wall, as the warden has it.
struct MachineEnds {
  pid_t pid = -1;
  UniqueFd process;   // its pidfd
  UniqueFd lifeline;  // open for as long as it is to run
  UniqueFd calls;     // our ends of its sockets
  UniqueFd news;
};

// What the program says to the warden that has started it, over a SOCK_SEQPACKET socket: kProcess and
// kLifeline, each with that descriptor, or kFailed.
enum class UpdateWord : uint32_t { kProcess = 1, kLifeline, kFailed };
struct UpdateTalk {
  uint32_t word = 0;
  int32_t pid = 0;  // of kProcess
};

class LiveUpdate {
 public:
  static constexpr const char* kProgramFile = "program";

  struct Given {
    const Updatable& machine;
    const HostEnds& ends;
    const VmDirectory& directory;
    bool commands = false;
    const std::map<uint64_t, UniqueFd>& sockets;  // of passt, by interface
  };
  // `arrived`: the process is there. `failed`: there will be none. One of them, once, on the loop; then only
  // file() and the destructor.
  struct Events {
    std::function<void(MachineEnds)> arrived;
    std::function<void(std::string why)> failed;
  };

  // `ram`: of the machine, or nothing: it gets a file for it. Errors: no such program; the host.
  static Result<std::unique_ptr<LiveUpdate>> begin(EventLoop& loop, Given given, UniqueFd ram, Events events);
  // Ends what has not arrived.
  ~LiveUpdate();
  LiveUpdate(const LiveUpdate&) = delete;
  LiveUpdate& operator=(const LiveUpdate&) = delete;

  // For the machine's process. Errors: none left.
  Result<UniqueFd> file(warden::UpdateFile which) const;
  // Errors: what keeps it from being started.
  Result<void> launch();
  bool launched() const { return launched_; }
  UniqueFd take_ram() { return std::move(ram_); }

 private:
  LiveUpdate(EventLoop& loop, Given given, Events events)
      : loop_(loop), given_(given), events_(std::move(events)) {}
  Result<Papers> papers() const;
  Result<void> start(const Papers& papers, std::array<UniqueFd, 3> theirs);
  void on_talk();
  void fail_with(std::string why);
  int reap();

  EventLoop& loop_;
  Given given_;
  Events events_;
  UniqueFd program_;
  std::string program_path_;
  UniqueFd state_, ram_, told_;
  bool launched_ = false;
  pid_t starter_ = -1;  // the program, until it has ended
  UniqueFd talk_;
  MachineEnds machine_;
  EventLoop::Watch watch_;  // ends before the socket
  EventLoop::Timer late_;
};

}  // namespace snug
