// Resource descriptors (ACPI 6.5, 6.4).
#include "boot/aml.h"

#include "vmm/base/assertion.h"

namespace snug::boot::aml {
namespace {

constexpr uint8_t kConsumer = 1 << 0;
constexpr uint8_t kMinFixed = 1 << 2;
constexpr uint8_t kMaxFixed = 1 << 3;

enum class RangeType : uint8_t { kMemory = 0, kIo = 1, kBus = 2 };

// Type-specific flags (6.4.3.5.5): memory read-write, not cacheable; I/O over the entire range.
constexpr uint8_t kReadWrite = 1 << 0;
constexpr uint8_t kEntireRange = 3;

void put(Code& code, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) code.push_back(static_cast<std::byte>(value >> (8 * i)));
}

// Address space descriptors of all widths (6.4.3.5): a range that the device hands on to its children.
Code address_space(uint8_t tag, size_t width, RangeType type, uint8_t type_flags, uint64_t first,
                   uint64_t last) {
  SNUG_ASSERT(first <= last);
  Code code;
  put(code, tag, 1);
  put(code, 3 + 5 * width, 2);
  put(code, static_cast<uint8_t>(type), 1);
  put(code, kMinFixed | kMaxFixed, 1);
  put(code, type_flags, 1);
  put(code, 0, width);  // granularity
  put(code, first, width);
  put(code, last, width);
  put(code, 0, width);  // translation
  put(code, last - first + 1, width);
  return code;
}

}  // namespace

// 6.4.2.5, 16-bit decode.
Code io(uint16_t base, uint8_t length) {
  Code code;
  put(code, 0x47, 1);
  put(code, 1, 1);
  put(code, base, 2);
  put(code, base, 2);
  put(code, 1, 1);
  put(code, length, 1);
  return code;
}

// 6.4.3.6, extended interrupt.
Code interrupt(uint32_t gsi, Trigger trigger) {
  constexpr uint8_t kEdge = 1 << 1;
  Code code;
  put(code, 0x89, 1);
  put(code, 6, 2);
  put(code, kConsumer | (trigger == Trigger::kEdge ? kEdge : 0), 1);
  put(code, 1, 1);
  put(code, gsi, 4);
  return code;
}

// 6.4.3.4.
Code memory32_fixed(uint32_t base, uint32_t length) {
  Code code;
  put(code, 0x86, 1);
  put(code, 9, 2);
  put(code, kReadWrite, 1);
  put(code, base, 4);
  put(code, length, 4);
  return code;
}

Code word_bus(uint16_t first, uint16_t last) {
  return address_space(0x88, 2, RangeType::kBus, 0, first, last);
}

Code word_io(uint16_t first, uint16_t last) {
  return address_space(0x88, 2, RangeType::kIo, kEntireRange, first, last);
}

Code dword_memory(uint32_t first, uint32_t last) {
  return address_space(0x87, 4, RangeType::kMemory, kReadWrite, first, last);
}

Code qword_memory(uint64_t first, uint64_t last) {
  return address_space(0x8a, 8, RangeType::kMemory, kReadWrite, first, last);
}

Code resources(std::initializer_list<Code> descriptors) {
  Code bytes = join(descriptors);
  // 6.4.2.9: end tag; a checksum of zero means "not checked".
  put(bytes, 0x0079, 2);
  return buffer(bytes);
}

}  // namespace snug::boot::aml
