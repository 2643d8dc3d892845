// Consoles and channels among the virtio devices.
#include "vmm/machine/virtio_devices.h"

namespace snug {

Result<void> VirtioDevices::add_console(PortPeer& port) {
  auto device = std::make_unique<VirtioConsole>(fmt::format("console hvc{}", consoles_.size()), port,
                                                environment_.user_space);
  Placed<VirtioConsole> console{device.get()};
  console.transport = SNUG_TRY(add(std::move(device)))->transport.get();
  consoles_.push_back(console);
  ports_.push_back(&port);
  port.on_events({.ready =
                      [console] {
                        auto guard = console.transport->lock();
                        console.device->peer_ready();
                      },
                  .resized =
                      [console](const WindowSize& size) {
                        auto guard = console.transport->lock();
                        console.device->set_size(size);
                      }});
  return {};
}

void VirtioDevices::set_console_size(size_t index, const WindowSize& size) {
  auto guard = consoles_[index].transport->lock();
  consoles_[index].device->set_size(size);
}

Result<void> VirtioDevices::add_channels(const std::vector<ChannelEnd>& channels) {
  std::vector<ChannelConfig> configs;
  for (const ChannelEnd& channel : channels) configs.push_back({channel.name, channel.port});
  auto device = std::make_unique<VirtioChannels>(std::move(configs), environment_.user_space);
  VirtioChannels* all = device.get();
  Synced<VirtioPci>* transport = SNUG_TRY(add(std::move(device)))->transport.get();
  for (size_t i = 0; i < channels.size(); ++i) {
    ports_.push_back(channels[i].port);
    channels[i].port->on_events({.ready =
                                     [all, transport, i] {
                                       auto guard = transport->lock();
                                       all->peer_ready(i);
                                     },
                                 .resized = nullptr});
  }
  return {};
}

}  // namespace snug
