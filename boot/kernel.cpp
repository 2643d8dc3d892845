#include "boot/kernel.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "boot/byte_stream.h"
#include "boot/elf.h"
#include "boot/file_kind.h"
#include "boot/payload.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

// COMMAND_LINE_SIZE of Linux on x86, without the NUL: what is longer is silently cut by the kernel.
constexpr uint32_t kLinuxCmdlineMax = 2047;
constexpr uint32_t kAnyCmdlineMax = map::kCmdlineMax - 1;
// "The maximum address that may be occupied by the initial ramdisk"; ELF kernels state none.
constexpr uint64_t kElfInitrdMax = map::kHoleStart - 1;
// Unpacked kernels are a few dozen MiB; debug builds reach hundreds.
constexpr uint64_t kUnpackedMax = kGiB;

Result<uint64_t> regular_file_size(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  if (S_ISDIR(status.st_mode)) return fail("a directory, not a kernel");
  if (!S_ISREG(status.st_mode))
    return fail_with_hint("not a regular file", "copy the kernel to a file first");
  return static_cast<uint64_t>(status.st_size);
}

Result<uint64_t> entry_of(const ElfImage& image, uint64_t address) {
  const auto entry = image.physical(address);
  if (!entry) return fail("its entry point {:#x} lies outside of what it loads", address);
  return *entry;
}

uint32_t cmdline_limit(const SetupHeader& header) {
  // 2.06+: cmdline_size; 0 cannot be meant.
  return header.cmdline_size == 0 ? 255 : std::min(header.cmdline_size, kAnyCmdlineMax);
}

void note_extents(const ElfImage& image, LoadedKernel& kernel) {
  for (const ElfSegment& segment : image.segments)
    if (segment.file_size > 0) kernel.extents.push_back({segment.gpa + kernel.moved_by, segment.file_size});
}

LoadedKernel from_bzimage(const SetupHeader& header) {
  LoadedKernel kernel;
  kernel.is_linux = true;
  kernel.protocol = EntryProtocol::kLinux64;
  kernel.initrd_max = header.initrd_addr_max;
  kernel.cmdline_max = cmdline_limit(header);
  kernel.setup_header = header;
  return kernel;
}

// Loads the protected-mode code as a boot loader does and enters it 0x200 behind its start: it unpacks
// itself.
Result<LoadedKernel> load_unopened(int fd, const GuestMemory& memory, const SetupHeader& header,
                                   std::string_view why) {
  if (!header.has_64bit_entry)
    return fail_with_hint(fmt::format("a 32-bit Linux kernel, or one older than Linux 3.8 ({})", why),
                          "snug runs x86-64 kernels");
  LoadedKernel kernel = from_bzimage(header);
  kernel.start = header.pref_address != 0 ? header.pref_address : header.alignment;
  if (kernel.start < map::kHighRamStart)
    return fail("a bzImage that wants to be loaded at {:#x}, below 1 MiB", kernel.start);
  const auto end =
      checked_add<uint64_t>(kernel.start, std::max<uint64_t>(header.init_size, header.code_size));
  if (!end) return fail("a bzImage that wants to be loaded at {:#x}", kernel.start);
  kernel.end = *end;
  kernel.entry = kernel.start + 0x200;
  if (header.code_size <= 0x200) return fail("a bzImage cut short: no 64-bit entry");
  SNUG_TRY(check_kernel_fits(memory, kernel.start, kernel.end));
  SNUG_TRY(memory.read_file(fd, header.code_offset, kernel.start, header.code_size));
  kernel.extents.push_back({kernel.start, header.code_size});
  kernel.unpacks_itself = true;
  kernel.format = fmt::format("bzImage, {}, entered at its own 64-bit entry", why);
  return kernel;
}

// The size that ends every payload (Linux, scripts/Makefile.lib, size_append; RFC 1952 ISIZE for gzip).
Result<uint32_t> unpacked_size(int fd, const SetupHeader& header) {
  le32 size;
  const auto bytes = std::as_writable_bytes(std::span(&size, 1));
  if (SNUG_TRY(read_at(fd, header.payload_offset + header.payload_size - sizeof size, bytes)) < sizeof size)
    return fail("a bzImage cut short in its packed kernel");
  if (size > kUnpackedMax)
    return fail("a bzImage whose kernel would unpack to {} MiB, more than {} MiB", size / kMiB,
                kUnpackedMax / kMiB);
  return static_cast<uint32_t>(size);
}

Result<LoadedKernel> load_bzimage(int fd, const GuestMemory& memory, const SetupHeader& header,
                                  const Placement& placement) {
  if (header.payload_size < kPayloadMagicSize) return load_unopened(fd, memory, header, "no payload stated");
  std::array<std::byte, kPayloadMagicSize> magic{};
  if (SNUG_TRY(read_at(fd, header.payload_offset, magic)) < magic.size())
    return fail("a bzImage cut short in its packed kernel");
  const auto format = identify_payload(magic);
  if (!format) return load_unopened(fd, memory, header, "payload of unknown format");
  const auto description = fmt::format("{} payload", payload_format_name(*format));
  if (!can_unpack(*format)) return load_unopened(fd, memory, header, description);

  // gzip's own trailer is the size; the other formats have it appended. An uncompressed kernel has none.
  const bool plain = *format == PayloadFormat::kElf;
  const uint64_t size = plain ? header.payload_size : SNUG_TRY(unpacked_size(fd, header));
  const uint64_t appended = plain || *format == PayloadFormat::kGzip ? 0 : 4;
  FileSource source(fd, header.payload_offset, header.payload_size - appended);
  const uint64_t step = placement_step(header);
  ElfSink sink(memory, header.init_size, step != 0 ? placement : Placement{},
               placement_limit(memory, header.initrd_addr_max), step);
  auto unpacked = unpack(*format, source, sink, size);
  auto image = unpacked ? sink.finish() : tl::unexpected(std::move(unpacked.error()));
  if (!sink.is_kernel())
    return load_unopened(fd, memory, header, description + " without an x86-64 ELF inside");
  if (!image) return tl::unexpected(std::move(image.error()).with_context(description));

  LoadedKernel kernel = from_bzimage(header);
  const uint64_t start = image->start();
  const uint64_t end = std::max(image->end(), start + header.init_size);
  kernel.moved_by = sink.offset();
  kernel.entry = SNUG_TRY(entry_of(*image, image->entry)) + kernel.moved_by;
  kernel.start = start + kernel.moved_by;
  kernel.end = end + kernel.moved_by;
  if (step != 0) kernel.relocations = parse_relocations(sink.tail(), start, image->end() - start);
  note_extents(*image, kernel);
  kernel.format = fmt::format("bzImage, {}, entered at the ELF inside", description);
  return kernel;
}

