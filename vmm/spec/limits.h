// What the limits of a machine (LimitsSpec) mean, and the kinds of values that their keys have.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/spec/values.h"

namespace snug {

// What snug's processes take at the least beside the guest's memory: their own, the kernel's for them, and a
// part of the page cache that can be let go at any time.
constexpr uint64_t kOwnMemoryMin = 16 * kMiB;
constexpr uint64_t kMemoryLimitMax = 2048 * kGiB;

// All that the processes of a machine may have, in bytes; nothing: no limit.
std::optional<uint64_t> memory_max(const Spec& spec);

// "1.5", of thousandths.
std::string format_cpus(uint32_t thousandths);

// What is wrong with the limits as a whole, for a person; nothing when they are fine.
std::vector<std::string> limit_problems(const Spec& spec);

namespace detail {

Result<std::optional<uint32_t>> parse_cpu_limit(const std::string& text);
Result<MemoryLimit> parse_memory_limit(const std::string& text);
std::string print_memory_limit(const MemoryLimit& limit);
Result<std::optional<uint32_t>> parse_whole_or_none(const std::string& text, uint32_t min, uint32_t max);

Value cpu_limit_value();
Value memory_limit_value();
Value whole_or_none_value(uint32_t min, uint32_t max);

}  // namespace detail

// Processors' worth of time; "none" is no limit.
template <class T>
ValueOf<T> cpu_limit(std::optional<uint32_t> T::*member) {
  return detail::bind(
      detail::cpu_limit_value(), member,
      [](std::optional<uint32_t>& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_cpu_limit(text));
        return {};
      },
      [](const std::optional<uint32_t>& thousandths) {
        return std::vector{thousandths ? format_cpus(*thousandths) : std::string("none")};
      });
}

// Bytes, of all or, behind a '+', beyond the guest's; "none" is no limit.
template <class T>
ValueOf<T> memory_limit(MemoryLimit T::*member) {
  return detail::bind(
      detail::memory_limit_value(), member,
      [](MemoryLimit& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_memory_limit(text));
        return {};
      },
      [](const MemoryLimit& limit) { return std::vector{detail::print_memory_limit(limit)}; });
}

template <class T>
ValueOf<T> whole_or_none(std::optional<uint32_t> T::*member, uint32_t min, uint32_t max) {
  return detail::bind(
      detail::whole_or_none_value(min, max), member,
      [=](std::optional<uint32_t>& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_whole_or_none(text, min, max));
        return {};
      },
      [](const std::optional<uint32_t>& number) {
        return std::vector{number ? std::to_string(*number) : std::string("none")};
      });
}

}  // namespace snug
