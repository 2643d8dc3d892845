#include "vmm/run/warden_protocol.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <vector>

namespace snug::warden {
namespace {

size_t open_descriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                           std::filesystem::directory_iterator()));
}

class WardenProtocol : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    near_ = UniqueFd(ends[0]);
    far_ = UniqueFd(ends[1]);
  }
  void send_bytes(const std::string& bytes) const {
    ASSERT_EQ(::send(far_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd near_, far_;
  Packet<Call> packet_;
};

TEST_F(WardenProtocol, APacketArrivesAsItWasSent) {
  ASSERT_EQ(send(far_.get(), Call{1, 2, ~uint64_t{0}}, std::string_view("a\0b", 3)), 0);
  ASSERT_EQ(send(far_.get(), Call{3, 4, 5}, {}, far_.get()), 0);
  ASSERT_EQ(receive(near_.get(), packet_), 0);
  EXPECT_EQ(packet_.head.kind, 1U);
  EXPECT_EQ(packet_.head.id, 2U);
  EXPECT_EQ(packet_.head.argument, ~uint64_t{0});
  EXPECT_EQ(packet_.text, std::string("a\0b", 3));
  EXPECT_FALSE(packet_.descriptor);
  ASSERT_EQ(receive(near_.get(), packet_), 0);
  EXPECT_TRUE(packet_.text.empty());
  ASSERT_TRUE(packet_.descriptor);
  EXPECT_EQ(::fcntl(packet_.descriptor.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(receive(near_.get(), packet_), EAGAIN);
}

TEST_F(WardenProtocol, TextsAreCutWhenTheyAreSent) {
  ASSERT_EQ(send(far_.get(), Call{}, std::string(3 * kTextMax, 'x')), 0);
  ASSERT_EQ(receive(near_.get(), packet_), 0);
  EXPECT_EQ(packet_.text.size(), kTextMax);
}

TEST_F(WardenProtocol, OddSizesAreErrorsAndTheNextPacketIsNot) {
  for (const size_t size : {size_t{0}, size_t{1}, sizeof(Call) - 1, sizeof(Call) + kTextMax + 1}) {
    send_bytes(std::string(size, 'x'));
    send_bytes(std::string(sizeof(Call), 'y'));
    EXPECT_EQ(receive(near_.get(), packet_), EPROTO) << size;
    EXPECT_EQ(receive(near_.get(), packet_), 0) << size;
    EXPECT_EQ(packet_.head.kind, 0x79797979U);
  }
}

TEST_F(WardenProtocol, WhoIsGoneHasSaidWhatItHadSaid) {
  ASSERT_EQ(send(near_.get(), Call{}), 0);  // never read
  ASSERT_EQ(send(far_.get(), Call{7, 0, 0}), 0);
  far_.reset();
  EXPECT_EQ(receive(near_.get(), packet_), 0);
  EXPECT_EQ(packet_.head.kind, 7U);
  EXPECT_EQ(receive(near_.get(), packet_), EPIPE);
  EXPECT_EQ(send(near_.get(), Call{}), EPIPE);
}

TEST_F(WardenProtocol, AFullSocketIsSaid) {
  int error = 0;
  for (int i = 0; i < 100'000 && error == 0; ++i) error = send(far_.get(), Call{});
  EXPECT_EQ(error, EAGAIN);
}

TEST_F(WardenProtocol, OneDescriptorIsTakenOrNone) {
  for (const size_t count : {size_t{1}, size_t{2}, size_t{3}, size_t{100}}) {
    for (const bool wanted : {true, false}) {
      std::vector<char> control(CMSG_SPACE(count * sizeof(int)));
      Call call;
      iovec part{&call, sizeof call};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(count * sizeof(int));
      const int number = far_.get();
      for (size_t i = 0; i < count; ++i)
        std::memcpy(CMSG_DATA(head) + i * sizeof number, &number, sizeof number);
      const size_t before = open_descriptors();
      ASSERT_GT(::sendmsg(far_.get(), &message, 0), 0);
      {
        UniqueFd descriptor;
        EXPECT_EQ(
            receive_packet(near_.get(), &call, sizeof call, packet_.text, wanted ? &descriptor : nullptr), 0);
        EXPECT_EQ(static_cast<bool>(descriptor), wanted);
        EXPECT_EQ(open_descriptors(), before + (wanted ? 1 : 0)) << count;
      }
      EXPECT_EQ(open_descriptors(), before) << count;
    }
  }
}

TEST_F(WardenProtocol, ErrorsAsTexts) {
  for (const Error& error : {Error{"no such thing", "make one"}, Error{"", ""}, Error{"no hint", ""}}) {
    const Error back = error_of(error_text(error));
    EXPECT_EQ(back.message, error.message);
    EXPECT_EQ(back.hint, error.hint);
  }
  const std::string text = error_text({std::string(2 * kTextMax, 'm'), std::string(2 * kTextMax, 'h')});
  EXPECT_LE(text.size(), kTextMax);
  EXPECT_EQ(error_of(text).hint.front(), 'h');
  EXPECT_EQ(error_of("no end").message, "no end");
  EXPECT_EQ(error_of(std::string(3, '\0')).hint.size(), 2U);
}

}  // namespace
}  // namespace snug::warden