Result<void> choose_elf_entry(const ElfImage& image, const ElfNoteFacts& notes, LoadedKernel& kernel) {
  const bool pvh = notes.pvh_entry && (!image.is_64 || !notes.linux_owner);
  if (pvh) {
    kernel.protocol = EntryProtocol::kPvh;
    kernel.entry = *notes.pvh_entry;
    // Physical by definition: nothing to translate.
    if (image.physical(kernel.entry) != kernel.entry)
      return fail("its PVH entry point {:#x} lies outside of what it loads", kernel.entry);
    kernel.format = image.is_64 ? "ELF64, entered by PVH" : "ELF32, entered by PVH";
  } else {
    if (!image.is_64)
      return fail_with_hint("a 32-bit ELF file without a PVH entry",
                            "snug runs x86-64 kernels and 32-bit ones with a PVH note");
    kernel.protocol = EntryProtocol::kLinux64;
    kernel.entry = SNUG_TRY(entry_of(image, image.entry));
    kernel.format = "ELF64, entered by the 64-bit Linux protocol";
  }
  kernel.is_linux = notes.linux_owner;
  kernel.cmdline_max = notes.linux_owner ? kLinuxCmdlineMax : kAnyCmdlineMax;
  return {};
}

Result<LoadedKernel> load_elf(int fd, const GuestMemory& memory, std::span<const std::byte> head,
                              uint64_t file_size) {
  std::vector<std::byte> more;
  const uint64_t needed = SNUG_TRY(elf_head_size(head.first(std::min(head.size(), kElfHeaderSize))));
  if (needed > head.size()) {
    more.resize(needed);
    more.resize(SNUG_TRY(read_at(fd, 0, more)));
    head = more;
  }
  const ElfImage image = SNUG_TRY(parse_elf(head));
  const ElfNoteFacts notes = SNUG_TRY(read_elf_notes(fd, image));
  if (image.user_program || notes.user_program)
    return fail_with_hint("an ELF user program, not a kernel",
                          "give a vmlinux or bzImage; a program runs in a guest from its initrd or disk");
  for (const ElfSegment& segment : image.segments)
    if (!range_within(segment.file_offset, segment.file_size, file_size))
      return fail("an ELF file cut short: its segment at {:#x} ends at byte {}, the file has {}", segment.gpa,
                  segment.file_offset + segment.file_size, file_size);
  LoadedKernel kernel;
  kernel.start = image.start();
  kernel.end = image.end();
  kernel.initrd_max = kElfInitrdMax;
  SNUG_TRY(choose_elf_entry(image, notes, kernel));
  SNUG_TRY(check_kernel_fits(memory, kernel.start, kernel.end));
  SNUG_TRY(load_elf_segments(fd, image, memory));
  note_extents(image, kernel);
  return kernel;
}

}  // namespace

uint64_t placement_step(const SetupHeader& header) { return header.relocatable ? header.alignment : 0; }

uint64_t placement_limit(const GuestMemory& memory, uint64_t initrd_max) {
  return std::min(memory.low_end(), initrd_max + 1);
}

Result<void> randomise_addresses(const GuestMemory& memory, LoadedKernel& kernel,
                                 const Placement& placement) {
  const auto relocations = std::exchange(kernel.relocations, std::nullopt);
  if (!relocations || !placement.randomise || !kernel.setup_header) return {};
  const uint64_t offset = virtual_offset(placement, kernel.start - kernel.moved_by,
                                         kernel.end - kernel.moved_by, placement_step(*kernel.setup_header));
  kernel.randomised = true;
  if (!relocate(memory, *relocations, kernel.start, kernel.end - kernel.start, offset))
    return fail("a kernel with relocations that lie outside of it");
  return {};
}

Result<LoadedKernel> load_kernel(int fd, const GuestMemory& memory, const Placement& placement) {
  const uint64_t file_size = SNUG_TRY(regular_file_size(fd));
  std::array<std::byte, std::max(kFileKindHead, kBzImageHeadSize)> buffer;
  const std::span<const std::byte> head = std::span(buffer).first(SNUG_TRY(read_at(fd, 0, buffer)));
  if (head.empty()) return fail("an empty file, not a kernel");
  if (is_elf(head)) return load_elf(fd, memory, head, file_size);
  // The magic of a packed payload or an archive never lies where a bzImage has its own.
  if (is_bzimage(head))
    return load_bzimage(fd, memory, SNUG_TRY(parse_setup_header(head, file_size)), placement);
  FileKind kind = guess_file_kind(head);
  return fail_with_hint(kind.description + ", not a kernel",
                        kind.hint.empty() ? "give a bzImage or vmlinux" : kind.hint);
}

}  // namespace snug::boot
