// ELF kernels: headers parsed into a plan first, bytes laid down second (System V ABI, "Object Files").
//
// Everything in the file is hostile. One thread; nothing is kept between calls. Addresses are gpas, sizes
// bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "boot/byte_stream.h"
#include "boot/kaslr.h"
#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

struct ElfSegment {
  uint64_t file_offset;
  uint64_t file_size;    // <= memory_size
  uint64_t memory_size;  // > 0
  uint64_t gpa;          // p_paddr
  uint64_t virtual_address;
};

// Where a PT_NOTE lies in the file.
struct ElfNotes {
  uint64_t file_offset;
  uint64_t size;
  uint64_t alignment;
};

struct ElfImage {
  bool is_64 = false;
  uint64_t entry = 0;                // e_entry as the file has it
  std::vector<ElfSegment> segments;  // ascending by gpa, not overlapping
  std::vector<ElfNotes> notes;
  bool user_program = false;  // has an interpreter or thread-local storage: no kernel
  uint64_t sections_end =
      0;  // file offset of the end of the section headers, which come last; 0: there are none

  uint64_t start() const { return segments.front().gpa; }
  uint64_t end() const { return segments.back().gpa + segments.back().memory_size; }
  // The gpa that `address` means: itself when inside a segment's gpa range, translated when it is inside a
  // virtual range, nothing when neither.
  std::optional<uint64_t> physical(uint64_t address) const;
};

// What the notes say about how the kernel wants to be entered.
struct ElfNoteFacts {
  std::optional<uint64_t> pvh_entry;  // XEN_ELFNOTE_PHYS32_ENTRY
  bool linux_owner = false;           // owner "Linux": a Linux kernel
  bool user_program = false;          // owner "GNU", NT_GNU_ABI_TAG: a program for a running system
};

constexpr size_t kElfHeaderSize = 64;
// Program headers end at most here in the file.
constexpr uint64_t kElfHeadMax = 64 * 1024;

// Whether the bytes start with the ELF magic.
bool is_elf(std::span<const std::byte> head);

// How many first bytes of the file parse_elf needs to see, told from the first kElfHeaderSize bytes (fewer
// when the file is smaller): > kElfHeaderSize, <= kElfHeadMax. Errors: not an executable ELF file for x86.
Result<uint64_t> elf_head_size(std::span<const std::byte> header);

// `head`: at least elf_head_size() bytes. Errors: no loadable segment, segments that overlap, wrap, start
// below 1 MiB or have more bytes in the file than in memory.
Result<ElfImage> parse_elf(std::span<const std::byte> head);

// Reads the notes (bounded) of an ELF file. Errors: I/O.
Result<ElfNoteFacts> read_elf_notes(int fd, const ElfImage& image);
// The notes in `bytes`, added to `facts`. Stops quietly where they stop making sense.
void scan_notes(std::span<const std::byte> bytes, uint64_t alignment, ElfNoteFacts& facts);

// Whether guest RAM holds [start, end) of a kernel; else an error that says how much memory would do.
Result<void> check_kernel_fits(const GuestMemory& memory, uint64_t start, uint64_t end);

// Reads every segment straight into guest RAM; memory past a segment's file bytes is left alone (fresh guest
// RAM is zero). check_kernel_fits first. Errors: I/O, file too short.
Result<void> load_elf_segments(int fd, const ElfImage& image, const GuestMemory& memory);

// Lays down a streamed ELF64 file segment by segment, dropping what lies between them.
class ElfSink final : public ByteSink {
 public:
  // `memory` is borrowed. The kernel needs RAM for `extent` bytes from its start, or as far as its segments
  // reach; it is put where `placement` says, its memory ending below `limit`, in steps of `alignment`.
  ElfSink(const GuestMemory& memory, uint64_t extent, const Placement& placement = {}, uint64_t limit = 0,
          uint64_t alignment = 0)
      : memory_(memory), extent_(extent), placement_(placement), limit_(limit), alignment_(alignment) {}
  // Errors: not an ELF64 kernel for x86-64 (is_kernel() tells), does not fit.
  Result<void> write(std::span<const std::byte> bytes) override;
  // After the last write: errors when a segment lacks bytes.
  Result<ElfImage> finish();
  // False once the stream's first bytes were no ELF64 executable for x86-64; nothing was written then.
  bool is_kernel() const { return is_kernel_; }
  // How far from its own addresses it was put.
  uint64_t offset() const { return offset_; }
  // What follows the ELF file in the stream.
  std::span<const std::byte> tail() const { return tail_; }

 private:
  Result<void> start_image(std::span<const std::byte> head);
  Result<void> start_from_head();
  Result<void> place(uint64_t offset, std::span<const std::byte> bytes);
  void keep_tail(uint64_t offset, std::span<const std::byte> bytes);

  const GuestMemory& memory_;
  uint64_t extent_;
  Placement placement_;
  uint64_t limit_;
  uint64_t alignment_;
  uint64_t offset_ = 0;
  std::vector<std::byte> head_;  // until the headers are complete
  std::vector<std::byte> tail_;
  std::optional<ElfImage> image_;
  uint64_t position_ = 0;  // file offset of the next byte
  bool is_kernel_ = true;
};

}  // namespace snug::boot
