#include "vmm/run/warden_protocol.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/base/packet_socket.h"

namespace snug::warden {
namespace {

constexpr size_t kHeadMax = 64;

}  // namespace

int send_packet(int socket, const void* head, size_t head_size, std::string_view text, int descriptor) {
  text = text.substr(0, kTextMax);
  const std::array parts{iovec{const_cast<void*>(head), head_size},
                         iovec{const_cast<char*>(text.data()), text.size()}};
  return snug::send_packet(socket, parts,
                           descriptor < 0 ? std::span<const int>() : std::span<const int>(&descriptor, 1));
}

int receive_packet(int socket, void* head, size_t head_size, std::string& text, UniqueFd* descriptor) {
  std::array<char, kHeadMax + kTextMax> buffer;
  size_t size = 0;
  std::vector<UniqueFd> descriptors;
  const int error = snug::receive_packet(socket, std::span(buffer).first(head_size + kTextMax), size,
                                         descriptors, descriptor != nullptr ? 1 : 0);
  if (descriptor != nullptr) *descriptor = descriptors.empty() ? UniqueFd() : std::move(descriptors.front());
  if (error != 0) return error;
  if (size < head_size) return EPROTO;
  std::memcpy(head, buffer.data(), head_size);
  text.assign(buffer.data() + head_size, size - head_size);
  return 0;
}

std::string error_text(const Error& error) {
  constexpr size_t kHintRoom = 1024;
  return error.message.substr(0, kTextMax - kHintRoom) + std::string(1, '\0') +
         error.hint.substr(0, kHintRoom - 1);
}

Error error_of(std::string_view text) {
  const size_t end = text.find('\0');
  Error error;
  error.message = text.substr(0, end);
  if (end != std::string_view::npos) error.hint = text.substr(end + 1);
  return error;
}

}  // namespace snug::warden
