#include "tests/unit/boot/images.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "boot/elf_layout.h"
#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"

namespace snug::boot::test {
namespace {

template <class T>
void put_at(Bytes& bytes, size_t offset, const T& value) {
  SNUG_ASSERT(offset + sizeof value <= bytes.size());
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

template <class Phdr>
Phdr program_header(const Segment& segment, uint64_t offset) {
  Phdr p{};
  const auto assign = [](auto& to, uint64_t value) { to = static_cast<decltype(+to)>(value); };
  assign(p.type, segment.type);
  assign(p.flags, 7);
  assign(p.offset, segment.file_offset.value_or(offset));
  assign(p.vaddr, segment.virtual_address);
  assign(p.paddr, segment.gpa);
  assign(p.filesz, segment.file_size.value_or(segment.content.size()));
  assign(p.memsz, segment.memory_size.value_or(segment.content.size()));
  assign(p.align, segment.alignment);
  return p;
}

template <class Header, class Phdr>
Bytes build_elf(const Elf& elf, uint8_t file_class) {
  Header header{};
  header.ident.magic = {0x7f, 'E', 'L', 'F'};
  header.ident.file_class = file_class;
  header.ident.data = kElfLittleEndian;
  header.ident.version = 1;
  header.ident.type = elf.type;
  header.ident.machine = elf.machine;
  header.ident.object_version = 1;
  header.entry = static_cast<decltype(+header.entry)>(elf.entry);
  header.phoff = static_cast<decltype(+header.phoff)>(elf.phoff.value_or(sizeof header));
  header.ehsize = sizeof header;
  header.phentsize = elf.phentsize.value_or(sizeof(Phdr));
  header.phnum = elf.phnum.value_or(static_cast<uint16_t>(elf.segments.size()));
  Bytes file(sizeof header + elf.segments.size() * sizeof(Phdr));
  put_at(file, 0, header);
  for (size_t i = 0; i < elf.segments.size(); ++i) {
    put_at(file, sizeof header + i * sizeof(Phdr), program_header<Phdr>(elf.segments[i], file.size()));
    file.insert(file.end(), elf.segments[i].content.begin(), elf.segments[i].content.end());
  }
  return file;
}

Bytes pack_gzip(std::span<const std::byte> plain) {
  z_stream stream{};
  SNUG_ASSERT(::deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes packed(::deflateBound(&stream, plain.size()) + 64);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  SNUG_ASSERT(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

Bytes pack_bzip2(std::span<const std::byte> plain) {
  auto size = static_cast<unsigned>(plain.size() + plain.size() / 50 + 1000);
  Bytes packed(size);
  SNUG_ASSERT(::BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(packed.data()), &size,
                                         reinterpret_cast<char*>(const_cast<std::byte*>(plain.data())),
                                         static_cast<unsigned>(plain.size()), 9, 0, 0) == BZ_OK);
  packed.resize(size);
  return packed;
}

// With the x86 filter and CRC32, as the kernel's xz_wrap.sh asks for.
Bytes pack_xz(std::span<const std::byte> plain) {
  lzma_options_lzma options;
  SNUG_ASSERT(!::lzma_lzma_preset(&options, 6));
  lzma_filter filters[] = {
      {LZMA_FILTER_X86, nullptr}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  Bytes packed(::lzma_stream_buffer_bound(plain.size()));
  size_t size = 0;
  SNUG_ASSERT(::lzma_stream_buffer_encode(
                  filters, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const uint8_t*>(plain.data()),
                  plain.size(), reinterpret_cast<uint8_t*>(packed.data()), &size, packed.size()) == LZMA_OK);
  packed.resize(size);
  return packed;
}

Bytes pack_lzma(std::span<const std::byte> plain) {
  lzma_options_lzma options;
  SNUG_ASSERT(!::lzma_lzma_preset(&options, 6));
  lzma_stream stream = LZMA_STREAM_INIT;
  SNUG_ASSERT(::lzma_alone_encoder(&stream, &options) == LZMA_OK);
  Bytes packed(plain.size() + plain.size() / 3 + 4096);
  stream.next_in = reinterpret_cast<const uint8_t*>(plain.data());
  stream.avail_in = plain.size();
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = packed.size();
  SNUG_ASSERT(::lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
  packed.resize(stream.total_out);
  ::lzma_end(&stream);
  return packed;
}

Bytes pack_lz4(std::span<const std::byte> plain) {
  constexpr size_t kBlock = size_t{8} << 20;
  Bytes packed = bytes_of("\x02\x21\x4c\x18");
  for (size_t at = 0; at < plain.size(); at += kBlock) {
    const auto block = plain.subspan(at, std::min(kBlock, plain.size() - at));
    Bytes out(static_cast<size_t>(::LZ4_compressBound(static_cast<int>(block.size()))));
    const int size = ::LZ4_compress_default(reinterpret_cast<const char*>(block.data()),
                                            reinterpret_cast<char*>(out.data()),
                                            static_cast<int>(block.size()), static_cast<int>(out.size()));
    SNUG_ASSERT(size > 0);
    packed.resize(packed.size() + 4);
    put_at(packed, packed.size() - 4, le32(static_cast<uint32_t>(size)));
    packed.insert(packed.end(), out.begin(), out.begin() + size);
  }
  return packed;
}

Bytes pack_zstd(std::span<const std::byte> plain) {
  Bytes packed(::ZSTD_compressBound(plain.size()));
  const size_t size = ::ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3);
  SNUG_ASSERT(::ZSTD_isError(size) == 0);
  packed.resize(size);
  return packed;
}

}  // namespace

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes pattern(size_t size, uint32_t seed) {
  Bytes bytes(size);
  Random random(seed);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(i % 7 == 0 ? random.next() : (i >> 5) + seed);
  return bytes;
}

UniqueFd file_of(std::span<const std::byte> content) {
  UniqueFd fd(::memfd_create("snug-test", MFD_CLOEXEC));
  SNUG_ASSERT(fd);
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t count = ::write(fd.get(), content.data() + done, content.size() - done);
    SNUG_ASSERT(count > 0);
    done += static_cast<size_t>(count);
  }
  return fd;
}

Bytes Elf::build() const {
  return is_64 ? build_elf<Elf64Header, Elf64Phdr>(*this, kElfClass64)
               : build_elf<Elf32Header, Elf32Phdr>(*this, kElfClass32);
}

Bytes note(std::string_view owner, uint32_t type, std::span<const std::byte> descriptor) {
  const auto padded = [](size_t size) { return (size + 3) / 4 * 4; };
  const ElfNoteHeader header{static_cast<uint32_t>(owner.size() + 1),
                             static_cast<uint32_t>(descriptor.size()), type};
  Bytes bytes(sizeof header + padded(owner.size() + 1) + padded(descriptor.size()));
  put_at(bytes, 0, header);
  std::memcpy(bytes.data() + sizeof header, owner.data(), owner.size());
  std::ranges::copy(descriptor,
                    bytes.begin() + static_cast<ptrdiff_t>(sizeof header + padded(owner.size() + 1)));
  return bytes;
}

Bytes pvh_note(uint32_t entry) {
  const le32 value = entry;
  return note("Xen", 18, std::as_bytes(std::span(&value, 1)));
}

Elf small_kernel(size_t size) {
  Elf elf;
  elf.entry = 0x100010;
  elf.segments.push_back(
      {.gpa = 0x100000, .virtual_address = 0xffffffff80100000, .content = pattern(size, 1)});
  elf.segments.push_back({.gpa = 0x200000,
                          .virtual_address = 0xffffffff80200000,
                          .content = pattern(size / 2, 2),
                          .memory_size = size + 0x5000});
  return elf;
}

Bytes pack(PayloadFormat format, std::span<const std::byte> plain) {
  switch (format) {
    case PayloadFormat::kGzip:
      return pack_gzip(plain);
    case PayloadFormat::kBzip2:
      return pack_bzip2(plain);
    case PayloadFormat::kLzma:
      return pack_lzma(plain);
    case PayloadFormat::kXz:
      return pack_xz(plain);
    case PayloadFormat::kLz4:
      return pack_lz4(plain);
    case PayloadFormat::kZstd:
      return pack_zstd(plain);
    case PayloadFormat::kElf:
    case PayloadFormat::kLzo:
      break;
  }
  return {plain.begin(), plain.end()};
}

Bytes packed_payload(PayloadFormat format, std::span<const std::byte> plain) {
  Bytes payload = pack(format, plain);
  if (format == PayloadFormat::kGzip || format == PayloadFormat::kElf) return payload;
  payload.resize(payload.size() + 4);
  put_at(payload, payload.size() - 4, le32(static_cast<uint32_t>(plain.size())));
  return payload;
}

BzImage bzimage_of(PayloadFormat format, std::span<const std::byte> plain) {
  BzImage image;
  image.payload = packed_payload(format, plain);
  return image;
}

Bytes BzImage::build() const {
  constexpr uint32_t kHead = 0x300;  // 64-bit entry code before the payload
  Bytes file((setup_sects + 1u) * 512u + kHead);
  put_at(file, 0x1f1, setup_sects);
  put_at(file, 0x1fe, le16(0xaa55));
  put_at(file, 0x201, uint8_t{0x6a});
  std::memcpy(file.data() + 0x202, "HdrS", 4);
  put_at(file, 0x206, le16(version));
  put_at(file, 0x211, loadflags);
  put_at(file, 0x22c, le32(initrd_addr_max));
  put_at(file, 0x230, le32(0x200000));
  put_at(file, 0x234, uint8_t{1});
  put_at(file, 0x236, le16(xloadflags));
  put_at(file, 0x238, le32(cmdline_size));
  put_at(file, 0x248, le32(payload_offset.value_or(kHead)));
  put_at(file, 0x24c, le32(payload_length.value_or(static_cast<uint32_t>(payload.size()))));
  put_at(file, 0x258, le64(pref_address));
  put_at(file, 0x260, le32(init_size));
  file.insert(file.end(), payload.begin(), payload.end());
  return file;
}

}  // namespace snug::boot::test
