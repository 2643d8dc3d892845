#include "devices/virtio/console/channels.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "devices/virtio/console/config.h"
#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

constexpr uint16_t kQueueSize = 32;

// 5.3.2: port 0's pair, the control pair, then a pair for each further port.
constexpr uint16_t kReceive0 = 0;
constexpr uint16_t kTransmit0 = 1;
constexpr uint16_t kControlToGuest = 2;
constexpr uint16_t kControlFromGuest = 3;
constexpr uint16_t kPairs = 4;

// 5.3.6.2: control messages, { le32 id; le16 event; le16 value; } and a name behind some.
constexpr size_t kMessage = 8;
constexpr size_t kNameMax = 64;
enum Event : uint16_t {
  kDeviceReady = 0,
  kPortAdd = 1,
  kPortReady = 3,
  kPortOpen = 6,
  kPortName = 7,
};

}  // namespace

using namespace virtio_console;

VirtioChannels::VirtioChannels(std::vector<ChannelConfig> channels, std::function<void()> on_program)
    : queue_sizes_(kPairs + 2 * channels.size(), kQueueSize),
      on_program_(std::move(on_program)),
      unused_port_(nullptr, PortStream::WhenStalled::kDrop) {
  SNUG_ASSERT(channels.size() <= kMaxChannels);
  for (ChannelConfig& channel : channels) {
    SNUG_ASSERT(channel.name.size() <= kNameMax);
    channels_.push_back(
        {std::move(channel.name), channel.peer, PortStream(channel.peer, PortStream::WhenStalled::kHold)});
  }
}

uint64_t VirtioChannels::features() const { return kMultiport; }

void VirtioChannels::read_config(uint64_t offset, std::span<std::byte> data) const {
  const auto ports = static_cast<uint32_t>(channels_.size() + 1);
  virtio_console::read_config({0, 0, ports}, offset, data);
}

void VirtioChannels::start(VirtioHost& host, uint64_t features) {
  host_ = &host;
  multiport_ = (features & kMultiport) != 0;
  unused_port_.start(host, kReceive0, kTransmit0);
  uint16_t pair = kPairs;
  for (Channel& channel : channels_) {
    channel.stream.start(host, pair, static_cast<uint16_t>(pair + 1));
    pair = static_cast<uint16_t>(pair + 2);
    channel.peer_open = channel.peer->connected();
  }
}

bool VirtioChannels::stop() {
  host_ = nullptr;
  unused_port_.stop();
  for (Channel& channel : channels_) {
    channel.stream.stop();
    channel.guest_open = channel.told_open = false;
    channel.tell_add = channel.tell_name = channel.tell_close = channel.tell_open = false;
  }
  return true;
}

bool VirtioChannels::stop_queue(uint16_t queue) {
  if (queue >= kPairs) channels_[(queue - kPairs) / 2].stream.stop_queue(queue);
  return true;
}

bool VirtioChannels::settle() {
  unused_port_.settle();
  for (Channel& channel : channels_) channel.stream.settle();
  return true;
}

void VirtioChannels::save(SectionWriter& out) const {
  out.number(static_cast<uint16_t>(channels_.size()));
  unused_port_.save(out);
  for (const Channel& channel : channels_) {
    out.text(channel.name);
    for (const bool state : {channel.guest_open, channel.peer_open, channel.tell_add, channel.tell_name,
                             channel.tell_close, channel.tell_open, channel.told_open})
      out.flag(state);
    channel.stream.save(out);
  }
}

// Whether the peer has come or gone since is seen as soon as the queues are looked at.
void VirtioChannels::restore(SectionReader& in) {
  if (in.number<uint16_t>() != channels_.size()) return in.refuse("another number of channels");
  unused_port_.restore(in);
  for (Channel& channel : channels_) {
    if (const std::string name = in.text(kNameMax); name != channel.name)
      return in.refuse(fmt::format("channel {}, which was {}", channel.name, name));
    for (bool* state : {&channel.guest_open, &channel.peer_open, &channel.tell_add, &channel.tell_name,
                        &channel.tell_close, &channel.tell_open, &channel.told_open})
      *state = in.flag();
    channel.stream.restore(in);
  }
}

void VirtioChannels::queue_ready(uint16_t queue) {
  if (queue < kControlToGuest) {
    if (queue == kTransmit0) unused_port_.transmit();
    return;
  }
  if (!multiport_) return;
  if (queue == kControlToGuest) return control_to_guest();
  if (queue == kControlFromGuest) return control_from_guest();
  Channel& channel = channels_[(queue - kPairs) / 2];
  if (queue % 2 == 1) {
    channel.stream.transmit();
  } else if (channel.guest_open) {
    channel.stream.receive();
  }
  note_peer(channel);
}

