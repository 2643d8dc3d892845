#include "boot/payload.h"

#include <bzlib.h>
#include <libdeflate.h>
#include <lz4.h>
#include <lzma.h>
#include <sys/mman.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/mapping.h"

namespace snug::boot {
namespace {

// Small enough to stay in the second-level cache between decoder and copy.
constexpr size_t kInputBuffer = 64 * kKiB;
constexpr size_t kOutputBuffer = 256 * kKiB;

constexpr std::string_view kTooLong =
    "the unpacked kernel is longer than the size stated at the payload's end";

// Anonymous scratch memory: zero pages come from the host on first touch, nothing is cleared twice.
Result<Mapping> scratch(size_t size) {
  auto mapping = SNUG_TRY(
      with_context(Mapping::anonymous(size, size >= 2 * kMiB ? 2 * kMiB : 4 * kKiB), "scratch memory"));
  if (size >= 2 * kMiB) ::madvise(mapping.data(), size, MADV_HUGEPAGE);
  return mapping;
}

// The bytes that may still come out: writes more than `expected` are refused before they reach the sink.
class BoundedSink {
 public:
  BoundedSink(ByteSink& sink, uint64_t expected) : sink_(sink), left_(expected) {}

  Result<void> write(std::span<const std::byte> bytes) {
    if (bytes.size() > left_) return fail("{}", kTooLong);
    left_ -= bytes.size();
    return bytes.empty() ? Result<void>{} : sink_.write(bytes);
  }
  uint64_t left() const { return left_; }

