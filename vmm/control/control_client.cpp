#include "vmm/control/control_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "vmm/base/packet_socket.h"

namespace snug {
namespace {

constexpr size_t kLongestAnswer = 4 << 20;
constexpr const char* kControl = "control.sock";

using Clock = std::chrono::steady_clock;

// False when the time is up.
bool wait_for(int fd, short events, std::optional<Clock::time_point> deadline) {
  for (;;) {
    int left = -1;
    if (deadline) {
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      if (ms <= 0) return false;
      left = static_cast<int>(ms);
    }
    pollfd request{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&request, 1, left);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace

Result<HttpResponse> ask_machine(const FoundVm& vm, std::string_view method, std::string_view path,
                                 std::string_view body, std::optional<std::chrono::milliseconds> limit,
                                 std::span<const int> descriptors) {
  const UniqueFd socket = SNUG_TRY(connect_to(vm, kControl));
  std::optional<Clock::time_point> deadline;
  if (limit) deadline = Clock::now() + *limit;
  const std::string request = fmt::format("{} {} HTTP/1.1\r\nHost: snug\r\nContent-Length: {}\r\n\r\n{}",
                                          method, path, body.size(), body);
  size_t sent = 0;
  if (!descriptors.empty()) {
    // It is a new connection: there is room for the first byte.
    const iovec first{const_cast<char*>(request.data()), 1};
    if (const int error = send_packet(socket.get(), {&first, 1}, descriptors); error != 0)
      return fail_errno(error, "{}", vm.name);
    sent = 1;
  }
  while (sent < request.size()) {
    if (!wait_for(socket.get(), POLLOUT, deadline)) return fail("{} does not answer", vm.name);
    const ssize_t count =
        ::send(socket.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EINTR && errno != EAGAIN) return fail_errno(errno, "{}", vm.name);
    if (count > 0) sent += static_cast<size_t>(count);
  }
  std::string answer;
  for (;;) {
    if (!wait_for(socket.get(), POLLIN, deadline)) return fail("{} does not answer", vm.name);
    std::array<char, 16384> buffer;
    const ssize_t count = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return fail_errno(errno, "{}", vm.name);
    if (count == 0) break;
    answer.append(buffer.data(), static_cast<size_t>(count));
    if (answer.size() > kLongestAnswer) return fail("{}: an answer without end", vm.name);
  }
  auto response = parse_http_response(answer);
  if (!response) return fail("{} has ended", vm.name);
  return std::move(*response);
}

std::optional<int> serving_process(const FoundVm& vm) {
  const auto socket = connect_to(vm, kControl);
  ucred peer{};
  socklen_t size = sizeof peer;
  if (!socket || ::getsockopt(socket->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
  return peer.pid;
}

}  // namespace snug
