// The little of HTTP/1.1 (RFC 9112) that the control interface speaks: one request for each connection, a
// bounded head, a body of known length. Pure text work, no I/O. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace snug {

struct HttpRequest {
  std::string method;
  std::string path;  // without the query
  std::string body;
};

class HttpReader {
 public:
  static constexpr size_t kMaxHead = 8192;   // bytes: request line and fields
  static constexpr size_t kMaxBody = 65536;  // bytes

  // Takes what has come in; false when no more is needed: a request is there, or an error.
  bool feed(std::string_view bytes);
  // 0, or the status code of what is wrong with the request (400, 413, 431, 501, 505).
  int error() const { return error_; }
  // When feed() has returned false and there is no error.
  const HttpRequest& request() const { return request_; }

 private:
  bool stop(int error);
  int parse_head(std::string_view head);
  int parse_field(std::string_view line);

  std::string head_;
  bool head_done_ = false;
  std::optional<size_t> length_;
  HttpRequest request_;
  int error_ = 0;
};

// A whole response, with the connection to be closed behind it.
std::string http_response(int status, std::string_view json_body);

struct HttpResponse {
  int status = 0;
  std::string body;
};
// What a server sent until it closed the connection; nothing when it is no response.
std::optional<HttpResponse> parse_http_response(std::string_view text);

}  // namespace snug
