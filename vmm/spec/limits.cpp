#include "vmm/spec/limits.h"

#include <fmt/format.h>

#include "vmm/spec/text.h"
#include "vmm/spec/units.h"

namespace snug {
namespace {

constexpr uint32_t kThousand = 1000;
constexpr uint32_t kCpusMin = 10;  // thousandths: the kernel's shortest slice, 1 ms, of the usual 100
constexpr uint32_t kCpusMax = 1024 * kThousand;
constexpr size_t kDecimals = 3;

std::optional<uint32_t> digits(std::string_view text, size_t most) {
  uint32_t number = 0;
  if (text.empty() || text.size() > most) return std::nullopt;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  return number;
}

// Thousandths of "1.5" and "2".
std::optional<uint32_t> thousandths_of(std::string_view text) {
  const size_t point = text.find('.');
  const auto whole = digits(text.substr(0, point), 4);
  if (!whole || (*whole > 0 && text.front() == '0')) return std::nullopt;
  if (point == std::string_view::npos) return *whole * kThousand;
  std::string fraction(text.substr(point + 1));
  if (!digits(fraction, kDecimals)) return std::nullopt;
  fraction.resize(kDecimals, '0');
  return *whole * kThousand + *digits(fraction, kDecimals);
}

bool in_range(uint32_t thousandths) { return thousandths >= kCpusMin && thousandths <= kCpusMax; }

// "150%" is what systemd and others would call 1.5.
std::string cpu_hint(std::string_view text) {
  if (!text.ends_with('%')) return {};
  const auto percent = digits(text.substr(0, text.size() - 1), 6);
  if (!percent || !in_range(*percent * kThousand / 100)) return {};
  return fmt::format(" (did you mean {}?)", format_cpus(*percent * kThousand / 100));
}

}  // namespace

std::optional<uint64_t> memory_max(const Spec& spec) {
  const MemoryLimit& limit = spec.limits.memory;
  switch (limit.kind) {
    case MemoryLimitKind::kNone:
      return std::nullopt;
    case MemoryLimitKind::kBeyondGuest:
      return spec.memory + limit.bytes;
    case MemoryLimitKind::kAll:
      return limit.bytes;
  }
  return std::nullopt;
}

std::string format_cpus(uint32_t thousandths) {
  std::string text = fmt::format("{}.{:03}", thousandths / kThousand, thousandths % kThousand);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::vector<std::string> limit_problems(const Spec& spec) {
  const MemoryLimit& limit = spec.limits.memory;
  if (limit.kind != MemoryLimitKind::kAll || limit.bytes >= spec.memory + kOwnMemoryMin) return {};
  return {fmt::format(
      "limits: memory: {} is for all of the machine, the guest's {} and {} at least for snug itself: give it "
      "{} or more, or say what it may have beyond the guest's, as in +64M",
      format_size(limit.bytes), format_size(spec.memory), format_size(kOwnMemoryMin),
      format_size(spec.memory + kOwnMemoryMin))};
}

namespace detail {

Result<std::optional<uint32_t>> parse_cpu_limit(const std::string& text) {
  if (text == "none") return std::optional<uint32_t>();
  const auto thousandths = thousandths_of(text);
  if (!thousandths || !in_range(*thousandths))
    return fail("expected {}, got {}{}", cpu_limit_value().expected, in_quotes(text), cpu_hint(text));
  return thousandths;
}

Result<MemoryLimit> parse_memory_limit(const std::string& text) {
  if (text == "none") return MemoryLimit{};
  if (text.starts_with('+'))
    return MemoryLimit{MemoryLimitKind::kBeyondGuest,
                       SNUG_TRY(parse_size_within(text.substr(1), kOwnMemoryMin, kMemoryLimitMax, 4 * kKiB))};
  return MemoryLimit{MemoryLimitKind::kAll,
                     SNUG_TRY(parse_size_within(text, 2 * kOwnMemoryMin, kMemoryLimitMax, 4 * kKiB))};
}

std::string print_memory_limit(const MemoryLimit& limit) {
  switch (limit.kind) {
    case MemoryLimitKind::kNone:
      return "none";
    case MemoryLimitKind::kBeyondGuest:
      return "+" + format_size(limit.bytes);
    case MemoryLimitKind::kAll:
      return format_size(limit.bytes);
  }
  return "none";
}

Result<std::optional<uint32_t>> parse_whole_or_none(const std::string& text, uint32_t min, uint32_t max) {
  if (text == "none") return std::optional<uint32_t>();
  const auto number = parse_whole(text, min, max);
  if (!number) return fail("expected {}, got {}", whole_or_none_value(min, max).expected, in_quotes(text));
  return static_cast<uint32_t>(*number);
}

Value cpu_limit_value() {
  return {.expected = fmt::format("a number of processors from {} to {}, as in 1.5, or 'none'",
                                  format_cpus(kCpusMin), format_cpus(kCpusMax)),
          .schema = fmt::format(R"("anyOf": [{{"type": "number", "minimum": {}, "maximum": {}}}, )"
                                R"({{"type": "string", "pattern": "^(none|[0-9]+([.][0-9]{{1,3}})?)$"}}])",
                                format_cpus(kCpusMin), format_cpus(kCpusMax)),
          .words = {"none"}};
}

Value memory_limit_value() {
  return {.expected = "a size, of all or, as in +64M, beyond the guest's memory, or 'none'",
          .schema = R"("type": "string", "pattern": "^(none|[+]?[0-9]+[KkMmGgTt]([Ii][Bb])?)$")",
          .words = {"none"}};
}

Value whole_or_none_value(uint32_t min, uint32_t max) {
  return {.expected = fmt::format("a whole number from {} to {} or 'none'", min, max),
          .schema = fmt::format(
              R"("anyOf": [{{"type": "integer", "minimum": {}, "maximum": {}}}, {{"enum": ["none"]}}])", min,
              max),
          .words = {"none"}};
}

}  // namespace detail
}  // namespace snug
