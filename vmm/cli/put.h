// Printing that never throws, unlike fmt::print, which does when the disk is full or the reader is gone. What
// went wrong on stdout, main() says at the end; what cannot be said on stderr is lost.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <utility>

namespace snug::cli {

template <class... Args>
void put(std::FILE* stream, fmt::format_string<Args...> format, Args&&... args) {
  std::fputs(fmt::format(format, std::forward<Args>(args)...).c_str(), stream);
}

template <class... Args>
void put(fmt::format_string<Args...> format, Args&&... args) {
  put(stdout, format, std::forward<Args>(args)...);
}

}  // namespace snug::cli
