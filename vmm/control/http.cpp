#include "vmm/control/http.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace snug {
namespace {

// RFC 9110, 5.6.2.
bool is_token(std::string_view text) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return std::isalnum(c) != 0 || kOthers.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::string_view reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 431:
      return "Request Header Fields Too Large";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Error";
  }
}

}  // namespace

bool HttpReader::stop(int error) {
  error_ = error;
  return false;
}

bool HttpReader::feed(std::string_view bytes) {
  if (error_ != 0) return false;
  if (!head_done_) {
    head_ += bytes;
    const size_t end = head_.find("\r\n\r\n");
    if (std::min(end, head_.size()) > kMaxHead) return stop(431);
    if (end == std::string::npos) return true;
    head_done_ = true;
    if (const int error = parse_head(std::string_view(head_).substr(0, end)); error != 0) return stop(error);
    request_.body = head_.substr(end + 4);
  } else {
    request_.body += bytes;
  }
  const size_t length = length_.value_or(0);
  if (request_.body.size() > length) return stop(400);
  return request_.body.size() < length;
}

int HttpReader::parse_head(std::string_view head) {
  size_t end = std::min(head.find("\r\n"), head.size());
  const std::string_view line = head.substr(0, end);
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return 400;
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!is_token(method) || !target.starts_with('/') || target.find(' ') != std::string_view::npos) return 400;
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return version.starts_with("HTTP/") ? 505 : 400;
  request_.method = method;
  request_.path = target.substr(0, target.find('?'));
  while (end < head.size()) {
    head.remove_prefix(end + 2);
    end = std::min(head.find("\r\n"), head.size());
    if (const int error = parse_field(head.substr(0, end)); error != 0) return error;
  }
  return 0;
}

int HttpReader::parse_field(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return 400;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (equals_ignoring_case(name, "transfer-encoding")) return 501;
  if (!equals_ignoring_case(name, "content-length")) return 0;
  size_t length = 0;
  // Two lengths, or a sign before one: somebody tries something.
  if (length_ || value.empty() || std::isdigit(static_cast<unsigned char>(value.front())) == 0) return 400;
  if (!parse_number(value, length))
    return value.find_first_not_of("0123456789") == std::string_view::npos ? 413 : 400;
  if (length > kMaxBody) return 413;
  length_ = length;
  return 0;
}

std::string http_response(int status, std::string_view json_body) {
  return fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
      status, reason_of(status), json_body.size(), json_body);
}

std::optional<HttpResponse> parse_http_response(std::string_view text) {
  constexpr std::string_view kStart = "HTTP/1.1 ";
  const size_t end = text.find("\r\n\r\n");
  HttpResponse response;
  if (!text.starts_with(kStart) || end == std::string_view::npos ||
      !parse_number(text.substr(kStart.size(), 3), response.status))
    return std::nullopt;
  response.body = text.substr(end + 4);
  return response;
}

}  // namespace snug
