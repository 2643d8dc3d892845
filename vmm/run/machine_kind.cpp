#include "vmm/run/machine_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string_view>

#include "vmm/base/checked.h"
#include "vmm/core/guest_memory.h"
#include "vmm/run/share_server.h"

namespace snug {
namespace {

// What images put on the command line (vmm/cli/container_image): it differs from one to the next.
constexpr std::array<std::string_view, 3> kWordsOfImages{"snug.volume=", "snug.init=", "snug.env="};
constexpr std::string_view kImageRoot = "snug.root=/dev/pmem0";

// Of an image: a smaller one costs the guest no less.
constexpr uint64_t kRoomMin = uint64_t{64} << 20;
// The guest notes 64 bytes for each 4 KiB of an image, be it there or not; and of its memory no more than so
// much is to be spent on what is not.
constexpr uint64_t kNoted = 64;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kSpent = 32;

template <class Each>
void for_each_word(std::string_view line, const Each& each) {
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end > 0) each(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
}

bool has_word(std::string_view line, std::string_view wanted) {
  bool found = false;
  for_each_word(line, [&](std::string_view word) { found |= word == wanted; });
  return found;
}

void append(std::string& line, std::string_view word) {
  if (!line.empty()) line += ' ';
  line += word;
}

// The first of mode pmem, which is the guest's pmem0.
std::optional<size_t> image_of(const Spec& spec) {
  const auto disk = std::ranges::find(spec.disks, DiskMode::kPmem, &DiskSpec::mode);
  if (disk == spec.disks.end() || !disk->readonly || !has_word(spec.cmdline, kImageRoot)) return std::nullopt;
  return static_cast<size_t>(disk - spec.disks.begin());
}

}  // namespace

MachineKind::MachineKind(const Spec& spec, std::span<const NetSpec> nics, MachineStarts starts)
    : spec_(&spec), nics_(nics), starts_(starts), kept_(spec.cmdline) {
  // What is in quotes may look like a word.
  const bool quoted = spec.cmdline.find('"') != std::string::npos;
  if (spec.root.empty() && !quoted) image_ = image_of(spec);
  leaves_root_ = !spec.root.empty() || image_;
  if (!image_) return;
  kept_.clear();
  for_each_word(spec.cmdline, [this](std::string_view word) {
    const bool of_image =
        std::ranges::any_of(kWordsOfImages, [&](std::string_view each) { return word.starts_with(each); });
    append(of_image ? told_ : kept_, word);
  });
}

std::string MachineKind::without_template() const {
  if (std::ranges::find(nics_, NetMode::kTap, &NetSpec::mode) != nics_.end()) return "it has a tap interface";
  if (!spec_->consoles.empty() || !spec_->channels.empty()) return "it has consoles or channels";
  // A thread of its own may write between the look at it and its standstill.
  const bool written = std::ranges::any_of(
      spec_->disks, [](const DiskSpec& disk) { return !disk.readonly && (!disk.ephemeral || disk.thread); });
  return written ? "it has disks that keep what is written to them" : "";
}

bool MachineKind::waits() const {
  return leaves_root_ || hands_over() || !nics_.empty() ||
         (!spec_->image.empty() && spec_->init == InitMode::kImage);
}

std::string_view MachineKind::late_word() const {
  if (leaves_root_) return "snug.late=root";
  if (hands_over()) return "snug.late=init";
  return waits() ? "snug.late" : "";
}

std::string MachineKind::words() const { return kept_; }

// Two to an octave: with fewer, more of the guest's memory would be spent, with more, fewer images would have
// the same.
uint64_t MachineKind::image_room(uint64_t bytes) const {
  const uint64_t octave = std::bit_ceil(std::max(bytes, kRoomMin));
  const uint64_t room = bytes <= octave / 4 * 3 && octave > kRoomMin ? octave / 4 * 3 : octave;
  const uint64_t exact = align_up(bytes, GuestMemory::kFileGranule);
  return (room - exact) / kPage * kNoted > spec_->memory / kSpent ? exact : room;
}

void MachineKind::describe(TemplateKind& kind, uint64_t image_bytes) const {
  kind.add("machine",
           fmt::format("{} {} {} {} {} {} {} {}", spec_->cpus, spec_->memory, spec_->kaslr, spec_->rng,
                       spec_->packed_rings, static_cast<int>(spec_->pci), spec_->vsock.cid,
                       spec_->balloon ? fmt::format("{}", *spec_->balloon) : "none"));
  kind.add("cmdline", kept_);
  if (hands_over()) kind.add("late", std::string(late_word()));
  for (const NetSpec& nic : nics_)
    kind.add("interface", fmt::format("{} {} {}", nic.mtu, nic.queues, nic.queue_size));
  for (size_t i = 0; i < spec_->disks.size(); ++i) {
    const DiskSpec& disk = spec_->disks[i];
    kind.add("disk", fmt::format("{} {} {} {} {}", static_cast<int>(disk.mode), disk.readonly, disk.serial,
                                 disk.queues, disk.queue_size));
    if (i == image_) kind.add("image", fmt::format("{}", image_room(image_bytes)));
  }
  // All else that there is to a share the guest learns when it mounts it.
  for (const ShareSpec& share : spec_->shares) kind.add("share", share.tag);
  if (!spec_->root.empty()) kind.add("share", ShareEnd::kRootTag);
}

}  // namespace snug
