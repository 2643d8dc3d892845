#include "vmm/agent/agent_request.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "vmm/base/socket_io.h"

namespace snug {

using protocol::FrameType;

Result<std::unique_ptr<AgentRequest>> AgentRequest::start(EventLoop& loop, UniqueFd connection,
                                                          const std::string& frame,
                                                          std::chrono::milliseconds patience, Done done,
                                                          Wanted wanted) {
  std::unique_ptr<AgentRequest> request(new AgentRequest(loop, std::move(done)));
  AgentRequest* self = request.get();
  self->connection_ = std::move(connection);
  self->wanted_ = wanted;
  const int fd = self->connection_.get();
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  protocol::put_hello(self->out_, {});
  self->out_ += frame;
  self->timer_ =
      SNUG_TRY(loop.timer([self] { self->finish(fail("the guest's agent did not answer in time")); }));
  self->timer_.arm(patience);
  self->watch_ =
      SNUG_TRY(loop.watch(fd, EPOLLIN | EPOLLOUT, [self](uint32_t events) { self->on_connection(events); }));
  return request;
}

void AgentRequest::on_connection(uint32_t epoll_events) {
  if ((epoll_events & EPOLLOUT) != 0 && !out_.empty()) {
    const ssize_t count = send_some(connection_.get(), out_.data(), out_.size());
    if (count > 0) out_.erase(0, static_cast<size_t>(count));
    // A failure shows when its answer is read.
    if (count < 0 && errno != EAGAIN && errno != EINTR) out_.clear();
  }
  if (out_.empty()) watch_.set_events(EPOLLIN);
  if ((epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  if (auto result = receive()) finish(std::move(*result));
}

// Nothing: the answer is not there yet.
std::optional<Result<void>> AgentRequest::receive() {
  std::array<char, 4096> buffer;
  const ssize_t count = receive_some(connection_.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (count <= 0 && wanted_.end_is_answer) return Result<void>();
  if (count <= 0) return fail("the guest's agent closed the connection");
  reader_.feed({buffer.data(), static_cast<size_t>(count)});
  while (const auto frame = reader_.next()) {
    if (frame->type == FrameType::kError) {
      refused_ = true;
      return fail("the guest's agent: {}", protocol::decode_error(frame->payload).text);
    }
    if (greeted_ && frame->type == FrameType::kDone) {
      if (--wanted_.answers == 0) return Result<void>();
      continue;
    }
    const auto hello = protocol::decode_hello(frame->payload);
    const auto chosen = hello ? protocol::chosen_version(*hello) : std::nullopt;
    if (greeted_ || frame->type != FrameType::kHello || !chosen)
      return fail("the guest's agent speaks something else");
    if (*chosen < wanted_.version)
      return fail_with_hint("the guest's agent is older than this snug and does not know how",
                            "use an image that is built anew: snug image build initrd");
    greeted_ = true;
  }
  if (reader_.broken()) return fail("the guest's agent sent a frame that cannot be");
  return std::nullopt;
}

void AgentRequest::finish(Result<void> result) {
  watch_.reset();
  timer_.disarm();
  connection_.reset();
  loop_.post([this, alive = std::weak_ptr<int>(alive_), result = std::move(result)]() mutable {
    if (!alive.expired()) done_(std::move(result));
  });
}

}  // namespace snug
