#include "vmm/control/http.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace snug {
namespace {

int error_of(const std::string& text) {
  HttpReader reader;
  EXPECT_FALSE(reader.feed(text)) << text;
  return reader.error();
}

TEST(Http, ReadsARequestInAnyPieces) {
  const std::string text = "POST /v1/stop?x=1 HTTP/1.1\r\nHost: snug\r\ncontent-LENGTH:  5 \r\n\r\nhello";
  for (size_t step = 1; step <= text.size(); ++step) {
    HttpReader reader;
    bool more = true;
    for (size_t at = 0; at < text.size(); at += step) {
      ASSERT_TRUE(more);
      more = reader.feed(std::string_view(text).substr(at, step));
    }
    EXPECT_FALSE(more);
    EXPECT_EQ(reader.error(), 0);
    EXPECT_EQ(reader.request().method, "POST");
    EXPECT_EQ(reader.request().path, "/v1/stop");
    EXPECT_EQ(reader.request().body, "hello");
  }
}

TEST(Http, ARequestWithoutBodyEndsWithItsHead) {
  HttpReader reader;
  EXPECT_FALSE(reader.feed("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_EQ(reader.error(), 0);
  EXPECT_EQ(reader.request().body, "");
}

TEST(Http, RefusesWhatIsNoRequest) {
  EXPECT_EQ(error_of("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET / HTTP/1.1 x\r\n\r\n"), 400);
  EXPECT_EQ(error_of("G@T / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET x HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET / HTTP/2\r\n\r\n"), 505);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nno colon\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nA b: c\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 501);
}

TEST(Http, RefusesLengthsThatLie) {
  for (const char* length : {"", "-1", "+5", "5x", "0x5", "5 5"})
    EXPECT_EQ(error_of(fmt::format("GET / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", length)), 400) << length;
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), 400);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"), 413);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 413);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\nab"), 400);
  EXPECT_EQ(error_of("GET / HTTP/1.1\r\n\r\na"), 400);
}

TEST(Http, AHeadWithoutEndIsCutOff) {
  HttpReader reader;
  std::string field = "GET / HTTP/1.1\r\n";
  bool more = true;
  for (int i = 0; i < 10'000 && more; ++i) {
    more = reader.feed(field);
    field = "a: b\r\n";
  }
  EXPECT_FALSE(more);
  EXPECT_EQ(reader.error(), 431);
}

TEST(Http, ResponsesCanBeReadBack) {
  const auto response = parse_http_response(http_response(409, "{}"));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 409);
  EXPECT_EQ(response->body, "{}");
  for (const char* bad : {"", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n"})
    EXPECT_FALSE(parse_http_response(bad)) << bad;
}

}  // namespace
}  // namespace snug
