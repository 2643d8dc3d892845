#include "vmm/core/touched_pages.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <vector>

// linux/mman.h since 5.14
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace snug {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPagesMax = 4096;
constexpr size_t kRunsMax = 2048;  // of pages side by side

// Documentation/admin-guide/mm/pagemap.rst
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kOfFile = uint64_t{1} << 61;

// By number, the one at guest address 0 being the first.
struct Run {
  uint32_t first = 0;
  uint32_t count = 0;
};

std::string text_of(const std::vector<Run>& runs) {
  return {reinterpret_cast<const char*>(runs.data()), runs.size() * sizeof(Run)};
}

}  // namespace

std::string touched_pages(const GuestMemory& memory, const UniqueFd& pagemap) {
  if (!pagemap) return {};
  std::vector<uint64_t> entries(8192);
  std::vector<Run> runs;
  uint64_t total = 0;
  for (const GuestMemory::Region& region : memory.regions()) {
    for (uint64_t at = 0; at < region.size;) {
      const uint64_t wanted = std::min<uint64_t>(entries.size(), (region.size - at) / kPage);
      const iovec part{entries.data(), wanted * sizeof(uint64_t)};
      const uint64_t from = reinterpret_cast<uint64_t>(region.host + at) / kPage * sizeof(uint64_t);
      const ssize_t got = ::preadv2(pagemap.get(), &part, 1, static_cast<off_t>(from), 0);
      if (got < static_cast<ssize_t>(sizeof(uint64_t))) return {};
      const auto count = static_cast<size_t>(got) / sizeof(uint64_t);
      for (size_t i = 0; i < count; ++i) {
        if ((entries[i] & (kPresent | kOfFile)) != kPresent) continue;
        const uint64_t number = (region.gpa + at) / kPage + i;
        if (++total > kPagesMax || number > UINT32_MAX) return {};
        if (runs.empty() || number != uint64_t{runs.back().first} + runs.back().count)
          runs.push_back({static_cast<uint32_t>(number), 0});
        ++runs.back().count;
      }
      at += count * kPage;
    }
  }
  return runs.size() <= kRunsMax ? text_of(runs) : std::string();
}

void own_pages(const GuestMemory& memory, std::string_view touched) {
  uint64_t total = 0;
  std::vector<iovec> place;
  for (size_t at = 0; at + sizeof(Run) <= std::min(touched.size(), kRunsMax * sizeof(Run));
       at += sizeof(Run)) {
    Run run;
    std::memcpy(&run, touched.data() + at, sizeof run);
    total += run.count;
    if (total > kPagesMax) return;
    place.clear();
    if (!memory.append_iovec(uint64_t{run.first} * kPage, uint64_t{run.count} * kPage, place)) continue;
    if (::madvise(place[0].iov_base, place[0].iov_len, MADV_POPULATE_WRITE) != 0) return;
  }
}

}  // namespace snug
