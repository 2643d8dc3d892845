#include "vmm/host/cgroup_gauges.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <array>
#include <charconv>
#include <string_view>

namespace snug {
namespace {

UniqueFd open_if_there(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// These files are short. The call is one that the machine's process is allowed.
std::string text_of(const UniqueFd& file) {
  std::array<char, 4096> buffer;
  const iovec part{buffer.data(), buffer.size()};
  const ssize_t count = file ? ::preadv2(file.get(), &part, 1, 0, 0) : -1;
  return count > 0 ? std::string(buffer.data(), static_cast<size_t>(count)) : std::string();
}

std::optional<uint64_t> number_at(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

// Of lines that are a name and a number each.
std::optional<uint64_t> value_of(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.starts_with(name) && line.substr(name.size()).starts_with(' '))
      return number_at(line.substr(name.size() + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::nullopt;
}

}  // namespace

CgroupGauges CgroupGauges::open(const std::string& folder) {
  CgroupGauges gauges;
  gauges.cpu_stat_ = open_if_there(folder + "/cpu.stat");
  gauges.memory_current_ = open_if_there(folder + "/memory.current");
  gauges.memory_events_ = open_if_there(folder + "/memory.events");
  return gauges;
}

CgroupGauges::Reading CgroupGauges::read() const {
  const std::string cpu = text_of(cpu_stat_);
  const std::string events = text_of(memory_events_);
  return {.cpu_us = value_of(cpu, "usage_usec"),
          .periods = value_of(cpu, "nr_periods"),
          .throttled = value_of(cpu, "nr_throttled"),
          .throttled_us = value_of(cpu, "throttled_usec"),
          .memory = number_at(text_of(memory_current_)),
          .memory_hit = value_of(events, "max"),
          .killed = value_of(events, "oom_kill")};
}

}  // namespace snug
