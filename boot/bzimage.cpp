#include "boot/bzimage.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug::boot {
namespace {

// File offsets of the fields used here (Linux boot protocol, "The Real-Mode Kernel Header").
constexpr size_t kSetupSects = 0x1f1;
constexpr size_t kBootFlag = 0x1fe;
constexpr size_t kJumpOffset = 0x201;
constexpr size_t kMagic = 0x202;
constexpr size_t kVersion = 0x206;
constexpr size_t kLoadFlags = 0x211;
constexpr size_t kInitrdAddrMax = 0x22c;
constexpr size_t kKernelAlignment = 0x230;
constexpr size_t kRelocatable = 0x234;
constexpr size_t kXloadFlags = 0x236;
constexpr size_t kCmdlineSize = 0x238;
constexpr size_t kPayloadOffset = 0x248;
constexpr size_t kPayloadLength = 0x24c;
constexpr size_t kPrefAddress = 0x258;
constexpr size_t kInitSize = 0x260;

constexpr uint8_t kLoadedHigh = 1 << 0;
constexpr uint16_t kXlfKernel64 = 1 << 0;
constexpr uint16_t kXlfAbove4g = 1 << 1;

template <class T>
T field(std::span<const std::byte> head, size_t offset) {
  return static_cast<T>(load_le(head.subspan(offset, sizeof(T))));
}

// Fields that came with a later protocol version than the file's stay at their defaults.
void read_versioned_fields(std::span<const std::byte> head, SetupHeader& header) {
  header.initrd_addr_max = field<uint32_t>(head, kInitrdAddrMax);
  header.alignment = field<uint32_t>(head, kKernelAlignment);
  header.relocatable = field<uint8_t>(head, kRelocatable) != 0;
  header.cmdline_size = field<uint32_t>(head, kCmdlineSize);
  if (header.version >= 0x020a) {
    header.pref_address = field<uint64_t>(head, kPrefAddress);
    header.init_size = field<uint32_t>(head, kInitSize);
  }
  if (header.version >= 0x020c) {
    const auto flags = field<uint16_t>(head, kXloadFlags);
    header.has_64bit_entry = (flags & kXlfKernel64) != 0;
    header.above_4g = (flags & kXlfAbove4g) != 0;
  }
}

Result<void> find_code_and_payload(std::span<const std::byte> head, uint64_t file_size, SetupHeader& header) {
  constexpr uint64_t kSector = 512;
  const uint64_t stated = field<uint8_t>(head, kSetupSects);
  const uint64_t setup_sectors = stated == 0 ? 4 : stated;
  header.code_offset = (setup_sectors + 1) * kSector;
  if (header.code_offset >= file_size)
    return fail("a bzImage cut short: its code starts at byte {}, the file has {}", header.code_offset,
                file_size);
  header.code_size = file_size - header.code_offset;
  if (header.version < 0x0208) return {};
  const uint64_t offset = field<uint32_t>(head, kPayloadOffset);
  header.payload_size = field<uint32_t>(head, kPayloadLength);
  if (!range_within(offset, header.payload_size, header.code_size))
    return fail("a bzImage cut short: its packed kernel needs {} bytes, the file has {}",
                header.code_offset + offset + header.payload_size, file_size);
  header.payload_offset = header.code_offset + offset;
  return {};
}

}  // namespace

bool is_bzimage(std::span<const std::byte> head) {
  return head.size() >= kMagic + 4 && std::memcmp(head.data() + kMagic, "HdrS", 4) == 0;
}

Result<SetupHeader> parse_setup_header(std::span<const std::byte> head, uint64_t file_size) {
  if (!is_bzimage(head)) return fail("not a bzImage");
  if (head.size() < kBzImageHeadSize) return fail("a bzImage cut short after {} bytes", head.size());
  if (field<uint16_t>(head, kBootFlag) != 0xaa55) return fail("a bzImage without its boot flag 0xaa55");
  SetupHeader header;
  header.version = field<uint16_t>(head, kVersion);
  if (header.version < 0x0206)
    return fail("a Linux kernel of boot protocol {}.{:02}; snug needs 2.06 or later", header.version >> 8,
                header.version & 0xff);
  if ((field<uint8_t>(head, kLoadFlags) & kLoadedHigh) == 0)
    return fail("a zImage, which loads below 1 MiB; snug needs a bzImage");
  // "Copy the setup header: from 0x1f1 to 0x202 + the byte at 0x201" (64-bit boot protocol).
  const size_t end = kMagic + field<uint8_t>(head, kJumpOffset);
  header.raw_size = std::min(end - kSetupHeaderOffset, kSetupHeaderMax);
  std::copy_n(head.begin() + kSetupHeaderOffset, header.raw_size, header.raw.begin());
  read_versioned_fields(head, header);
  if (!std::has_single_bit(header.alignment)) header.alignment = 16 * kMiB;
  SNUG_TRY(find_code_and_payload(head, file_size, header));
  return header;
}

}  // namespace snug::boot
