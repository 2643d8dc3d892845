#include "boot/payload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/boot/images.h"

namespace snug::boot {
namespace {

using test::Bytes;
using testing::HasSubstr;

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes, size_t step = SIZE_MAX)
      : left_(bytes), step_(step) {}
  Result<size_t> read(std::span<std::byte> out) override {
    const size_t count = std::min({out.size(), left_.size(), step_});
    std::copy_n(left_.begin(), count, out.begin());
    left_ = left_.subspan(count);
    return count;
  }
  uint64_t left() const override { return left_.size(); }

 private:
  std::span<const std::byte> left_;
  size_t step_;
};

struct CollectingSink final : ByteSink {
  Bytes bytes;
  Result<void> write(std::span<const std::byte> more) override {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return {};
  }
};

constexpr PayloadFormat kFormats[] = {PayloadFormat::kElf,  PayloadFormat::kGzip, PayloadFormat::kBzip2,
                                      PayloadFormat::kLzma, PayloadFormat::kXz,   PayloadFormat::kLz4,
                                      PayloadFormat::kZstd};
constexpr PayloadFormat kPackedFormats[] = {PayloadFormat::kGzip, PayloadFormat::kBzip2,
                                            PayloadFormat::kLzma, PayloadFormat::kXz,
                                            PayloadFormat::kLz4,  PayloadFormat::kZstd};

std::string name_of(const testing::TestParamInfo<PayloadFormat>& info) {
  return std::string(payload_format_name(info.param));
}

class Payload : public testing::TestWithParam<PayloadFormat> {};
class PackedPayload : public testing::TestWithParam<PayloadFormat> {};
INSTANTIATE_TEST_SUITE_P(Formats, Payload, testing::ValuesIn(kFormats), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, PackedPayload, testing::ValuesIn(kPackedFormats), name_of);

TEST_P(Payload, UnpacksWhatWasPacked) {
  // Longer than every buffer, and than an LZ4 block.
  const Bytes plain = test::pattern((size_t{GetParam() == PayloadFormat::kLz4 ? 8u : 1u} << 20) + 12345);
  const Bytes packed = test::pack(GetParam(), plain);
  MemorySource source(packed);
  CollectingSink sink;
  const auto result = unpack(GetParam(), source, sink, plain.size());
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_TRUE(sink.bytes == plain);
}

TEST_P(Payload, UnpacksFromSmallReads) {
  const Bytes plain = test::pattern(30000);
  const Bytes packed = test::pack(GetParam(), plain);
  MemorySource source(packed, 7);
  CollectingSink sink;
  ASSERT_TRUE(unpack(GetParam(), source, sink, plain.size()));
  EXPECT_TRUE(sink.bytes == plain);
}

TEST_P(Payload, RefusesATruncatedStream) {
  const Bytes plain = test::pattern(100000);
  const Bytes packed = test::pack(GetParam(), plain);
  for (const size_t keep :
       {size_t{0}, size_t{1}, size_t{5}, size_t{13}, packed.size() / 2, packed.size() - 1}) {
    MemorySource source(std::span<const std::byte>(packed).first(keep));
    CollectingSink sink;
    EXPECT_FALSE(unpack(GetParam(), source, sink, plain.size())) << keep;
  }
}

TEST_P(PackedPayload, RefusesMoreThanStated) {
  const Bytes plain = test::pattern(100000);
  const Bytes packed = test::pack(GetParam(), plain);
  MemorySource source(packed);
  CollectingSink sink;
  const auto result = unpack(GetParam(), source, sink, plain.size() - 1);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("longer than the size stated"));
  EXPECT_LT(sink.bytes.size(), plain.size());
}

TEST_P(PackedPayload, RefusesLessThanStated) {
  const Bytes plain = test::pattern(1000);
  const Bytes packed = test::pack(GetParam(), plain);
  MemorySource source(packed);
  CollectingSink sink;
  EXPECT_FALSE(unpack(GetParam(), source, sink, plain.size() + 1));
}

TEST_P(PackedPayload, StopsABombAtTheStatedSize) {
  const Bytes packed = test::pack(GetParam(), Bytes(size_t{4} << 20));
  MemorySource source(packed);
  CollectingSink sink;
  EXPECT_FALSE(unpack(GetParam(), source, sink, 4096));
  EXPECT_LE(sink.bytes.size(), 4096u);
}

// A flipped bit is an error or (where the format has no checksum) other bytes; never a crash, never more
// bytes.
TEST_P(PackedPayload, SurvivesFlippedBits) {
  const Bytes plain = test::pattern(5000);
  const Bytes packed = test::pack(GetParam(), plain);
  test::Random random(static_cast<uint64_t>(GetParam()));
  for (int i = 0; i < 500; ++i) {
    Bytes broken = packed;
    broken[random.below(broken.size())] ^= static_cast<std::byte>(1u << random.below(8));
    MemorySource source(broken);
    CollectingSink sink;
    const auto result = unpack(GetParam(), source, sink, plain.size());
    if (result) {
      EXPECT_EQ(sink.bytes.size(), plain.size());
    } else {
      EXPECT_FALSE(result.error().message.empty());
    }
  }
}

TEST_P(Payload, IsIdentified) {
  Bytes packed = test::pack(
      GetParam(), GetParam() == PayloadFormat::kElf ? test::small_kernel().build() : test::pattern(100));
  EXPECT_EQ(identify_payload(std::span(packed).first(kPayloadMagicSize)), GetParam());
}

TEST(PayloadFormat, UnknownBytesAreNoFormat) {
  EXPECT_FALSE(identify_payload({}));
  EXPECT_FALSE(identify_payload(test::bytes_of("\x7f")));
  EXPECT_FALSE(identify_payload(Bytes(16)));
}

TEST(PayloadFormat, LzoIsKnownButNotUnpacked) {
  const Bytes lzo = test::bytes_of(std::string_view("\x89LZO\0\r\n\x1a\n", 9));
  ASSERT_EQ(identify_payload(lzo), PayloadFormat::kLzo);
  EXPECT_FALSE(can_unpack(PayloadFormat::kLzo));
  MemorySource source(lzo);
  CollectingSink sink;
  EXPECT_FALSE(unpack(PayloadFormat::kLzo, source, sink, 100));
}

TEST(PayloadFormat, XzDictionaryIsBounded) {
  // An lzma-alone header that asks for a dictionary of 4 GiB - 1.
  Bytes header = test::bytes_of(std::string_view("\x5d\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 13));
  header.resize(100);
  MemorySource source(header);
  CollectingSink sink;
  const auto result = unpack(PayloadFormat::kLzma, source, sink, 1 << 20);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("dictionary"));
}

}  // namespace
}  // namespace snug::boot
