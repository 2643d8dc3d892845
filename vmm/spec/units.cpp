#include "vmm/spec/units.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "vmm/base/checked.h"
#include "vmm/spec/text.h"

namespace snug {
namespace {

constexpr std::string_view kSizeExpected = "expected a size such as 512M or 2G";
constexpr std::string_view kDurationExpected = "expected a duration such as 500ms, 30s, 5m or 1m30s";
constexpr std::string_view kSuffixes = "KMGT";

// Takes the digits at the front off. Nothing when there are none or the number is beyond 64 bits.
std::optional<uint64_t> take_number(std::string_view& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return out;
}

// The shift of a suffix (10 for "K" and "KIB"), or 0.
unsigned suffix_shift(std::string_view suffix) {
  if (suffix.size() != 1 && (suffix.size() != 3 || !suffix.ends_with("IB"))) return 0;
  const size_t index = kSuffixes.find(suffix[0]);
  return index == std::string_view::npos ? 0 : static_cast<unsigned>(10 * (index + 1));
}

// What a size without a usable suffix was probably meant to be.
std::string size_hint(uint64_t number, const std::string& rest) {
  if (rest.empty() && number >= kMiB && number % kKiB == 0) return format_size(number);
  if (rest.empty()) return number > 0 && number < kMiB ? std::to_string(number) + "M" : "";
  // "512MB".
  if (rest.size() == 2 && rest[1] == 'B' && suffix_shift(rest.substr(0, 1)) != 0) {
    return std::to_string(number) + rest[0];
  }
  // "1.5G": in the next smaller unit, when that is whole.
  std::string_view fraction = rest;
  if (!fraction.starts_with('.')) return "";
  fraction.remove_prefix(1);
  const size_t digits = fraction.find_first_not_of("0123456789");
  if (digits == std::string_view::npos || digits == 0 || digits > 3) return "";
  const unsigned shift = suffix_shift(fraction.substr(digits));
  uint64_t tenths = 0;
  std::from_chars(fraction.data(), fraction.data() + digits, tenths);
  const std::array<uint64_t, 4> powers{1, 10, 100, 1000};
  const uint64_t part = tenths * 1024;
  if (shift < 20 || number > 1'000'000 || part % powers[digits] != 0) return "";
  return fmt::format("{}{}", number * 1024 + part / powers[digits], kSuffixes[shift / 10 - 2]);
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number) return fail("{}, got {}", kSizeExpected, in_quotes(text));
  const std::string suffix = upper(rest);
  const unsigned shift = suffix_shift(suffix);
  if (shift == 0) {
    const std::string hint = size_hint(*number, suffix);
    return fail("{}, got {}{}", kSizeExpected, in_quotes(text),
                hint.empty() ? hint : fmt::format(" (did you mean {}?)", hint));
  }
  const auto bytes = checked_mul(*number, uint64_t{1} << shift);
  if (!bytes) return fail("{} is too large", in_quotes(text));
  return *bytes;
}

std::string format_size(uint64_t bytes) {
  for (size_t i = kSuffixes.size(); bytes > 0 && i > 0; --i) {
    const uint64_t unit = uint64_t{1} << (10 * i);
    if (bytes % unit == 0) return fmt::format("{}{}", bytes / unit, kSuffixes[i - 1]);
  }
  return std::to_string(bytes);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view name;
    uint64_t ms;
  };
  constexpr std::array<Unit, 4> kUnits{{{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
  constexpr uint64_t kYear = uint64_t{365} * 24 * 3'600'000;
  if (text == "0") return std::chrono::milliseconds(0);
  uint64_t total = 0;
  size_t next_unit = 0;
  std::string_view rest = text;
  bool complete = !text.empty();
  while (complete && !rest.empty()) {
    const auto number = take_number(rest);
    const auto name = rest.substr(0, rest.find_first_of("0123456789"));
    const auto* unit =
        std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.name == name; });
    const auto index = static_cast<size_t>(unit - kUnits.begin());
    if (number && rest.empty() && total == 0) {
      return fail("{}, got {} (did you mean {}s?)", kDurationExpected, in_quotes(text), *number);
    }
    complete = number && unit != kUnits.end() && index >= next_unit;
    if (!complete) break;
    next_unit = index + 1;
    rest.remove_prefix(name.size());
    const auto part = checked_mul(*number, unit->ms);
    if (!part || *part > kYear || total + *part > kYear)
      return fail("{} is more than a year", in_quotes(text));
    total += *part;
  }
  if (!complete) return fail("{}, got {}", kDurationExpected, in_quotes(text));
  return std::chrono::milliseconds(total);
}

std::string format_duration(std::chrono::milliseconds duration) {
  uint64_t left = static_cast<uint64_t>(std::max<int64_t>(duration.count(), 0));
  if (left == 0) return "0";
  std::string out;
  const auto take = [&](uint64_t unit, const char* name) {
    if (left >= unit) out += fmt::format("{}{}", left / unit, name);
    left %= unit;
  };
  take(3'600'000, "h");
  take(60'000, "m");
  take(1'000, "s");
  take(1, "ms");
  return out;
}

}  // namespace snug
