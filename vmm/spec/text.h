// Small helpers for the text in specs and about them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

// 'text' for a message: in quotes, cut to about 60 characters, control characters and invalid UTF-8 escaped.
std::string in_quotes(std::string_view text);

// Bytes of the well-formed UTF-8 character at `offset` (RFC 3629); 0 when there is none.
size_t utf8_length(std::string_view text, size_t offset);

// Why the text may not be used as a value: "control characters are not allowed", "not valid UTF-8".
std::optional<std::string> bad_text(std::string_view text);
bool is_utf8(std::string_view text);

// RFC 4648, section 4, with padding. What is read may have spaces and line ends in it; nothing: it is none.
std::string to_base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);

// The candidate that was probably meant: at most two typing mistakes (Damerau-Levenshtein; one for short
// words), or one of both begins with the other (of at least two characters). Ignores case; '-' equals '_'.
std::optional<std::string> closest(std::string_view word, std::span<const std::string> candidates);

// " (did you mean 'X'?)", or nothing.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

// "a", "a or b", "a, b or c".
std::string or_list(std::span<const std::string> words);

std::vector<std::string> split(std::string_view text, char separator);

// A JSON string with its quotes.
std::string json_string(std::string_view text);

}  // namespace snug
