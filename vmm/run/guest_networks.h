// What is behind the network interfaces of a machine: taps, which stay from boot to boot, and passt
// processes, of which each boot has its own, for connections do not outlive the guest that held them. The
// processes are the warden's; what is here is their sockets.
//
// Thread: the loop's.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/tap.h"
#include "vmm/machine/virtio_devices.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/warden_link.h"
#include "vmm/spec/spec.h"

namespace snug {

class GuestNetworks {
 public:
  // All of it is the caller's and outlives this.
  GuestNetworks(EventLoop& loop, HostEnds& ends, WardenLink& warden)
      : loop_(loop), nics_(ends.nics), taps_(ends.taps), handed_(ends.handed_sockets), warden_(warden) {}

  // For a new boot: what its interfaces are. Errors: those of UserNetwork::start(), with the interface's
  // name.
  // Those of mode tap lack their backends.
  Result<std::vector<NicConfig>> start();
  // Gives them theirs; in the process, and on the thread, that makes the machine.
  Result<void> add_taps(std::vector<NicConfig>& configs) const;
  // The devices of that boot have been made; before it ends: stop().
  void attach(VirtioDevices& devices) { devices_ = &devices; }
  void detach();
  // The guest goes on under other hardware addresses than before in those interfaces: for it they lead into
  // another network, so the cable of each tap is out until plug_in_soon(), and whoever has asked for its
  // addresses by DHCP asks anew. Networks of mode user are each machine's own, and are as they were.
  void pull_out(const std::vector<size_t>& indexes);
  // The guest has heard of all that it is to know before. (Without this call: after some seconds.)
  void plug_in_soon();
  // Ends the processes. Nothing uses their sockets any more, or not for long.
  void stop();
  // Of an interface of mode user.
  void on_connected(size_t index, UniqueFd socket);
  void on_lost(size_t index);

 private:
  void on_broken(size_t index);
  Result<std::unique_ptr<NetBackend>> user_backend(size_t index);
  void plug_in();

  EventLoop& loop_;
  const std::vector<NetSpec>& nics_;
  const std::map<size_t, Tap>& taps_;
  std::map<size_t, HostEnds::HandedSocket>& handed_;
  WardenLink& warden_;
  VirtioDevices* devices_ = nullptr;  // of this boot
  uint32_t boot_ = 0;
  std::vector<size_t> pulled_out_;
  EventLoop::Timer plug_in_;
};

}  // namespace snug
