// ELF notes: System V gABI, "Note Section"; Xen's public/elfnote.h for the PVH entry.
#include <algorithm>
#include <cstring>
#include <string_view>

#include "boot/elf.h"
#include "boot/elf_layout.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

constexpr uint32_t kXenPhys32Entry = 18;
constexpr uint32_t kGnuAbiTag = 1;
constexpr size_t kNoteSegmentsMax = 8;
constexpr uint64_t kNoteBytesMax = 64 * kKiB;

void note_found(std::string_view owner, uint32_t type, std::span<const std::byte> descriptor,
                ElfNoteFacts& facts) {
  if (owner == "Linux") facts.linux_owner = true;
  if (owner == "GNU" && type == kGnuAbiTag) facts.user_program = true;
  if (owner == "Xen" && type == kXenPhys32Entry && (descriptor.size() == 4 || descriptor.size() == 8))
    facts.pvh_entry = load_le(descriptor);
}

}  // namespace

void scan_notes(std::span<const std::byte> bytes, uint64_t alignment, ElfNoteFacts& facts) {
  // Both paddings exist in the wild; everything but 8 means 4.
  const uint64_t padding = alignment == 8 ? 8 : 4;
  uint64_t at = 0;
  while (range_within(at, sizeof(ElfNoteHeader), bytes.size())) {
    ElfNoteHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    // 32-bit sizes within a small buffer: these sums cannot wrap.
    const uint64_t name = at + sizeof header;
    const uint64_t descriptor = *checked_align_up(name + header.name_size, padding);
    if (!range_within(name, header.name_size, bytes.size()) ||
        !range_within(descriptor, header.descriptor_size, bytes.size()))
      return;
    std::string_view owner(reinterpret_cast<const char*>(bytes.data() + name), header.name_size);
    owner = owner.substr(0, owner.find('\0'));
    note_found(owner, header.type, bytes.subspan(descriptor, header.descriptor_size), facts);
    at = *checked_align_up(descriptor + header.descriptor_size, padding);
  }
}

Result<ElfNoteFacts> read_elf_notes(int fd, const ElfImage& image) {
  ElfNoteFacts facts;
  std::vector<std::byte> bytes;
  for (const ElfNotes& notes : std::span(image.notes).first(std::min(image.notes.size(), kNoteSegmentsMax))) {
    bytes.resize(std::min(notes.size, kNoteBytesMax));
    // Past what a file offset can be: nothing is there.
    if (notes.file_offset > INT64_MAX - kNoteBytesMax) continue;
    const size_t count = SNUG_TRY(read_at(fd, notes.file_offset, bytes));
    scan_notes(std::span(bytes).first(count), notes.alignment, facts);
    // Linkers have merged notes padded to 4 into segments aligned to 8.
    if (notes.alignment == 8) scan_notes(std::span(bytes).first(count), 4, facts);
  }
  return facts;
}

}  // namespace snug::boot