 private:
  ByteSink& sink_;
  uint64_t left_;
};

// What one call of a streaming decoder did with the bytes it was given.
struct Progress {
  size_t consumed;
  size_t produced;
  bool finished;
};

// Drives a decoder `step(input, output) -> Result<Progress>` from source to sink until its stream ends.
template <class Step>
Result<void> pump(ByteSource& source, BoundedSink& sink, Step&& step) {
  const auto buffers = SNUG_TRY(scratch(kInputBuffer + kOutputBuffer));
  const auto input = buffers.bytes().first(kInputBuffer);
  const auto output = buffers.bytes().subspan(kInputBuffer, kOutputBuffer);
  std::span<const std::byte> pending;
  while (true) {
    if (pending.empty()) pending = input.first(SNUG_TRY(source.read(input)));
    const bool at_end = pending.empty();
    const Progress progress = SNUG_TRY(step(pending, output));
    SNUG_TRY(sink.write(output.first(progress.produced)));
    pending = pending.subspan(progress.consumed);
    if (progress.finished) return {};
    if (at_end && progress.produced == 0) return fail("the stream is cut short");
    if (progress.consumed == 0 && progress.produced == 0) return fail("the stream is broken");
  }
}

// RFC 1952, 2.3: where the compressed data of a member begins; nothing when the header goes on past the end.
std::optional<size_t> gzip_data(std::span<const std::byte> member) {
  constexpr size_t kFixed = 10;
  enum : uint8_t { kHeaderCrc = 2, kExtra = 4, kName = 8, kComment = 16 };
  if (member.size() < kFixed) return std::nullopt;
  const auto byte = [member](size_t at) { return std::to_integer<uint8_t>(member[at]); };
  const uint8_t flags = byte(3);
  size_t at = kFixed;
  if ((flags & kExtra) != 0) {
    if (member.size() - at < 2) return std::nullopt;
    at += size_t{2} + byte(at) + (size_t{byte(at + 1)} << 8);
  }
  for (const uint8_t text : {kName, kComment}) {
    if ((flags & text) == 0) continue;
    while (at < member.size() && byte(at) != 0) ++at;
    ++at;
  }
  if ((flags & kHeaderCrc) != 0) at += 2;
  if (at >= member.size()) return std::nullopt;
  return at;
}

// RFC 1952, in one call over the whole stream, which is three times as quick as zlib's streaming. The CRC
// would cost more than is won; Linux's own decompressor skips it as well.
Result<void> unpack_gzip(ByteSource& source, BoundedSink& sink) {
  constexpr size_t kTrailer = 8;
  const std::unique_ptr<libdeflate_decompressor, decltype(&::libdeflate_free_decompressor)> decoder(
      ::libdeflate_alloc_decompressor(), &::libdeflate_free_decompressor);
  if (decoder == nullptr) return fail("libdeflate: out of memory");
  // What cannot be packed is stored, with a few bytes for every 16 KiB at most.
  const uint64_t longest = sink.left() + sink.left() / 256 + 4 * kKiB;
  if (sink.left() == 0 || source.left() == 0 || source.left() > longest)
    return fail("the stream is broken ({} bytes packed, {} unpacked)", source.left(), sink.left());
  const auto packed = SNUG_TRY(scratch(source.left()));
  const auto member = packed.bytes().first(SNUG_TRY(read_fully(source, packed.bytes())));
  const auto data = gzip_data(member);
  if (!data) return fail("the stream is cut short");
  const auto unpacked = SNUG_TRY(scratch(sink.left()));
  size_t consumed = 0, produced = 0;
  switch (::libdeflate_deflate_decompress_ex(decoder.get(), member.data() + *data, member.size() - *data,
                                             unpacked.data(), sink.left(), &consumed, &produced)) {
    case LIBDEFLATE_SUCCESS:
      break;
    case LIBDEFLATE_INSUFFICIENT_SPACE:
      return fail("{}", kTooLong);
    default:
      return fail("the stream is broken or cut short (gzip)");
  }
  if (member.size() - *data - consumed < kTrailer) return fail("the stream is cut short");
  return sink.write(unpacked.bytes().first(produced));
}

Result<void> unpack_bzip2(ByteSource& source, BoundedSink& sink) {
  bz_stream stream{};
  if (::BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) return fail("bzip2: out of memory");
  const std::unique_ptr<bz_stream, decltype(&::BZ2_bzDecompressEnd)> guard(&stream, &::BZ2_bzDecompressEnd);
  return pump(
      source, sink, [&stream](std::span<const std::byte> in, std::span<std::byte> out) -> Result<Progress> {
        stream.next_in = reinterpret_cast<char*>(const_cast<std::byte*>(in.data()));
        stream.avail_in = static_cast<unsigned>(in.size());
        stream.next_out = reinterpret_cast<char*>(out.data());
        stream.avail_out = static_cast<unsigned>(out.size());
        const int status = ::BZ2_bzDecompress(&stream);
        if (status != BZ_OK && status != BZ_STREAM_END)
          return fail("the stream is broken (bzip2 error {})", status);
        return Progress{in.size() - stream.avail_in, out.size() - stream.avail_out, status == BZ_STREAM_END};
      });
}

// xz (with the x86 filter that the kernel's build uses) and the older lzma-alone format.
Result<void> unpack_lzma(PayloadFormat format, ByteSource& source, BoundedSink& sink) {
  // The dictionary is the decoder's only big allocation; the kernel's build uses at most 128 MiB.
  constexpr uint64_t kMemoryLimit = 256 * kMiB;
  lzma_stream stream = LZMA_STREAM_INIT;
  const lzma_ret ready = format == PayloadFormat::kXz ? ::lzma_stream_decoder(&stream, kMemoryLimit, 0)
                                                      : ::lzma_alone_decoder(&stream, kMemoryLimit);
  if (ready != LZMA_OK) return fail("liblzma: out of memory");
  const std::unique_ptr<lzma_stream, decltype(&::lzma_end)> guard(&stream, &::lzma_end);
  return pump(source, sink, [&](std::span<const std::byte> in, std::span<std::byte> out) -> Result<Progress> {
    stream.next_in = reinterpret_cast<const uint8_t*>(in.data());
    stream.avail_in = in.size();
    stream.next_out = reinterpret_cast<uint8_t*>(out.data());
    stream.avail_out = out.size();
    const lzma_ret status = ::lzma_code(&stream, in.empty() ? LZMA_FINISH : LZMA_RUN);
    if (status == LZMA_MEMLIMIT_ERROR)
      return fail("the stream asks for a dictionary of more than {} MiB", kMemoryLimit / kMiB);
    if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR)
      return fail("the stream is broken (liblzma error {})", static_cast<int>(status));
    return Progress{in.size() - stream.avail_in, out.size() - stream.avail_out, status == LZMA_STREAM_END};
  });
}

// RFC 8878, in one call over the whole stream: zstd's streaming mode would keep a window as large as the
// kernel and copy everything once more.
Result<void> unpack_zstd(ByteSource& source, BoundedSink& sink) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&::ZSTD_freeDCtx)> context(::ZSTD_createDCtx(), &::ZSTD_freeDCtx);
  if (context == nullptr) return fail("zstd: out of memory");
  if (sink.left() == 0 || source.left() == 0 || source.left() > ZSTD_compressBound(sink.left()))
    return fail("the stream is broken ({} bytes packed, {} unpacked)", source.left(), sink.left());
  const auto packed = SNUG_TRY(scratch(source.left()));
  const size_t size = SNUG_TRY(read_fully(source, packed.bytes()));
  const size_t frame = ::ZSTD_findFrameCompressedSize(packed.data(), size);
  if (::ZSTD_isError(frame) != 0) return fail("the stream is broken (zstd: {})", ::ZSTD_getErrorName(frame));
  const auto unpacked = SNUG_TRY(scratch(sink.left()));
  const size_t count =
      ::ZSTD_decompressDCtx(context.get(), unpacked.data(), unpacked.size(), packed.data(), frame);
  if (::ZSTD_getErrorCode(count) == ZSTD_error_dstSize_tooSmall) return fail("{}", kTooLong);
  if (::ZSTD_isError(count) != 0) return fail("the stream is broken (zstd: {})", ::ZSTD_getErrorName(count));
  return sink.write(unpacked.bytes().first(count));
}

