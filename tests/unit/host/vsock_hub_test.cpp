#include "vmm/host/vsock_hub.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "vmm/base/socket_address.h"

namespace snug {
namespace {

using namespace std::chrono_literals;

UniqueFd unix_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

// A stand-in for the guest's device: keeps what it is asked for.
struct Asked {
  uint32_t port;
  UniqueFd stream;
  VsockDone done;
};

class VsockHubTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "snug-vsock-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    loop = std::move(*EventLoop::create());
    make(folder / "vm.sock");
  }
  void TearDown() override {
    hub.reset();
    std::filesystem::remove_all(folder);
  }
  void make(const std::string& path, std::chrono::milliseconds patience = 20s) {
    hub.reset();
    auto made = VsockHub::create(*loop, path, patience);
    ASSERT_TRUE(made) << made.error().text();
    hub = std::move(*made);
    hub->attach([this](uint32_t port, UniqueFd stream, VsockDone done) {
      asked.push_back({port, std::move(stream), std::move(done)});
    });
  }
  // Runs the loop until `condition` holds; false after a long time.
  bool run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      auto timer = loop->timer([this] { loop->stop(); });
      timer->arm(2ms);
      EXPECT_TRUE(loop->run());
    }
    return true;
  }
  void turns(int count) {
    for (int i = 0; i < count; ++i)
      run_until([first = true]() mutable { return !std::exchange(first, false); });
  }
  UniqueFd client(std::string_view text) {
    UniqueFd fd = unix_socket();
    const auto address = *socket_address(folder / "vm.sock");
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    write(fd.get(), text);
    return fd;
  }
  static void write(int fd, std::string_view text) {
    EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What there is to be read now; "EOF" at the end of the stream.
  static std::string read(int fd) {
    std::array<char, 1000> bytes{};
    const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno == ECONNRESET)) return "EOF";
    return count < 0 ? "" : std::string(bytes.data(), static_cast<size_t>(count));
  }

  std::filesystem::path folder;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<VsockHub> hub;
  std::vector<Asked> asked;
};

TEST_F(VsockHubTest, AClientReachesTheGuest) {
  // What follows the line is the guest's, in one piece with it or not.
  const UniqueFd fd = client("CONNECT 1024\nhello");
  ASSERT_TRUE(run_until([&] { return asked.size() == 1; }));
  EXPECT_EQ(asked[0].port, 1024u);
  EXPECT_EQ(read(asked[0].stream.get()), "hello");
  asked[0].done({0, 77, asked[0].stream.get()});
  write(asked[0].stream.get(), "answer");
  EXPECT_EQ(read(fd.get()), "OK 77\nanswer");
}

TEST_F(VsockHubTest, ALineInPieces) {
  const UniqueFd fd = client("CONN");
  turns(5);
  EXPECT_TRUE(asked.empty());
  write(fd.get(), "ECT 4294967295\r\n");
  ASSERT_TRUE(run_until([&] { return asked.size() == 1; }));
  EXPECT_EQ(asked[0].port, 0xffffffffu);
}

TEST_F(VsockHubTest, ARefusalIsTheEnd) {
  const UniqueFd fd = client("CONNECT 1\n");
  ASSERT_TRUE(run_until([&] { return asked.size() == 1; }));
  asked[0].done({.error = ECONNREFUSED});
  asked.clear();
  EXPECT_EQ(read(fd.get()), "EOF");
  hub->detach();
  const UniqueFd none = client("CONNECT 1\n");
  EXPECT_TRUE(run_until([&] { return read(none.get()) == "EOF"; }));
  EXPECT_TRUE(asked.empty());
}

TEST_F(VsockHubTest, NonsenseIsNotAnswered) {
  for (const char* text : {"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT 1 \n", "CONNECT -1\n",
                           "CONNECT 4294967296\n", "connect 1\n", "CONNECT 11111111111111111111111111111111",
                           "GET / HTTP/1.1\r\n"}) {
    const UniqueFd fd = client(text);
    EXPECT_TRUE(run_until([&] { return read(fd.get()) == "EOF"; })) << text;
  }
  EXPECT_TRUE(asked.empty());
}

TEST_F(VsockHubTest, SilentClientsAreSentAway) {
  make(folder / "vm.sock", 5ms);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(client(i % 2 == 0 ? "" : "CONNE"));
  for (const UniqueFd& fd : silent) EXPECT_TRUE(run_until([&] { return read(fd.get()) == "EOF"; }));
}

TEST_F(VsockHubTest, MoreSilentClientsThanThereIsRoomFor) {
  make(folder / "vm.sock", 50ms);
  std::vector<UniqueFd> silent;
  for (size_t i = 0; i < VsockHub::kClientsMax + 20; ++i) {
    silent.push_back(client(""));
    if (i % 50 == 0) turns(3);
  }
  const UniqueFd last = client("CONNECT 5\n");
  EXPECT_TRUE(run_until([&] { return asked.size() == 1; })) << "those who wait are let in";
}