void VirtioChannels::peer_ready(size_t index) {
  if (host_ == nullptr || !multiport_) return;
  Channel& channel = channels_[index];
  if (channel.guest_open) channel.stream.receive();
  channel.stream.transmit();
  note_peer(channel);
}

// Whether the peer has come or gone.
void VirtioChannels::note_peer(Channel& channel) {
  const bool open = channel.peer->connected();
  if (open == channel.peer_open) return;
  channel.peer_open = channel.tell_open = open;
  if (!open) {
    channel.tell_close = channel.told_open;
    // What was meant for the one that went must not reach the next.
    channel.stream.transmit();
  }
  control_to_guest();
}

// --- control ----------------------------------------------------------------------------------------

void VirtioChannels::control_from_guest() {
  VirtQueue& queue = host_->queue(kControlFromGuest);
  do {
    queue.disable_notifications();
    for (unsigned budget = queue.size(); budget > 0; --budget) {
      const auto popped = queue.pop(chain_);
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
      if (popped == VirtQueue::Pop::kEmpty) break;
      std::array<std::byte, kMessage> message;
      const std::span<const std::byte> bytes(message);
      const size_t length = copy_from_chain(host_->memory(), chain_.readable, 0, message);
      (void)queue.push(chain_.head, 0);
      if (length == kMessage)
        handle_control(static_cast<uint32_t>(load_le(bytes.first(4))),
                       static_cast<uint16_t>(load_le(bytes.subspan(4, 2))),
                       static_cast<uint16_t>(load_le(bytes.subspan(6, 2))));
      if (budget == 1) {
        host_->used(kControlFromGuest);
        host_->again(kControlFromGuest);
        return control_to_guest();
      }
    }
  } while (queue.enable_notifications());
  host_->used(kControlFromGuest);
  control_to_guest();
}

void VirtioChannels::handle_control(uint32_t id, uint16_t event, uint16_t value) {
  if (event == kDeviceReady && value == 1)
    for (Channel& channel : channels_) channel.tell_add = true;
  if (id == 0 || id > channels_.size()) return;
  Channel& channel = channels_[id - 1];
  if (event == kPortReady && value == 1) {
    channel.tell_name = true;
    channel.tell_close = channel.told_open = false;
    channel.tell_open = channel.peer_open;
  }
  if (event == kPortOpen) {
    channel.guest_open = value != 0;
    if (channel.guest_open) {
      if (on_program_) on_program_();
      channel.stream.receive();
      note_peer(channel);
    }
  }
}

// As much as the guest has buffers for; the rest waits as what is to be told, however often it changes.
void VirtioChannels::control_to_guest() {
  VirtQueue& queue = host_->queue(kControlToGuest);
  if (!queue.running()) return;
  queue.disable_notifications();
  std::array<std::byte, kMessage + kNameMax> message;
  bool any = false;
  for (uint32_t id = 1; id <= channels_.size();) {
    Channel& channel = channels_[id - 1];
    if (!channel.tell_add && !channel.tell_name && !channel.tell_close && !channel.tell_open) {
      ++id;
      continue;
    }
    const auto popped = queue.pop(chain_);
    if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
    if (popped == VirtQueue::Pop::kEmpty) {
      if (queue.enable_notifications()) continue;
      break;
    }
    const size_t length = next_message(id, message);
    const size_t written =
        copy_to_chain(host_->memory(), chain_.writable, 0, std::span(message).first(length));
    (void)queue.push(chain_.head, static_cast<uint32_t>(written));
    any = true;
  }
  if (any) host_->used(kControlToGuest);
}

// The next thing to tell about a port; returns its bytes.
size_t VirtioChannels::next_message(uint32_t id, std::span<std::byte> message) {
  Channel& channel = channels_[id - 1];
  size_t length = kMessage;
  uint16_t event = kPortOpen;
  uint16_t value = 1;
  if (channel.tell_add) {
    channel.tell_add = false;
    event = kPortAdd;
  } else if (channel.tell_name) {
    channel.tell_name = false;
    event = kPortName;
    const auto name = std::as_bytes(std::span(channel.name));
    std::ranges::copy(name, message.subspan(kMessage).begin());
    length += name.size();
  } else if (channel.tell_close) {
    channel.tell_close = channel.told_open = false;
    value = 0;
  } else {
    channel.tell_open = false;
    channel.told_open = true;
  }
  store_le(message.first(4), id);
  store_le(message.subspan(4, 2), event);
  store_le(message.subspan(6, 2), value);
  return length;
}

}  // namespace snug
