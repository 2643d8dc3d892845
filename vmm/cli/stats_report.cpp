#include "vmm/cli/stats_report.h"

#include <fmt/format.h>

namespace snug::cli {
namespace {

template <class Map>
void append_counts(std::string& text, const char* what, const Map& counts) {
  for (const auto& [address, count] : counts)
    text += fmt::format("stats: {} {:#x} {}\n", what, address, count);
}

}  // namespace

std::string stats_report(const RunReport& report) {
  std::string text;
  text += fmt::format("stats: boots {}\n", report.boots);
  text += fmt::format("stats: cpu_before_first_run {:.3f} ms\n",
                      static_cast<double>(report.cpu_ns_at_first_run) / 1e6);
  text += fmt::format("stats: exits {}\n", report.exits.total());
  for (size_t reason = 0; reason < report.exits.by_reason.size(); ++reason)
    if (const uint64_t count = report.exits.by_reason[reason]; count > 0)
      text +=
          fmt::format("stats: exits.{} {}\n", kvm::exit_reason_name(static_cast<uint32_t>(reason)), count);
  if (report.exits.interrupted > 0)
    text += fmt::format("stats: exits.interrupted {}\n", report.exits.interrupted);
  text += fmt::format("stats: coalesced_writes {}\n", report.exits.coalesced_writes);
  append_counts(text, "port_read", report.exits.port_reads);
  append_counts(text, "port_write", report.exits.port_writes);
  append_counts(text, "mmio_read", report.exits.mmio_reads);
  append_counts(text, "mmio_write", report.exits.mmio_writes);
  return text;
}

}  // namespace snug::cli
