// Errors as values: host and set-up failures travel up as a Result, each layer adding context, and are
// printed once at the top. Guest misbehaviour never uses this path; our own bugs use SNUG_ASSERT.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace snug {

// A failure on the host side. `message` says what failed, outermost context first; `hint` says what the
// person can do about it (may be empty).
struct Error {
  std::string message;
  std::string hint;

  // "context: message", same hint.
  Error with_context(std::string_view context) && {
    message = fmt::format("{}: {}", context, message);
    return std::move(*this);
  }
  // The message, and the hint behind a semicolon.
  std::string text() const { return hint.empty() ? message : message + "; " + hint; }
};

template <class T = void>
using Result = tl::expected<T, Error>;

// fail("no {} here", what): an error without an errno.
template <class... Args>
tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{fmt::format(format, std::forward<Args>(args)...), {}});
}

// The same with advice on what to do.
inline tl::unexpected<Error> fail_with_hint(std::string message, std::string hint) {
  return tl::unexpected(Error{std::move(message), std::move(hint)});
}

// The text of an errno value; thread-safe.
std::string errno_text(int error_number);

// fail_errno(errno, "open {}", path): "open PATH: No such file or directory".
template <class... Args>
tl::unexpected<Error> fail_errno(int error_number, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{
      fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), errno_text(error_number)), {}});
}

// Adds context to the error of a result on its way up.
template <class T>
Result<T> with_context(Result<T> result, std::string_view context) {
  if (!result) return tl::unexpected(std::move(result.error()).with_context(context));
  return result;
}

namespace detail {
template <class T>
T take(Result<T>&& result) {
  return std::move(*result);
}
inline void take(Result<void>&&) {}
}  // namespace detail

}  // namespace snug

// auto fd = SNUG_TRY(open_file(path)); returns the error to the caller of the enclosing function.
#define SNUG_TRY(expression)                                                         \
  ({                                                                                 \
    auto snug_try_result = (expression);                                             \
    if (!snug_try_result) return tl::unexpected(std::move(snug_try_result).error()); \
    ::snug::detail::take(std::move(snug_try_result));                                \
  })
