// The host's ends of a machine: files, sockets and terminals, all opened before it boots. They stay open
// across the guest's resets, so that nothing of the spec is opened by name once it runs.
//
// Both processes have them (runner.h): the warden opens them, and at the end removes what has a name; the
// machine's process works with them. Thread: its loop's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/control/bounded_log.h"
#include "vmm/control/console_server.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/console.h"
#include "vmm/host/disk_file.h"
#include "vmm/host/host_port.h"
#include "vmm/host/kernel_store.h"
#include "vmm/host/tap.h"
#include "vmm/host/vsock_hub.h"
#include "vmm/machine/kernel_cache.h"
#include "vmm/machine/machine.h"
#include "vmm/run/command_session.h"
#include "vmm/run/guest_shares.h"
#include "vmm/run/handed_ends.h"
#include "vmm/run/saved_ends.h"
#include "vmm/run/share_server.h"
#include "vmm/run/warden_link.h"
#include "vmm/spec/spec.h"

namespace snug {

struct HostEnds {
  static constexpr const char* kOutputLog = "output.log";

  // Where they lead to.
  struct Options {
    const VmDirectory* directory = nullptr;  // the caller's; nullptr: the machine has none
    bool commands = false;                   // our streams are those of commands
    bool background = false;                 // our streams are nobody's
    std::function<void()> on_quit;           // Ctrl-A x was typed
  };

  // Kernel, initrds, taps, disks: some may be pipes that are waited for. `snapshot`: the folder of the one
  // that the machine begins with, and `saved` is of it; "": it boots. Errors: what the spec names is not
  // there, not to be had, or not what it should be.
  static Result<std::unique_ptr<HostEnds>> open(const Spec& spec, const std::string& snapshot = {});
  // Those of a machine that another process has run so far: nothing that its guest knows is opened by name.
  // Errors: what was handed is not what the spec says, or does not do here.
  static Result<std::unique_ptr<HostEnds>> adopt(const Spec& spec, HandedEnds& handed);
  // In place of open_streams().
  Result<void> adopt_streams(const Spec& spec, EventLoop& loop, const Options& options, HandedEnds& handed,
                             const std::string& handed_vsock_path);
  // What that process has told last, and what of it is of them. Errors: it cannot be read, or not be so.
  Result<StateReader> read_told() const;
  Result<void> restore(StateReader& told);
  // Before the next: a machine may begin with a template, or leave one behind.
  void open_template(const Spec& spec, MachineStarts starts);
  // Consoles, sockets and logs, once. Errors: the same.
  Result<void> open_streams(const Spec& spec, EventLoop& loop, const Options& options);

  // The process of the machine, before it is locked in: what was reached by name is asked of the warden from
  // now on, and no folder stays open.
  void go_behind(WardenLink& warden);
  // A machine of them, for one boot; without its networks.
  // Errors: a file that cannot be its memory any more.
  Result<MachineConfig> machine_config(const Spec& spec);
  // At the end: passes on what consoles still hold.
  void finish();

  std::optional<SavedEnds> saved;  // or it boots
  // Of a machine that goes on: what its interfaces have; none: what they are to have.
  std::vector<MacAddress> former_addresses;
  std::optional<TemplateEnds> templates;  // of a machine that may begin with one
  UniqueFd kernel;
  KernelStore kernel_store;
  KernelCache kernel_cache;
  std::vector<UniqueFd> initrds;
  std::vector<DiskFile> disks;
  std::vector<ShareEnd> shares;  // as the spec has them
  std::vector<NetSpec> nics;     // with every default, and the ports that were chosen
  std::map<size_t, Tap> taps;    // of those of mode tap, by index
  // Of a machine that another process has run so far: what its interfaces of mode user lead to, for one boot.
  struct HandedSocket {
    UniqueFd socket;
    std::vector<std::byte> half_way;  // NetBackend::half_way()
  };
  std::map<size_t, HandedSocket> handed_sockets;
  UniqueFd handed_ends;  // what read_told() reads
  std::unique_ptr<Console> console;
  std::unique_ptr<ConsoleServer> console_server;     // of one that has no stream of ours
  std::optional<BoundedLog> output_log;              // of commands, in the background
  CommandStreams command_streams;                    // of commands
  std::unique_ptr<VsockHub> vsock;                   // or none
  std::string vsock_path;                            // absolute; "": it has no unix socket
  std::vector<protocol::MountRequest> share_mounts;  // for the guest's agent
  std::vector<std::unique_ptr<HostPort>> consoles;   // as the spec has them
  std::vector<std::unique_ptr<HostPort>> channels;

 private:
  Result<void> open_boot_files(const Spec& spec);
  void open_kernel_store(const Spec& spec);
  Result<void> open_networks(const Spec& spec);
  Result<void> open_disks(const Spec& spec, const std::string& snapshot);
  Result<void> open_console(const Spec& spec, EventLoop& loop, const Options& options);
  // `listening`: of a process before; or none.
  Result<void> serve_console(EventLoop& loop, const VmDirectory& directory, UniqueFd listening = {});
  Result<void> open_vsock(const Spec& spec, EventLoop& loop, const Options& options);
  Result<void> open_ports(const Spec& spec, EventLoop& loop);
};

}  // namespace snug
