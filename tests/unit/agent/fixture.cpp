#include "tests/unit/agent/fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

#include "guest-images/agent/session.h"

namespace snug::test {

namespace {

// Where the agent of the process `tests` has a command that was kept: a socket without a file.
sockaddr_un kept_address(pid_t tests) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  fmt::format("snug-kept-{}", tests).copy(address.sun_path + 1, sizeof address.sun_path - 2);
  return address;
}

agent::Fd accept_next() {
  static const agent::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = kept_address(::getppid());
  // The second time it is there already.
  (void)::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  (void)::listen(listener.get(), 1);
  return agent::Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

}  // namespace

UniqueFd connect_kept() {
  const sockaddr_un address = kept_address(::getpid());
  for (int attempt = 0; attempt < 1000; ++attempt) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    ::usleep(10'000);
  }
  ADD_FAILURE() << "no command was kept";
  return {};
}

UniqueFd connect_agent() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  if (::fork() == 0) {
    ::close(ends[0]);
    // Nothing else of the test's stays open here: the ends of its pipes are to be seen by it alone.
    for (int fd = 3; fd < 100; ++fd)
      if (fd != ends[1]) ::close(fd);
    agent::Powers powers;
    powers.set_time = [](uint64_t time) { return time != 0 || (errno = EPERM, false); };
    powers.power = [](protocol::PowerAction) {};
    powers.mount = [](const protocol::MountRequest& request) {
      return request.tag == "refused" ? "cannot mount refused on " + request.target : std::string();
    };
    powers.go_on = [](const protocol::GoOn& request) {
      return request.host_name == "refused" ? "cannot be called refused" : std::string();
    };
    powers.begin = [](const protocol::Begin& request) {
      return request.addresses.empty() ? "there is no interface" : std::string();
    };
    powers.accept_next = accept_next;
    (void)agent::serve(agent::Fd(ends[1]), powers);
    ::_exit(0);
  }
  ::close(ends[1]);
  return UniqueFd(ends[0]);
}

Pipe::Pipe() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  read_end = UniqueFd(ends[0]);
  write_end = UniqueFd(ends[1]);
}

std::string Pipe::read_all() {
  std::string text;
  std::array<char, 65536> buffer;
  for (ssize_t count; (count = ::read(read_end.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<size_t>(count));
  return text;
}

void AgentTest::SetUp() {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  loop_ = std::move(*loop);
}

namespace {

// Files: they take and give any amount without a second thread.
UniqueFd memory_file(const std::string& content = "") {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(fd.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  return fd;
}

std::string content_of(int fd) {
  std::string text(static_cast<size_t>(::lseek(fd, 0, SEEK_END)), '\0');
  EXPECT_EQ(::pread(fd, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return text;
}

}  // namespace

Ran AgentTest::run(const protocol::ExecRequest& request, const std::string& input) {
  Ran ran;
  const UniqueFd output = memory_file(), errors = memory_file();
  ExecSession::Streams streams;
  streams.input = memory_file(input);
  streams.output = *duplicate(output.get());
  streams.errors = *duplicate(errors.get());
  ran.end = run_on(request, std::move(streams));
  ran.output = content_of(output.get());
  ran.errors = content_of(errors.get());
  return ran;
}

ExecEnd AgentTest::run_on(const protocol::ExecRequest& request, ExecSession::Streams streams) {
  ExecEnd result;
  ExecSession::Events events;
  events.ended = [&](ExecEnd end) {
    result = std::move(end);
    loop_->stop();
  };
  auto session = ExecSession::start(*loop_, connect_agent(), request, std::move(streams), std::move(events));
  EXPECT_TRUE(session) << session.error().message;
  EXPECT_TRUE(loop_->run());
  return result;
}

Ran AgentTest::shell(const std::string& line, const std::string& input) {
  return run(shell_request(line), input);
}

protocol::ExecRequest shell_request(const std::string& line) {
  protocol::ExecRequest request;
  request.arguments = {"sh", "-c", line};
  return request;
}

}  // namespace snug::test
