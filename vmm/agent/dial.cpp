#include "vmm/agent/dial.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

namespace snug {
namespace {

using Clock = std::chrono::steady_clock;

// Whether there is something to read before `deadline`.
bool wait_for_answer(int socket, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return false;
    pollfd request{.fd = socket, .events = POLLIN, .revents = 0};
    if (::poll(&request, 1, static_cast<int>(left.count())) > 0) return true;
  }
}

}  // namespace

Result<bool> dial(int socket, uint32_t port, std::chrono::milliseconds patience) {
  constexpr size_t kLongest = 32;
  const auto deadline = Clock::now() + patience;
  const std::string request = fmt::format("CONNECT {}\n", port);
  // A failure shows when the answer is read.
  (void)!::send(socket, request.data(), request.size(), MSG_NOSIGNAL);
  std::string answer;
  while (!answer.ends_with('\n')) {
    if (!wait_for_answer(socket, deadline)) return fail("the machine's vsock socket does not answer");
    // One at a time: what follows is the guest's.
    char byte = 0;
    const ssize_t count = ::recv(socket, &byte, 1, 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0 && answer.empty()) return false;
    answer += byte;
    if (count <= 0 || answer.size() > kLongest) return fail("the machine's vsock socket gave an odd answer");
  }
  if (!answer.starts_with("OK ")) return fail("the machine's vsock socket gave an odd answer");
  return true;
}

}  // namespace snug
