// The setup header of a bzImage (Linux boot protocol, "The Real-Mode Kernel Header").
//
// Everything in the file is hostile: what is handed out has been range-checked. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm/base/result.h"

namespace snug::boot {

// File offset of the setup header, the same in boot_params.
constexpr uint64_t kSetupHeaderOffset = 0x1f1;
// boot_params keeps other things from 0x290 on.
constexpr size_t kSetupHeaderMax = 0x290 - kSetupHeaderOffset;
// How many first bytes of the file parse_setup_header wants.
constexpr size_t kBzImageHeadSize = 0x290;

struct SetupHeader {
  std::array<std::byte, kSetupHeaderMax> raw{};  // as in the file, `raw_size` of them
  size_t raw_size = 0;

  uint16_t version = 0;          // protocol, 0x020f is 2.15
  bool has_64bit_entry = false;  // XLF_KERNEL_64: 0x200 behind the load address (2.12+)
  bool above_4g = false;         // XLF_CAN_BE_LOADED_ABOVE_4G (2.12+)
  bool relocatable = false;
  uint64_t alignment = 0;        // kernel_alignment, a power of two
  uint64_t pref_address = 0;     // gpa, 0 when not stated (before 2.10)
  uint32_t init_size = 0;        // bytes from the load address, 0 when not stated (before 2.10)
  uint32_t initrd_addr_max = 0;  // last gpa of an initrd's last byte
  uint32_t cmdline_size = 0;     // without the NUL

  uint64_t code_offset = 0;  // file offset of the protected-mode code
  uint64_t code_size = 0;    // to the end of the file; > 0
  // The packed kernel, as file offset and bytes; size 0 when not stated (before 2.08). Inside the file.
  uint64_t payload_offset = 0;
  uint64_t payload_size = 0;
};

// Whether the bytes are a bzImage's or zImage's first ("HdrS" in its place).
bool is_bzimage(std::span<const std::byte> head);

// `head`: the file's first kBzImageHeadSize bytes or all of a smaller file; `file_size`: bytes. Errors: not a
// bzImage, too old (before protocol 2.06, Linux 2.6.22), a zImage, values outside the file.
Result<SetupHeader> parse_setup_header(std::span<const std::byte> head, uint64_t file_size);

}  // namespace snug::boot
