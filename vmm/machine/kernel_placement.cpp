#include "vmm/machine/kernel_placement.h"

#include <sys/stat.h>

#include <array>

#include "vmm/base/checked.h"
#include "vmm/base/random.h"

namespace snug {
namespace {

uint64_t room_for(std::span<const int> initrd_fds) {
  uint64_t room = 0;
  for (const int fd : initrd_fds) {
    struct stat status {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return UINT64_MAX;
    const auto sum = checked_add<uint64_t>(room, static_cast<uint64_t>(status.st_size) + kPageSize);
    if (!sum) return UINT64_MAX;
    room = *sum;
  }
  return room;
}

}  // namespace

bool forbids_kaslr(std::string_view cmdline) {
  constexpr std::string_view kWord = "nokaslr";
  while (!cmdline.empty()) {
    const size_t end = cmdline.find(' ');
    if (cmdline.substr(0, end) == kWord) return true;
    if (end == std::string_view::npos) return false;
    cmdline.remove_prefix(end + 1);
  }
  return false;
}

boot::Placement random_placement(std::span<const int> initrd_fds) {
  std::array<uint64_t, 2> random{};
  // 16 bytes come at once or not at all (getrandom(2)); it waits only while the host itself boots.
  if (get_random(std::as_writable_bytes(std::span(random))) != sizeof random) return {};
  return {true, room_for(initrd_fds), random[0], random[1]};
}

}  // namespace snug
