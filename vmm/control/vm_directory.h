// The directory of a machine: where it can be found by name while it runs, and what is left of it afterwards.
//
//   NAME/lock          held (flock) by the machine's process for as long as it lives; holds its pid as text
//   NAME/control.sock  the control interface (control_server.h)
//   NAME/spec.yaml     the spec as it runs, every default filled in
//   NAME/console.log   what the guest has printed, of a machine that runs in the background or for a command
//   NAME/output.log    what the commands have printed for which it runs in the background
//   NAME/*.log.before  the same of the machine of that name before this one
//   NAME/cgroup        where the control group is that was made for it, which goes with it
//   NAME/keep          the directory outlives its machine, until `snug rm`
//   NAME/exit.json     how the machine ended
//
// A machine is alive when its lock is held; a pid is only shown, never trusted. What a killed machine has
// left behind is recognised by the free lock, and cleaned up by the next command.
//
// Thread: any, one at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

// Where machines of this user may be, the best place first: /tmp/snug-UID, and /run/user/UID/snug while that
// folder of the session is there. The session's comes and goes, and what is in it with it, while machines go
// on; so it serves only when the other is not to be had (tmux has its sockets in /tmp for the same reason).
// XDG_RUNTIME_DIR, when it is another folder, is the only place: whoever sets it wants to be apart. One that
// is not there, or is another user's (su, sudo -E), is passed over.
std::vector<std::string> machine_places();
// The same with other roots than "/run/user/UID" and "/tmp/snug-UID". `runtime`: of the environment, may be
// null.
std::vector<std::string> machine_places(const char* runtime, const std::string& session,
                                        const std::string& lasting);

// The first of the places that can be made, with mode 0700 when it is not there. Errors: there is none that
// belongs to this user and that others may not write to.
Result<std::string> machines_folder(const std::vector<std::string>& places = machine_places());

enum class Keep { kNo, kYes };

// Of a machine that this process runs.
class VmDirectory {
 public:
  // Takes the name, and keeps the folder from those who clean /tmp of what is old (systemd-tmpfiles(8) passes
  // over a folder that is locked). What an earlier machine of that name has left is replaced, but for its
  // logs, which are those before. Errors: a machine of that name runs, in whichever place; the file system.
  static Result<VmDirectory> create(const std::string& name, Keep keep,
                                    const std::vector<std::string>& places = machine_places());
  // For a process that another one, which has made it, has started. Nothing of it goes when this ends.
  // Errors: it is not there.
  static Result<VmDirectory> of_another(const std::string& path, Keep keep);
  VmDirectory(VmDirectory&&) noexcept = default;
  VmDirectory& operator=(VmDirectory&&) = delete;
  // Removes the directory, unless it is to be kept and an end has been recorded.
  ~VmDirectory();

  const std::string& name() const { return name_; }
  const std::string& path() const { return path_; }
  int fd() const { return directory_.get(); }
  Keep keep() const { return keep_; }

  Result<void> write_file(const std::string& file, const std::string& text) const;
  // A control group is about to be made, which is removed before the directory says no more of it, by whoever
  // cleans up.
  Result<void> remember_cgroup(const std::string& folder) const;
  // A listening, non-blocking unix socket with mode 0600. However long the path is.
  Result<UniqueFd> listen(const std::string& file) const;
  // For a process that only writes to what is open already; the folder stays another's. No more functions of
  // this object than name(), path() and keep() from now on.
  void leave();
  // Written for those who ask later.
  void record_end(int exit_status, const std::string& message) const;

 private:
  VmDirectory() = default;
  Result<void> check_other_places(const std::vector<std::string>& places);
  Result<void> take_over() const;

  std::string name_;
  std::string path_;
  Keep keep_ = Keep::kNo;
  UniqueFd directory_;
  UniqueFd lock_;
};

// A machine seen from outside.
struct FoundVm {
  std::string name;
  std::string path;
  bool alive = false;
  int pid = 0;                     // as its lock file says; 0: unknown
  std::optional<int> exit_status;  // of one that has ended and said so
  std::string end_message;
};

// By name, of all places; nothing is made. What dead machines have left is removed on the way, unless it is
// to be kept. Errors: a place cannot be read.
Result<std::vector<FoundVm>> list_machines(const std::vector<std::string>& places = machine_places());
// Errors: no such name; says which there are.
Result<FoundVm> find_machine(const std::string& name,
                             const std::vector<std::string>& places = machine_places());
// Errors: it is alive; the file system.
Result<void> remove_machine(const FoundVm& vm);
// Waits until the machine has ended. False when it took longer.
bool wait_for_end(const FoundVm& vm, std::optional<int> timeout_ms);

// A connection to a unix socket in a machine's directory, blocking.
Result<UniqueFd> connect_to(const FoundVm& vm, const std::string& file);

// A name that no machine has: "PREFIX-xxxxxx".
std::string unused_name(const std::string& prefix);

}  // namespace snug
