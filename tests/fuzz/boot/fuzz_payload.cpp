// A packed stream through every decoder that its first bytes ask for. The last four bytes state the size.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "boot/payload.h"
#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"

namespace {

using namespace snug;

class Source final : public boot::ByteSource {
 public:
  explicit Source(std::span<const std::byte> bytes) : left_(bytes) {}
  Result<size_t> read(std::span<std::byte> out) override {
    const size_t count = std::min(out.size(), left_.size());
    std::copy_n(left_.begin(), count, out.begin());
    left_ = left_.subspan(count);
    return count;
  }
  uint64_t left() const override { return left_.size(); }

 private:
  std::span<const std::byte> left_;
};

struct Counter final : boot::ByteSink {
  uint64_t count = 0;
  unsigned sum = 0;
  Result<void> write(std::span<const std::byte> bytes) override {
    count += bytes.size();
    for (const std::byte b : bytes) sum += static_cast<unsigned>(b);  // every byte must be readable
    return {};
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto format = boot::identify_payload(bytes);
  if (!format || size < 4) return 0;
  uint32_t expected = 0;
  std::memcpy(&expected, data + size - 4, sizeof expected);
  expected %= kMiB;
  Source source(*format == boot::PayloadFormat::kGzip ? bytes : bytes.first(size - 4));
  Counter sink;
  const auto result = boot::unpack(*format, source, sink, expected);
  SNUG_ASSERT(sink.count <= expected);
  SNUG_ASSERT(!result || sink.count == expected);
  return 0;
}
