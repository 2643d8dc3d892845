#include "vmm/run/handed_ends.h"

#include <fcntl.h>
#include <time.h>

#include <cerrno>

namespace snug {
namespace {

constexpr uint16_t kVersion = 1;
constexpr size_t kCommandsMax = size_t{16} << 20;

}  // namespace

Result<HandedEnds> HandedEnds::take(const Papers& papers) {
  for (const int fd : papers.descriptors())
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return fail_errno(errno, "descriptor {}", fd);
  HandedEnds ends;
  const auto own = [](int fd) { return UniqueFd(fd); };
  ends.talk = own(papers.talk);
  ends.calls = own(papers.calls);
  ends.news = own(papers.news);
  ends.state = own(papers.state);
  ends.memory = own(papers.memory);
  ends.ends = own(papers.ends);
  ends.kernel = own(papers.kernel);
  for (const int fd : papers.initrds) ends.initrds.push_back(own(fd));
  for (const Papers::Disk& disk : papers.disks) ends.disks.push_back({own(disk.file), own(disk.overlay)});
  for (const Papers::Nic& nic : papers.nics) {
    Nic& taken = ends.nics.emplace_back();
    for (const int fd : nic.taps) taken.taps.push_back(own(fd));
    taken.socket = own(nic.socket);
  }
  ends.control = own(papers.control);
  ends.console = own(papers.console);
  ends.vsock = own(papers.vsock);
  return ends;
}

void FormerLife::save(StateWriter& to) const {
  SectionWriter& out = to.section(kSection, kVersion);
  out.number(boots);
  out.number(updates);
  out.number(began);
  out.number(stands_since);
  out.number(created_at);
  out.text(commands);
}

Result<FormerLife> FormerLife::restore(StateReader& from) {
  auto in = SNUG_TRY(from.section(kSection, kVersion));
  FormerLife life;
  life.boots = in.number<uint32_t>();
  life.updates = in.number<uint32_t>();
  life.began = in.number<uint64_t>();
  life.stands_since = in.number<uint64_t>();
  life.created_at = in.number<uint64_t>();
  life.commands = in.text(kCommandsMax);
  SNUG_TRY(in.finish());
  return life;
}

uint64_t FormerLife::now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace snug
