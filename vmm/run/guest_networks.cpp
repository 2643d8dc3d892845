#include "vmm/run/guest_networks.h"

#include <chrono>
#include <utility>

#include "vmm/base/log.h"

namespace snug {
namespace {

// passt's longest packet: frames that large cost both sides least.
constexpr uint32_t kUserMtu = 65520;
// A guest looks at its cables when it gets to it, and sees nothing of one that was out for less.
constexpr std::chrono::milliseconds kOutAtLeast{200};
// A guest whose agent has gone gets its network back all the same.
constexpr std::chrono::seconds kOutAtMost{10};

}  // namespace

Result<std::vector<NicConfig>> GuestNetworks::start() {
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
      if (mtu == 0) mtu = tap->second.mtu();
    } else {
      nic.backend = SNUG_TRY(with_context(user_backend(i), nic.device.name));
      if (mtu == 0) mtu = kUserMtu;
    }
    nic.device.mtu = static_cast<uint16_t>(mtu);
    configs.push_back(std::move(nic));
  }
  return configs;
}

// A passt that is at work already stays so.
Result<std::unique_ptr<NetBackend>> GuestNetworks::user_backend(size_t i) {
  auto handed = handed_.extract(i);
  if (handed && handed.mapped().socket)
    return continue_stream_backend(std::move(handed.mapped().socket), handed.mapped().half_way);
  return make_stream_backend(SNUG_TRY(warden_.start_network(i)));
}

Result<void> GuestNetworks::add_taps(std::vector<NicConfig>& configs) const {
  for (const auto& [i, tap] : taps_)
    configs[i].backend = SNUG_TRY(with_context(make_tap_backend(tap.files()), configs[i].device.name));
  return {};
}

void GuestNetworks::pull_out(const std::vector<size_t>& indexes) {
  auto timer = loop_.timer([this] { plug_in(); });
  if (!timer) return log_warn("the guest keeps its network's addresses: {}", timer.error().text());
  plug_in_ = std::move(*timer);
  for (const size_t i : indexes) {
    if (!taps_.contains(i)) continue;
    devices_->disconnect_nic(i);
    pulled_out_.push_back(i);
  }
  if (!pulled_out_.empty()) plug_in_.arm(kOutAtMost);
}

void GuestNetworks::plug_in_soon() {
  if (!pulled_out_.empty()) plug_in_.arm(kOutAtLeast);
}

void GuestNetworks::plug_in() {
  for (const size_t i : std::exchange(pulled_out_, {}))
    if (auto plugged = devices_->reconnect_nic(i); !plugged)
      log_warn("net[{}]: {}", i, plugged.error().text());
}

void GuestNetworks::detach() {
  pulled_out_.clear();
  devices_ = nullptr;
}

void GuestNetworks::stop() {
  if (taps_.size() < nics_.size()) warden_.stop_networks();
}

void GuestNetworks::on_connected(size_t i, UniqueFd socket) {
  if (devices_ == nullptr || i >= nics_.size() || taps_.contains(i)) return;
  if (auto connected = devices_->connect_nic(i, make_stream_backend(std::move(socket))); !connected)
    log_warn("net[{}]: {}", i, connected.error().text());
}

void GuestNetworks::on_lost(size_t i) {
  if (devices_ != nullptr && i < nics_.size()) devices_->disconnect_nic(i);
}

void GuestNetworks::on_broken(size_t i) {
  if (!taps_.contains(i)) return warden_.give_up_network(i);
  log_warn("net[{}]: the interface {} is gone; the guest is without it", i, nics_[i].tap);
  std::erase(pulled_out_, i);
  devices_->disconnect_nic(i);
}

}  // namespace snug
