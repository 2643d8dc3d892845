#include <fcntl.h>
#include <sys/socket.h>

#include <random>

#include "tests/unit/devices/net_driver.h"
#include "vmm/base/unique_fd.h"

namespace snug::test {
namespace {

class StreamBackendTest : public testing::Test {
 protected:
  StreamBackendTest() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    ::fcntl(peer.get(), F_SETFL, O_NONBLOCK);
    stream = make_stream_backend(UniqueFd(pair[0]));
  }
  static Bytes packed(const Bytes& frame) {
    Bytes bytes;
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::byte>(frame.size() >> shift));
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return bytes;
  }
  void give(const Bytes& bytes) {
    ASSERT_EQ(::write(peer.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  std::optional<Bytes> next() {
    const auto frame = stream->next(0);
    if (!frame) return std::nullopt;
    Bytes bytes(frame->data.begin(), frame->data.end());
    stream->take(0);
    return bytes;
  }
  size_t send(const std::vector<Bytes>& frames) {
    std::vector<iovec> parts;
    for (const Bytes& frame : frames) parts.push_back({const_cast<std::byte*>(frame.data()), frame.size()});
    std::vector<OutFrame> out;
    for (size_t i = 0; i < frames.size(); ++i)
      out.push_back({{}, std::span(parts).subspan(i, 1), static_cast<uint32_t>(frames[i].size())});
    return stream->send(0, out);
  }
  Bytes heard() {
    Bytes all;
    Bytes buffer(1 << 20);
    ssize_t count = 0;
    while ((count = ::read(peer.get(), buffer.data(), buffer.size())) > 0)
      all.insert(all.end(), buffer.begin(), buffer.begin() + count);
    return all;
  }

  UniqueFd peer;
  std::unique_ptr<NetBackend> stream;
};

TEST_F(StreamBackendTest, FramesInHoweverTheyAreCut) {
  Bytes all;
  std::vector<Bytes> frames;
  for (size_t size : {14u, 60u, 1514u, 65535u, 15u}) {
    frames.push_back(frame_of(size));
    const Bytes one = packed(frames.back());
    all.insert(all.end(), one.begin(), one.end());
  }
  std::mt19937 random(1);
  std::vector<Bytes> got;
  for (size_t at = 0; at < all.size();) {
    const size_t part = std::min<size_t>(all.size() - at, 1 + random() % 20'000);
    give(Bytes(all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + part)));
    at += part;
    while (auto frame = next()) got.push_back(std::move(*frame));
  }
  EXPECT_EQ(got, frames);
  EXPECT_FALSE(stream->broken());
}

// Another process goes on with the same socket: no byte is lost, wherever the first one has left off.
TEST_F(StreamBackendTest, GoesOnWhereAnotherHasLeftOff) {
  const Bytes small = frame_of(100);
  const Bytes large = frame_of(40'000);
  Bytes coming = packed(small);
  for (const Bytes& more : {packed(large), packed(small)})
    coming.insert(coming.end(), more.begin(), more.end());
  for (const size_t cut : {size_t{0}, size_t{2}, size_t{104}, size_t{107}, size_t{20'000}, coming.size()}) {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    UniqueFd same(::dup(pair[0]));
    stream = make_stream_backend(UniqueFd(pair[0]));
    // Of what goes out the socket takes a part.
    std::vector<Bytes> sent;
    while (send({large}) == 1) sent.push_back(large);
    give(Bytes(coming.begin(), coming.begin() + static_cast<ptrdiff_t>(cut)));
    std::vector<Bytes> got;
    if (auto first = next()) got.push_back(std::move(*first));
    const auto half_way = stream->half_way();
    stream = continue_stream_backend(std::move(same), half_way);
    stream->start(0);
    give(Bytes(coming.begin() + static_cast<ptrdiff_t>(cut), coming.end()));
    while (auto frame = next()) got.push_back(std::move(*frame));
    EXPECT_EQ(got, (std::vector{small, large, small})) << cut;
    Bytes all = heard();
    stream->flush(0);
    const Bytes rest = heard();
    all.insert(all.end(), rest.begin(), rest.end());
    Bytes expected;
    for (const Bytes& frame : sent) {
      const Bytes one = packed(frame);
      expected.insert(expected.end(), one.begin(), one.end());
    }
    EXPECT_EQ(all == expected, true) << cut << ": " << all.size() << " bytes, not " << expected.size();
    EXPECT_FALSE(stream->broken());
  }
}

TEST_F(StreamBackendTest, WhatAnotherHasLeftMayMakeNoSense) {
  const auto broken = [](const Bytes& half_way) {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    const UniqueFd other(pair[1]);
    return continue_stream_backend(UniqueFd(pair[0]), half_way)->broken();
  };
  const std::byte zero{0};
  EXPECT_FALSE(broken({}));
  EXPECT_FALSE(broken(Bytes(3, zero)));
  EXPECT_FALSE(broken(Bytes(4, zero)));
  EXPECT_TRUE(broken({zero, zero, zero, std::byte{1}}));
  EXPECT_TRUE(broken(Bytes(8, std::byte{0xff})));
  EXPECT_TRUE(broken(Bytes(4 + (512 << 10), zero)));
}

TEST_F(StreamBackendTest, LengthsThatAreNoneBreakIt) {
  for (const uint32_t length : {0u, 13u, 65536u, 0xffffffffu}) {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    stream = make_stream_backend(UniqueFd(pair[0]));
    Bytes bytes(100);
    for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<std::byte>(length >> (24 - 8 * i));
    give(bytes);
    EXPECT_FALSE(next());
    EXPECT_TRUE(stream->broken());
    EXPECT_FALSE(next());
    EXPECT_EQ(send({frame_of(60)}), 1u) << "dropped";
  }
}

TEST_F(StreamBackendTest, WholeFramesOutAndTheRestOfACutOneFirst) {
  std::vector<Bytes> taken;
  Bytes expected;
  // Until the socket is full.
  for (uint8_t i = 0;; ++i) {
    const std::vector<Bytes> batch{frame_of(9000, i), frame_of(3000, i), frame_of(70, i)};
    const size_t count = send(batch);
    for (size_t k = 0; k < count; ++k) {
      const Bytes one = packed(batch[k]);
      expected.insert(expected.end(), one.begin(), one.end());
    }
    if (count == 0) break;
  }
  EXPECT_EQ(send({frame_of(60)}), 0u);
  Bytes got = heard();
  EXPECT_EQ(send({frame_of(60)}), 1u);
  const Bytes one = packed(frame_of(60));
  expected.insert(expected.end(), one.begin(), one.end());
  const Bytes more = heard();
  got.insert(got.end(), more.begin(), more.end());
  EXPECT_TRUE(got == expected);
}

TEST_F(StreamBackendTest, TheRestOfACutFrameGoesOutWithNoOtherBehindIt) {
  Bytes expected;
  while (send({frame_of(60'000)}) == 1) {
    const Bytes one = packed(frame_of(60'000));
    expected.insert(expected.end(), one.begin(), one.end());
  }
  Bytes got = heard();
  ASSERT_LT(got.size(), expected.size()) << "no frame was cut";
  stream->flush(0);
  const Bytes more = heard();
  got.insert(got.end(), more.begin(), more.end());
  EXPECT_TRUE(got == expected);
}

TEST_F(StreamBackendTest, AnEndIsNoticedAndSurvived) {
  give(packed(frame_of(60)));
  peer.reset();
  EXPECT_TRUE(next()) << "what had come is given";
  EXPECT_FALSE(next());
  EXPECT_TRUE(stream->broken());
  EXPECT_EQ(send({frame_of(60), frame_of(60)}), 2u);
}

TEST_F(StreamBackendTest, StartDropsWhatCameBefore) {
  give(packed(frame_of(60, 1)));
  stream->start(0);
  EXPECT_FALSE(next());
  give(packed(frame_of(60, 2)));
  EXPECT_EQ(next(), frame_of(60, 2));
}

TEST_F(StreamBackendTest, APeerThatDiesInTheMiddleOfAFrame) {
  Bytes cut = packed(frame_of(1000));
  for (const size_t length : {1u, 3u, 4u, 5u, 1003u}) {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    stream = make_stream_backend(UniqueFd(pair[0]));
    give(packed(frame_of(60)));
    give(Bytes(cut.begin(), cut.begin() + static_cast<ptrdiff_t>(length)));
    EXPECT_EQ(next(), frame_of(60));
    EXPECT_FALSE(next());
    EXPECT_FALSE(stream->broken()) << "the rest may come";
    peer.reset();
    EXPECT_FALSE(next()) << "half a frame is none";
    EXPECT_TRUE(stream->broken());
  }
}

TEST_F(StreamBackendTest, APeerThatDiesWithAFullSocket) {
  size_t count = 0;
  while (send({frame_of(9000), frame_of(70)}) != 0) ASSERT_LT(++count, 10'000u);
  peer.reset();
  EXPECT_EQ(send({frame_of(60), frame_of(60)}), 2u) << "dropped";
  EXPECT_TRUE(stream->broken());
  EXPECT_FALSE(next());
}

TEST_F(StreamBackendTest, APeerThatReadsOneByteAtATime) {
  std::vector<Bytes> frames;
  while (send({frame_of(9000)}) == 1) frames.push_back(frame_of(9000));
  Bytes got;
  // Sends whatever fits after each read: cut frames go on where they were cut.
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    Bytes buffer(1 + random() % 700);
    const ssize_t count = ::read(peer.get(), buffer.data(), buffer.size());
    if (count > 0) got.insert(got.end(), buffer.begin(), buffer.begin() + count);
    const auto seed = static_cast<uint8_t>(random());
    const size_t size = 14 + random() % 3000;
    if (send({frame_of(size, seed)}) == 1) frames.push_back(frame_of(size, seed));
  }
  while (send({frame_of(14)}) == 0) {
    const Bytes more = heard();
    got.insert(got.end(), more.begin(), more.end());
  }
  frames.push_back(frame_of(14));
  const Bytes more = heard();
  got.insert(got.end(), more.begin(), more.end());
  Bytes expected;
  for (const Bytes& frame : frames) {
    const Bytes one = packed(frame);
    expected.insert(expected.end(), one.begin(), one.end());
  }
  EXPECT_EQ(got.size(), expected.size());
  EXPECT_TRUE(got == expected);
}

TEST_F(StreamBackendTest, GarbageIsFramesOrTheEnd) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    peer = UniqueFd(pair[1]);
    ::fcntl(peer.get(), F_SETFL, O_NONBLOCK);
    stream = make_stream_backend(UniqueFd(pair[0]));
    std::mt19937 random(seed);
    for (int i = 0; i < 20; ++i) {
      Bytes bytes(random() % 5000);
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      // Lengths that are believed now and then.
      if (bytes.size() >= 2 && random() % 2 == 0) bytes[0] = bytes[1] = std::byte{0};
      (void)!::write(peer.get(), bytes.data(), bytes.size());
      for (int k = 0; k < 1000; ++k) {
        const auto frame = next();
        if (!frame) break;
        ASSERT_GE(frame->size(), 14u);
        ASSERT_LE(frame->size(), 65535u);
      }
      if (random() % 4 == 0) (void)send({frame_of(60)});
      if (stream->broken()) break;
    }
  }
}

}  // namespace
}  // namespace snug::test
