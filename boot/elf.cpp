#include "boot/elf.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "boot/elf_layout.h"
#include "vmm/base/checked.h"
#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

constexpr unsigned kSegmentsMax = 128;

template <class T>
T take(std::span<const std::byte> bytes, uint64_t offset = 0) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::string machine_name(uint16_t machine) {
  switch (machine) {
    case 8:
      return "MIPS";
    case 20:
      return "32-bit PowerPC";
    case 21:
      return "PowerPC";
    case 22:
      return "s390";
    case 40:
      return "32-bit ARM";
    case 183:
      return "ARM64";
    case 243:
      return "RISC-V";
    case 258:
      return "LoongArch";
    default:
      return fmt::format("machine type {}", machine);
  }
}

Result<void> check_ident(const ElfIdent& ident) {
  const bool known_class = ident.file_class == kElfClass32 || ident.file_class == kElfClass64;
  if (!known_class) return fail("an ELF file of unknown class {}", ident.file_class);
  const uint16_t machine = ident.machine;
  if (ident.data != kElfLittleEndian || (machine != kElfMachine386 && machine != kElfMachineX86_64)) {
    const std::string name = ident.data == kElfLittleEndian ? machine_name(machine) : "a big-endian machine";
    return fail_with_hint(fmt::format("an ELF file for {}", name), "snug runs x86-64 kernels");
  }
  switch (ident.type) {
    case kElfTypeExecutable:
      return {};
    case kElfTypeObject:
      return fail_with_hint("an ELF object file or kernel module",
                            "give the vmlinux or bzImage of the kernel");
    case kElfTypeShared:
      return fail_with_hint(
          "an ELF shared object or position-independent user program, not a kernel",
          "give a kernel (vmlinux or bzImage); a program runs in a guest from its initrd or disk");
    case kElfTypeCore:
      return fail("an ELF core dump, not a kernel");
    default:
      return fail("an ELF file of unknown type {}", static_cast<uint16_t>(ident.type));
  }
}

struct HeaderFacts {
  bool is_64;
  uint64_t entry, phoff, phentsize, phnum;
  uint64_t sections_end;  // 0 when there are none, or it wraps
};

Result<HeaderFacts> read_header(std::span<const std::byte> head) {
  if (!is_elf(head)) return fail("not an ELF file");
  if (head.size() < sizeof(Elf32Header)) return fail("an ELF file cut short after {} bytes", head.size());
  const auto ident = take<ElfIdent>(head);
  SNUG_TRY(check_ident(ident));
  const bool is_64 = ident.file_class == kElfClass64;
  if (is_64 && head.size() < sizeof(Elf64Header))
    return fail("an ELF file cut short after {} bytes", head.size());
  const auto facts = [is_64](const auto& header) {
    const uint64_t sections = uint64_t{header.shentsize} * header.shnum;
    const uint64_t sections_end =
        sections == 0 ? 0 : checked_add<uint64_t>(header.shoff, sections).value_or(0);
    return HeaderFacts{is_64, header.entry, header.phoff, header.phentsize, header.phnum, sections_end};
  };
  const HeaderFacts found = is_64 ? facts(take<Elf64Header>(head)) : facts(take<Elf32Header>(head));
  const uint64_t entry_size = is_64 ? sizeof(Elf64Phdr) : sizeof(Elf32Phdr);
  if (found.phnum == 0) return fail("an ELF file without program headers, so nothing to load");
  if (found.phnum > kSegmentsMax)
    return fail("an ELF file with {} program headers, more than {}", found.phnum, kSegmentsMax);
  if (found.phentsize != entry_size)
    return fail("an ELF file with program headers of {} bytes", found.phentsize);
  if (!range_within(found.phoff, found.phnum * entry_size, kElfHeadMax))
    return fail("an ELF file with its program headers at offset {:#x}, not in its first {} KiB", found.phoff,
                kElfHeadMax / kKiB);
  return found;
}

