#include "vmm/run/send_talk.h"

#include <sys/epoll.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "vmm/base/packet_socket.h"

namespace snug {
namespace {

constexpr size_t kWordMax = 64;  // bytes

}  // namespace

std::optional<SendWord> send_word(std::string_view text) {
  if (text == "round") return SendWord::kRound;
  if (text == "stand still") return SendWord::kStandStill;
  if (text == "stay") return SendWord::kStay;
  return std::nullopt;
}

Result<std::unique_ptr<SendTalk>> SendTalk::create(EventLoop& loop, UniqueFd socket, Events events) {
  std::unique_ptr<SendTalk> talk(new SendTalk(std::move(socket), std::move(events)));
  talk->watch_ = SNUG_TRY(with_context(
      loop.watch(talk->socket_.get(), EPOLLIN, [self = talk.get()](uint32_t) { self->on_event(); }),
      "the socket of whoever sends it"));
  return talk;
}

// Either of the two may destroy this, and itself with it.
void SendTalk::on_event() {
  std::array<char, kWordMax> buffer{};
  std::vector<UniqueFd> none;
  size_t size = 0;
  const int error = receive_packet(socket_.get(), buffer, size, none, 0);
  if (error == EAGAIN) return;
  const auto word = error == 0 ? send_word({buffer.data(), size}) : std::nullopt;
  const Events events = events_;
  if (word) return events.word(*word);
  watch_.reset();
  events.gone();
}

bool SendTalk::say(std::string_view json) {
  const iovec part{const_cast<char*>(json.data()), json.size()};
  return send_packet(socket_.get(), {&part, 1}) == 0;
}

}  // namespace snug