// LZ4 legacy frame (lz4_Frame_format.md, "Legacy frame"): magic, then blocks of a 32-bit packed size and that
// many bytes, each unpacking to 8 MiB, the last one to at most that.
Result<void> unpack_lz4(ByteSource& source, BoundedSink& sink) {
  constexpr size_t kBlock = 8 * kMiB;
  constexpr size_t kPackedBlockMax = LZ4_COMPRESSBOUND(kBlock);
  le32 word;
  const auto word_bytes = std::as_writable_bytes(std::span(&word, 1));
  if (SNUG_TRY(read_fully(source, word_bytes)) < sizeof word) return fail("the stream is cut short");
  const auto packed = SNUG_TRY(scratch(kPackedBlockMax));
  const auto unpacked = SNUG_TRY(scratch(kBlock));
  while (sink.left() > 0) {
    if (SNUG_TRY(read_fully(source, word_bytes)) < sizeof word) return fail("the stream is cut short");
    const uint32_t size = word;
    if (size == 0 || size > kPackedBlockMax)
      return fail("the stream is broken (an LZ4 block of {} bytes)", size);
    if (SNUG_TRY(read_fully(source, packed.bytes().first(size))) < size)
      return fail("the stream is cut short");
    const int count = ::LZ4_decompress_safe(reinterpret_cast<const char*>(packed.data()),
                                            reinterpret_cast<char*>(unpacked.data()), static_cast<int>(size),
                                            static_cast<int>(kBlock));
    if (count <= 0) return fail("the stream is broken (LZ4)");
    SNUG_TRY(sink.write(unpacked.bytes().first(static_cast<size_t>(count))));
  }
  return {};
}

Result<void> copy_plain(ByteSource& source, BoundedSink& sink) {
  const auto buffer = SNUG_TRY(scratch(kOutputBuffer));
  while (sink.left() > 0) {
    const size_t count =
        SNUG_TRY(source.read(buffer.bytes().first(std::min<uint64_t>(sink.left(), kOutputBuffer))));
    if (count == 0) return fail("the stream is cut short");
    SNUG_TRY(sink.write(buffer.bytes().first(count)));
  }
  return {};
}

Result<void> dispatch(PayloadFormat format, ByteSource& source, BoundedSink& sink) {
  switch (format) {
    case PayloadFormat::kElf:
      return copy_plain(source, sink);
    case PayloadFormat::kGzip:
      return unpack_gzip(source, sink);
    case PayloadFormat::kBzip2:
      return unpack_bzip2(source, sink);
    case PayloadFormat::kLzma:
    case PayloadFormat::kXz:
      return unpack_lzma(format, source, sink);
    case PayloadFormat::kLz4:
      return unpack_lz4(source, sink);
    case PayloadFormat::kZstd:
      return unpack_zstd(source, sink);
    case PayloadFormat::kLzo:
      break;
  }
  return fail("snug cannot unpack this format");
}

struct Magic {
  PayloadFormat format;
  std::string_view bytes;
};

// Linux boot protocol, payload_offset, and the kernel's lib/decompress.c.
constexpr std::array<Magic, 8> kMagics{{
    {PayloadFormat::kElf,
     {"\x7f"
      "ELF",
      4}},
    {PayloadFormat::kGzip, {"\x1f\x8b", 2}},
    {PayloadFormat::kBzip2, {"BZh", 3}},
    {PayloadFormat::kLzma, {"\x5d\0\0", 3}},
    {PayloadFormat::kXz,
     {"\xfd"
      "7zXZ\0",
      6}},
    {PayloadFormat::kLzo, {"\x89LZO\0\r\n", 7}},
    {PayloadFormat::kLz4, {"\x02\x21\x4c\x18", 4}},
    {PayloadFormat::kZstd, {"\x28\xb5\x2f\xfd", 4}},
}};

}  // namespace

std::optional<PayloadFormat> identify_payload(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  for (const Magic& magic : kMagics)
    if (text.starts_with(magic.bytes)) return magic.format;
  return std::nullopt;
}

std::string_view payload_format_name(PayloadFormat format) {
  switch (format) {
    case PayloadFormat::kElf:
      return "uncompressed";
    case PayloadFormat::kGzip:
      return "gzip";
    case PayloadFormat::kBzip2:
      return "bzip2";
    case PayloadFormat::kLzma:
      return "lzma";
    case PayloadFormat::kXz:
      return "xz";
    case PayloadFormat::kLzo:
      return "LZO";
    case PayloadFormat::kLz4:
      return "LZ4";
    case PayloadFormat::kZstd:
      return "zstd";
  }
  return "unknown";
}

bool can_unpack(PayloadFormat format) { return format != PayloadFormat::kLzo; }

Result<void> unpack(PayloadFormat format, ByteSource& source, ByteSink& sink, uint64_t expected) {
  BoundedSink bounded(sink, expected);
  SNUG_TRY(dispatch(format, source, bounded));
  if (bounded.left() > 0)
    return fail("the unpacked kernel is {} bytes shorter than the size stated at the payload's end",
                bounded.left());
  return {};
}

}  // namespace snug::boot