// The two classes' program headers in one shape.
struct ProgramHeader {
  uint32_t type;
  uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

ProgramHeader program_header(std::span<const std::byte> head, const HeaderFacts& facts, uint64_t index) {
  const auto widen = [](const auto& p) {
    return ProgramHeader{p.type, p.offset, p.vaddr, p.paddr, p.filesz, p.memsz, p.align};
  };
  const uint64_t at = facts.phoff + index * facts.phentsize;
  return facts.is_64 ? widen(take<Elf64Phdr>(head, at)) : widen(take<Elf32Phdr>(head, at));
}

Result<void> add_segment(ElfImage& image, const ProgramHeader& p) {
  if (p.memsz == 0) return {};
  if (p.filesz > p.memsz)
    return fail("a segment at {:#x} with more bytes in the file ({}) than in memory ({})", p.paddr, p.filesz,
                p.memsz);
  if (!checked_add(p.offset, p.filesz) || !checked_add(p.paddr, p.memsz))
    return fail("a segment at {:#x} that wraps around the address space", p.paddr);
  if (p.paddr < map::kHighRamStart)
    return fail_with_hint(
        fmt::format("a segment at {:#x}, below 1 MiB, where snug's boot structures lie", p.paddr),
        "link the kernel to a physical address of 1 MiB or more");
  image.segments.push_back({p.offset, p.filesz, p.memsz, p.paddr, p.vaddr});
  return {};
}

}  // namespace

std::optional<uint64_t> ElfImage::physical(uint64_t address) const {
  for (const ElfSegment& segment : segments)
    if (address >= segment.gpa && address - segment.gpa < segment.memory_size) return address;
  for (const ElfSegment& segment : segments) {
    const uint64_t offset = address - segment.virtual_address;
    if (address >= segment.virtual_address && offset < segment.memory_size) return segment.gpa + offset;
  }
  return std::nullopt;
}

bool is_elf(std::span<const std::byte> head) {
  return head.size() >= 4 && std::memcmp(head.data(),
                                         "\x7f"
                                         "ELF",
                                         4) == 0;
}

Result<uint64_t> elf_head_size(std::span<const std::byte> header) {
  const HeaderFacts facts = SNUG_TRY(read_header(header));
  return std::max<uint64_t>(kElfHeaderSize, facts.phoff + facts.phnum * facts.phentsize);
}

Result<ElfImage> parse_elf(std::span<const std::byte> head) {
  const HeaderFacts facts = SNUG_TRY(read_header(head));
  if (!range_within(facts.phoff, facts.phnum * facts.phentsize, head.size()))
    return fail("an ELF file cut short in its program headers");
  ElfImage image;
  image.is_64 = facts.is_64;
  image.entry = facts.entry;
  image.sections_end = facts.sections_end;
  for (uint64_t i = 0; i < facts.phnum; ++i) {
    const ProgramHeader p = program_header(head, facts, i);
    if (p.type == kElfLoad) SNUG_TRY(add_segment(image, p));
    if (p.type == kElfNote) image.notes.push_back({p.offset, p.filesz, p.align});
    if (p.type == kElfInterpreter || p.type == kElfThreadLocal) image.user_program = true;
  }
  if (image.segments.empty()) return fail("an ELF file without anything to load");
  std::ranges::sort(image.segments, {}, &ElfSegment::gpa);
  for (size_t i = 1; i < image.segments.size(); ++i) {
    const ElfSegment& before = image.segments[i - 1];
    if (image.segments[i].gpa < before.gpa + before.memory_size)
      return fail("an ELF file with segments at {:#x} and {:#x} that overlap", before.gpa,
                  image.segments[i].gpa);
  }
  return image;
}

Result<void> check_kernel_fits(const GuestMemory& memory, uint64_t start, uint64_t end) {
  if (end > map::kHoleStart)
    return fail(
        "the kernel needs memory from {:#x} to {:#x}, but guest RAM below 4 GiB ends at {:#x} at the latest",
        start, end, map::kHoleStart);
  if (start >= map::kHighRamStart && start <= end && end <= memory.low_end()) return {};
  return fail_with_hint(
      fmt::format("the kernel needs memory up to {:#x}, the guest has {} MiB", end, memory.size() / kMiB),
      fmt::format("raise memory to at least {}M", (end + kMiB - 1) / kMiB));
}

Result<void> load_elf_segments(int fd, const ElfImage& image, const GuestMemory& memory) {
  for (const ElfSegment& segment : image.segments)
    if (segment.file_size > 0)
      SNUG_TRY(with_context(memory.read_file(fd, segment.file_offset, segment.gpa, segment.file_size),
                            fmt::format("segment at {:#x}", segment.gpa)));
  return {};
}

}  // namespace snug::boot
