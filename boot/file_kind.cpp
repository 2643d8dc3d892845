#include "boot/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace snug::boot {
namespace {

using namespace std::string_view_literals;

struct Signature {
  size_t offset;
  std::string_view bytes;
  const char* description;
  const char* hint;
};

constexpr auto kInitrdHint = "give it as an initrd, and a bzImage or vmlinux as the kernel";
constexpr auto kPackedHint =
    "an initrd belongs to the initrd setting; a kernel packed like this must be unpacked first";
constexpr auto kDiskHint = "give it as a disk, and a bzImage or vmlinux as the kernel";
constexpr auto kForeignHint = "snug runs x86-64 kernels";

constexpr std::array kSignatures = {
    Signature{0, "070701"sv, "a cpio archive (an initrd)", kInitrdHint},
    Signature{0, "070702"sv, "a cpio archive (an initrd)", kInitrdHint},
    Signature{0, "070707"sv, "an old cpio archive", ""},
    Signature{0, "\x1f\x8b"sv, "a gzip file", kPackedHint},
    Signature{0, "BZh"sv, "a bzip2 file", kPackedHint},
    Signature{0,
              "\xfd"
              "7zXZ\0"sv,
              "an xz file", kPackedHint},
    Signature{0, "\x5d\0\0"sv, "an lzma file", kPackedHint},
    Signature{0, "\x89LZO\0"sv, "an lzop file", kPackedHint},
    Signature{0, "\x02\x21\x4c\x18"sv, "an LZ4 file", kPackedHint},
    Signature{0, "\x04\x22\x4d\x18"sv, "an LZ4 file", kPackedHint},
    Signature{0, "\x28\xb5\x2f\xfd"sv, "a zstd file", kPackedHint},
    Signature{56, "ARM\x64"sv, "an ARM64 Linux kernel image", kForeignHint},
    Signature{56, "RSC\x05"sv, "a RISC-V Linux kernel image", kForeignHint},
    Signature{36, "\x18\x28\x6f\x01"sv, "a 32-bit ARM Linux kernel image", kForeignHint},
    Signature{0, "\x27\x05\x19\x56"sv, "a U-Boot image", "give the kernel that is inside"},
    Signature{0, "\xd0\x0d\xfe\xed"sv, "a device tree or U-Boot FIT image", "give the kernel that is inside"},
    Signature{0, "QFI\xfb"sv, "a qcow2 disk image", kDiskHint},
    Signature{0, "hsqs"sv, "a squashfs image", kDiskHint},
    Signature{1080, "\x53\xef"sv, "an ext2/3/4 file system image", kDiskHint},
    Signature{512, "EFI PART"sv, "a disk image (GPT)", kDiskHint},
    Signature{257, "ustar"sv, "a tar archive", ""},
    Signature{0, "PK\x03\x04"sv, "a zip archive", ""},
    Signature{0, "!<arch>\n"sv, "an ar archive or Debian package", "give the kernel that is inside"},
    Signature{0, "\xed\xab\xee\xdb"sv, "an RPM package", "give the kernel that is inside"},
    Signature{0, "#!"sv, "a script", "give a bzImage or vmlinux"},
    Signature{0, "MZ"sv, "an EFI or Windows program without a Linux setup header",
              "give a bzImage or vmlinux"},
    Signature{510, "\x55\xaa"sv, "a disk image (boot sector)", kDiskHint},
};

bool is_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return std::isprint(static_cast<unsigned char>(c)) != 0 || c == '\n' || c == '\r' || c == '\t';
  });
}

bool looks_like_html(std::string_view text) {
  const size_t start = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  std::string first(text.substr(start, 14));
  std::ranges::transform(first, first.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return first.starts_with("<!doctype html") || first.starts_with("<html") || first.starts_with("<?xml");
}

}  // namespace

FileKind guess_file_kind(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.empty()) return {"an empty file", ""};
  for (const Signature& signature : kSignatures)
    if (text.size() >= signature.offset && text.substr(signature.offset).starts_with(signature.bytes))
      return {signature.description, signature.hint};
  if (looks_like_html(text))
    return {"an HTML or XML page", "a download may have brought an error page instead of the file"};
  if (is_text(text)) return {"a text file", ""};
  if (std::ranges::all_of(text, [](char c) { return c == 0; })) return {"a file that begins with zeros", ""};
  std::string bytes;
  for (const char c : text.substr(0, 8)) bytes += fmt::format(" {:02x}", static_cast<unsigned char>(c));
  return {fmt::format("a file of unknown kind (first bytes{})", bytes), ""};
}

}  // namespace snug::boot
