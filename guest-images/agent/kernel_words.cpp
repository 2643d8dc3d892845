#include "guest-images/agent/kernel_words.h"

#include <algorithm>

namespace snug::agent {
namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decoded(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text.size() - i > 2 ? digit_of(text[i + 1]) : -1;
    const int low = text.size() - i > 2 ? digit_of(text[i + 2]) : -1;
    if (text[i] != '%' || high < 0 || low < 0) {
      bytes += text[i];
      continue;
    }
    bytes += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return bytes;
}

// Taken off the line.
std::string_view next_word(std::string_view& line) {
  const size_t end = std::min(line.find_first_of(" \n"), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

}  // namespace

std::vector<std::string> values_of(std::string_view word, std::string_view line) {
  std::vector<std::string> values;
  while (!line.empty()) {
    const std::string_view one = next_word(line);
    if (one.starts_with(word) && one.substr(word.size()).starts_with('='))
      values.push_back(decoded(one.substr(word.size() + 1)));
  }
  return values;
}

bool has_word(std::string_view word, std::string_view line) {
  while (!line.empty())
    if (next_word(line) == word) return true;
  return false;
}

std::string value_of(std::string_view word, std::string_view line) {
  const auto values = values_of(word, line);
  return values.empty() ? std::string() : values.front();
}

}  // namespace snug::agent
