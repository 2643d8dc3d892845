#include "vmm/spec/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace snug {
namespace {

std::string folded(std::string_view word) {
  std::string out(word);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return out;
}

// Damerau-Levenshtein, the variant that moves no character twice.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t swap = a[i - 1] == b[j - 1] ? 0 : 1;
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + swap});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, now);
  }
  return last[b.size()];
}

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

}  // namespace

size_t utf8_length(std::string_view text, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const size_t left = text.size() - offset;
  if (left == 0) return 0;
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || left < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Longer than needed, a surrogate, or past U+10FFFF.
  const unsigned char second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f)) return 0;
  if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) return 0;
  return length;
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "'";
  size_t offset = 0;
  while (offset < text.size() && offset < kLongest) {
    const size_t length = utf8_length(text, offset);
    const auto c = static_cast<unsigned char>(text[offset]);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (length == 0 || is_control(c)) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += text.substr(offset, length);
    }
    offset += std::max<size_t>(length, 1);
  }
  return out + (offset < text.size() ? "...'" : "'");
}

bool is_utf8(std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    const size_t length = utf8_length(text, offset);
    if (length == 0) return false;
    offset += length;
  }
  return true;
}

std::string to_base64(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(bytes.size() - i, 3);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k) out += k <= count ? kBase64[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string out;
  uint32_t group = 0;
  size_t digits = 0, padding = 0;
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
    const size_t value = c == '=' ? 0 : kBase64.find(c);
    // Nothing but padding behind padding.
    if (value == std::string_view::npos || (padding > 0 && c != '=')) return std::nullopt;
    if (c == '=' && ++padding + digits % 4 < 3) return std::nullopt;
    group = group << 6 | static_cast<uint32_t>(value);
    if (++digits % 4 != 0) continue;
    for (const int shift : {16, 8, 0}) out += static_cast<char>(group >> shift);
    group = 0;
  }
  if (digits % 4 != 0 || padding > 2) return std::nullopt;
  for (; padding > 0; --padding) out.pop_back();
  return out;
}

std::optional<std::string> bad_text(std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    const size_t length = utf8_length(text, offset);
    if (length == 0) return "not valid UTF-8";
    if (is_control(static_cast<unsigned char>(text[offset]))) return "control characters are not allowed";
    offset += length;
  }
  return std::nullopt;
}

std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates) {
  constexpr size_t kLongest = 64;
  if (word.empty() || word.size() > kLongest) return std::nullopt;
  const std::string wanted = folded(word);
  const std::string* best = nullptr;
  size_t best_distance = wanted.size() <= 3 ? 1 : 2;
  for (const auto& candidate : candidates) {
    const size_t found = distance(wanted, folded(candidate));
    if (found < best_distance || (best == nullptr && found == best_distance)) {
      best = &candidate;
      best_distance = found;
    }
  }
  for (size_t i = 0; best == nullptr && i < candidates.size(); ++i) {
    const std::string other = folded(candidates[i]);
    const bool prefix =
        wanted.size() >= 2 && other.size() >= 2 && (other.starts_with(wanted) || wanted.starts_with(other));
    if (prefix) best = &candidates[i];
  }
  return best != nullptr ? std::optional(*best) : std::nullopt;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> candidates) {
  const auto meant = closest(word, candidates);
  return meant ? fmt::format(" (did you mean '{}'?)", *meant) : std::string();
}

std::string or_list(std::span<const std::string> words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? " or " : ", ";
    out += words[i];
  }
  return out;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (is_control(static_cast<unsigned char>(c))) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace snug
