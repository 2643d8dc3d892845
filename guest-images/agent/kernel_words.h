// What snug says to the first program: words WORD=VALUE of the kernel's command line. A value's bytes that
// the line could not hold are written %XX.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace snug::agent {

// Of every WORD=VALUE with that word, in order.
std::vector<std::string> values_of(std::string_view word, std::string_view line);
// Of the first one; "" without it.
std::string value_of(std::string_view word, std::string_view line);

// Whether it is there by itself, without a value.
bool has_word(std::string_view word, std::string_view line);

}  // namespace snug::agent
