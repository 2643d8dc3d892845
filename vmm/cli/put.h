// Printing for the commands. Nothing here throws, unlike fmt::print, which does when the disk is full or the
// reader is gone; and nothing is lost where stdout does not block, as when it is a pipe that an event loop
// reads: room is waited for. What went wrong on stdout, main() says at the end; what cannot be said on stderr
// is lost.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <utility>

namespace snug::cli {

// Writes all of it, however long that takes. False when nobody takes it: errno says why.
bool write_all(int fd, std::string_view bytes);

// `stream`: stdout or stderr, of which only the descriptor is used.
void put_text(std::FILE* stream, std::string_view text);

// Why something that was put on stdout is not there: an errno, 0 when all is.
int put_failure();

template <class... Args>
void put(std::FILE* stream, fmt::format_string<Args...> format, Args&&... args) {
  put_text(stream, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void put(fmt::format_string<Args...> format, Args&&... args) {
  put(stdout, format, std::forward<Args>(args)...);
}

}  // namespace snug::cli
