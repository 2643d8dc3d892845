#include "devices/virtio/console/console.h"

#include <utility>

#include "devices/virtio/console/config.h"

namespace snug {

using namespace virtio_console;

namespace {

// Linux's messages come in buffers of 16 bytes (hvc_console_print), what programs write in whatever they
// wrote. No driver of a single port tells that one has opened it.
constexpr uint64_t kKernelBuffer = 16;

}  // namespace

uint64_t VirtioConsole::features() const { return kSize | kEmergencyWrite; }

void VirtioConsole::read_config(uint64_t offset, std::span<std::byte> data) const {
  virtio_console::read_config({size_.columns, size_.rows, 1}, offset, data);
}

// 5.3.4: the low byte of what is written is a character, even of a driver that has not begun its work.
void VirtioConsole::write_config(uint64_t offset, std::span<const std::byte> data) {
  if (offset == kEmergencyOffset && !data.empty()) stream_.send(data.first(1));
}

void VirtioConsole::start(VirtioHost& host, uint64_t) {
  host_ = &host;
  first_output_ = true;
  stream_.start(host, kReceive, kTransmit);
}

bool VirtioConsole::stop() {
  host_ = nullptr;
  stream_.stop();
  return true;
}

bool VirtioConsole::stop_queue(uint16_t queue) {
  stream_.stop_queue(queue);
  return true;
}

bool VirtioConsole::settle() {
  stream_.settle();
  return true;
}

void VirtioConsole::save(SectionWriter& out) const {
  out.number(size_.columns);
  out.number(size_.rows);
  out.flag(first_output_);
  stream_.save(out);
}

// The window is the one that shows it now.
void VirtioConsole::restore(SectionReader& in) {
  (void)in.number<uint16_t>();
  (void)in.number<uint16_t>();
  first_output_ = in.flag();
  stream_.restore(in);
}

void VirtioConsole::queue_ready(uint16_t queue) {
  used_ = true;
  if (queue == kReceive) {
    stream_.receive();
  } else {
    if (first_output_) set_size(size_);
    first_output_ = false;
    stream_.transmit();
    if (on_program_ && stream_.longest_buffer() > kKernelBuffer) std::exchange(on_program_, {})();
  }
}

void VirtioConsole::peer_ready() {
  if (host_ == nullptr) return;
  stream_.receive();
  stream_.transmit();
}

void VirtioConsole::set_size(const WindowSize& size) {
  if (size == size_ && (!used_ || size == WindowSize{})) return;
  size_ = size;
  used_ = false;
  if (host_ != nullptr) host_->config_changed();
}

}  // namespace snug
