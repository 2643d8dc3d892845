#include "vmm/host/host_port.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>

#include <filesystem>
#include <fstream>

#include "vmm/base/socket_address.h"

namespace snug {
namespace {

using namespace std::chrono_literals;

class HostPortTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "snug-port-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    loop_ = std::move(*loop);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return (folder_ / "port").string(); }
  std::unique_ptr<HostPort> open(PortKind kind) {
    auto port = HostPort::open({kind, kind == PortKind::kPty ? "" : path()}, *loop_);
    EXPECT_TRUE(port) << port.error().text();
    return std::move(*port);
  }
  UniqueFd client() const {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = *socket_address(path());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  // Runs the loop until `done`, which is looked at after each event of the port.
  void run_until(HostPort& port, std::function<bool()> done) {
    bool late = false;
    auto give_up = loop_->timer([&] {
      late = true;
      loop_->stop();
    });
    ASSERT_TRUE(give_up);
    give_up->arm(60s);
    port.on_events({.ready =
                        [&] {
                          if (done()) loop_->stop();
                        },
                    .resized =
                        [&](const WindowSize& size) {
                          size_ = size;
                          if (done()) loop_->stop();
                        }});
    // A stop that was asked for earlier may end a run at once.
    while (!done() && !late) ASSERT_TRUE(loop_->run());
    port.on_events({});
    EXPECT_FALSE(late);
  }
  static size_t send(HostPort& port, std::string_view text) {
    const iovec part{const_cast<char*>(text.data()), text.size()};
    return port.send({&part, 1});
  }
  static std::string receive(HostPort& port) {
    std::string text(100, ' ');
    const iovec part{text.data(), text.size()};
    text.resize(port.receive({&part, 1}));
    return text;
  }
  static std::string read(int fd) {
    std::string text(100, ' ');
    text.resize(static_cast<size_t>(std::max<ssize_t>(::read(fd, text.data(), text.size()), 0)));
    return text;
  }

  std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_;
  WindowSize size_;
};

TEST_F(HostPortTest, ClientsComeAndGo) {
  auto port = open(PortKind::kSocket);
  EXPECT_FALSE(port->connected());
  EXPECT_EQ(send(*port, "nobody"), 0u);
  for (int round = 0; round < 3; ++round) {
    UniqueFd peer = client();
    run_until(*port, [&] { return port->connected(); });
    EXPECT_EQ(send(*port, "hello"), 5u);
    EXPECT_EQ(read(peer.get()), "hello");
    ASSERT_EQ(::write(peer.get(), "bye", 3), 3);
    peer.reset();
    std::string heard;
    run_until(*port, [&] {
      heard += receive(*port);
      return !port->connected();
    });
    EXPECT_EQ(heard, "bye");
  }
}

TEST_F(HostPortTest, OneClientAtATime) {
  auto port = open(PortKind::kSocket);
  UniqueFd one = client();
  UniqueFd two = client();
  run_until(*port, [&] { return port->connected(); });
  send(*port, "1");
  EXPECT_EQ(read(one.get()), "1");
  one.reset();
  bool gone = false;
  run_until(*port, [&] {
    gone = gone || !port->connected();
    return gone && port->connected();
  });
  send(*port, "2");
  EXPECT_EQ(read(two.get()), "2");
}

// Whose words nobody reads makes room for the next.
TEST_F(HostPortTest, AClientThatHungUpUnheard) {
  auto port = open(PortKind::kSocket);
  UniqueFd one = client();
  run_until(*port, [&] { return port->connected(); });
  ASSERT_EQ(::write(one.get(), "unheard", 7), 7);
  one.reset();
  int events = 0;
  run_until(*port, [&] { return ++events > 1; });
  EXPECT_TRUE(port->connected()) << "it can still be read";
  UniqueFd two = client();
  bool gone = false;
  run_until(*port, [&] {
    gone = gone || !port->connected();
    return gone && port->connected();
  });
  ASSERT_EQ(::write(two.get(), "heard", 5), 5);
  std::string heard;
  run_until(*port, [&] { return (heard += receive(*port)) == "heard"; });
}

TEST_F(HostPortTest, AStalledClientTakesNoMore) {
  auto port = open(PortKind::kSocket);
  UniqueFd peer = client();
  run_until(*port, [&] { return port->connected(); });
  const std::string text(100000, 'x');
  size_t total = 0;
  while (const size_t count = send(*port, text)) total += count;
  EXPECT_LT(total, 10'000'000u);
  EXPECT_TRUE(port->connected());
  std::string read_back(total, ' ');
  for (size_t done = 0; done < total;)
    done += static_cast<size_t>(::read(peer.get(), read_back.data(), total));
  size_t more = 0;
  run_until(*port, [&] { return (more = send(*port, "y")) == 1; });
}

TEST_F(HostPortTest, SocketsLeftBehindAndSocketsInUse) {
  auto first = open(PortKind::kSocket);
  struct stat status {};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto second = HostPort::open({PortKind::kSocket, path()}, *loop_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().text().find("another process listens there"), std::string::npos);
  first.reset();
  EXPECT_FALSE(std::filesystem::exists(path())) << "removed at the end";
  {
    const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = *socket_address(path());
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  open(PortKind::kSocket);
  std::ofstream(path()) << "precious";
  EXPECT_FALSE(HostPort::open({PortKind::kSocket, path()}, *loop_));
  EXPECT_TRUE(std::filesystem::exists(path()));
  EXPECT_FALSE(HostPort::open({PortKind::kSocket, folder_.string() + "/" + std::string(200, 'x')}, *loop_));
}

TEST_F(HostPortTest, AFileTakesEverything) {
  auto port = open(PortKind::kFile);
  EXPECT_TRUE(port->connected());
  EXPECT_EQ(send(*port, "line\n"), 5u);
  EXPECT_EQ(receive(*port), "");
  EXPECT_TRUE(port->connected());
  std::ifstream file(path());
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "line");
}

TEST_F(HostPortTest, APtyHasAWindow) {
  auto port = open(PortKind::kPty);
  auto slave = open_file(port->pty_path(), O_RDWR | O_NOCTTY);
  ASSERT_TRUE(slave);
  const winsize size{.ws_row = 33, .ws_col = 111, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(slave->get(), TIOCSWINSZ, &size), 0);
  run_until(*port, [&] { return size_ == WindowSize{111, 33}; });
  ASSERT_EQ(::write(slave->get(), "typed", 5), 5);
  std::string heard;
  run_until(*port, [&] { return (heard += receive(*port)) == "typed"; });
  EXPECT_EQ(send(*port, "shown"), 5u);
  EXPECT_EQ(read(slave->get()), "shown");
  slave->reset();
  EXPECT_TRUE(port->connected());
}

}  // namespace
}  // namespace snug