TEST_F(VsockHubTest, TheGuestReachesAUnixSocket) {
  EXPECT_EQ(hub->open(80).error(), ENOENT);
  const UniqueFd listener = unix_socket();
  const auto address = *socket_address((folder / "vm.sock_80").string());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(hub->open(80).error(), ECONNREFUSED);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const auto stream = hub->open(80);
  ASSERT_TRUE(stream);
  const UniqueFd accepted(::accept(listener.get(), nullptr, nullptr));
  write(stream->get(), "hello");
  EXPECT_EQ(read(accepted.get()), "hello");
  // A full backlog is told apart from nobody.
  std::vector<UniqueFd> waiting;
  int error = 0;
  for (int i = 0; i < 10 && error == 0; ++i) {
    auto next = hub->open(80);
    if (next) {
      waiting.push_back(std::move(*next));
    } else {
      error = next.error();
    }
  }
  EXPECT_EQ(error, EAGAIN);
}

TEST_F(VsockHubTest, ListenersOfTheProcessComeFirst) {
  std::vector<UniqueFd> accepted;
  hub->listen(80, [&](UniqueFd stream) { accepted.push_back(std::move(stream)); });
  const auto stream = hub->open(80);
  ASSERT_TRUE(stream);
  EXPECT_TRUE(accepted.empty()) << "called later, without the device's lock";
  ASSERT_TRUE(run_until([&] { return accepted.size() == 1; }));
  write(stream->get(), "hello");
  EXPECT_EQ(read(accepted[0].get()), "hello");
  const auto late = hub->open(80);
  hub->unlisten(80);
  ASSERT_TRUE(run_until([&] { return read(late->get()) == "EOF"; }));
  EXPECT_EQ(accepted.size(), 1u);
  EXPECT_EQ(hub->open(80).error(), ENOENT);
}

TEST_F(VsockHubTest, TheProcessReachesTheGuest) {
  UniqueFd mine;
  int error = -1;
  const auto done = [&](UniqueFd stream, int number) {
    mine = std::move(stream);
    error = number;
  };
  hub->connect(7, done);
  ASSERT_EQ(asked.size(), 1u);
  asked[0].done({0, 1000, asked[0].stream.get()});
  EXPECT_EQ(error, -1) << "called later, without the device's lock";
  ASSERT_TRUE(run_until([&] { return error == 0; }));
  write(asked[0].stream.get(), "hello");
  EXPECT_EQ(read(mine.get()), "hello");
  hub->connect(7, done);
  asked[1].done({.error = ETIMEDOUT});
  ASSERT_TRUE(run_until([&] { return error == ETIMEDOUT; }));
  EXPECT_FALSE(mine);
  hub->detach();
  hub->connect(7, done);
  ASSERT_TRUE(run_until([&] { return error == EHOSTUNREACH; }));
}

TEST_F(VsockHubTest, OutcomesThatComeTooLate) {
  bool called = false;
  hub->connect(7, [&](UniqueFd, int) { called = true; });
  hub.reset();
  asked[0].done({.error = ECONNRESET});
  turns(3);
  EXPECT_FALSE(called);
}

TEST_F(VsockHubTest, WithoutASocket) {
  make("");
  EXPECT_EQ(hub->open(80).error(), ECONNREFUSED);
  hub->listen(80, [](UniqueFd) {});
  EXPECT_TRUE(hub->open(80));
}

TEST_F(VsockHubTest, TheSocketIsItsOwnersAndGoesWithIt) {
  const auto path = folder / "vm.sock";
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  hub.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  // Not one that another has put there.
  make(path);
  std::filesystem::remove(path);
  std::ofstream(path) << "mine";
  hub.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(VsockHubTest, PathsInUse) {
  const auto used = VsockHub::create(*loop, folder / "vm.sock");
  ASSERT_FALSE(used);
  EXPECT_NE(used.error().text().find("another program listens there"), std::string::npos)
      << used.error().text();
  std::ofstream(folder / "file") << "x";
  EXPECT_FALSE(VsockHub::create(*loop, folder / "file"));
  EXPECT_TRUE(std::filesystem::exists(folder / "file"));
  EXPECT_FALSE(VsockHub::create(*loop, folder / "nowhere" / "vm.sock"));
  EXPECT_FALSE(VsockHub::create(*loop, folder / std::string(100, 'x')));
  // Left behind by one that was killed.
  const UniqueFd stale = unix_socket();
  const auto address = *socket_address((folder / "stale").string());
  ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(VsockHub::create(*loop, folder / "stale"));
}

TEST_F(VsockHubTest, PathsLongerThanAnAddress) {
  const auto deep = folder / std::string(100, 'a') / std::string(100, 'b');
  std::filesystem::create_directories(deep);
  make(deep / "vm.sock");
  EXPECT_TRUE(std::filesystem::exists(deep / "vm.sock"));
}

}  // namespace
}  // namespace snug
