#include "vmm/run/guest_networks.h"

#include "vmm/base/log.h"

namespace snug {
namespace {

// passt's longest packet: frames that large cost both sides least.
constexpr uint32_t kUserMtu = 65520;

}  // namespace

Result<std::vector<NicConfig>> GuestNetworks::start() {
  users_.clear();
  ++boot_;
  std::vector<NicConfig> configs;
  for (size_t i = 0; i < nics_.size(); ++i) {
    const NetSpec& net = nics_[i];
    const auto tap = taps_.find(i);
    NicConfig nic;
    nic.device.name = fmt::format("net[{}]", i);
    nic.device.mac = *net.mac;
    nic.device.pairs = static_cast<uint16_t>(net.queues);
    nic.device.queue_size = static_cast<uint16_t>(net.queue_size);
    nic.thread = net.thread;
    // From any thread, with locks held.
    nic.device.broken = [this, i, boot = boot_] {
      loop_.post([this, i, boot] {
        if (devices_ != nullptr && boot_ == boot) on_broken(i);
      });
    };
    uint32_t mtu = net.mtu;
    if (tap != taps_.end()) {
      nic.device.control = true;
      nic.backend = SNUG_TRY(with_context(make_tap_backend(tap->second.files()), nic.device.name));
      if (mtu == 0) mtu = tap->second.mtu();
    } else {
      nic.backend = SNUG_TRY(with_context(start_user(i), nic.device.name));
      if (mtu == 0) mtu = kUserMtu;
    }
    nic.device.mtu = static_cast<uint16_t>(mtu);
    configs.push_back(std::move(nic));
  }
  return configs;
}

Result<std::unique_ptr<NetBackend>> GuestNetworks::start_user(size_t i) {
  UserNetwork::Events events;
  events.connected = [this, i](std::unique_ptr<NetBackend> backend) {
    if (devices_ == nullptr) return;
    if (auto connected = devices_->connect_nic(i, std::move(backend)); !connected)
      log_warn("net[{}]: {}", i, connected.error().text());
  };
  events.lost = [this, i] {
    if (devices_ != nullptr) devices_->disconnect_nic(i);
  };
  users_[i] = SNUG_TRY(UserNetwork::start(loop_, nics_[i], std::move(events)));
  return users_[i]->take_backend();
}

void GuestNetworks::on_broken(size_t i) {
  if (const auto user = users_.find(i); user != users_.end()) return user->second->give_up();
  log_warn("net[{}]: the interface {} is gone; the guest is without it", i, nics_[i].tap);
  devices_->disconnect_nic(i);
}

}  // namespace snug
