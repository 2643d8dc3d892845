#include "boot/aml.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "vmm/base/assertion.h"

namespace snug::boot::aml {
namespace {

// ACPI 6.5, 20.3 "AML Byte Stream Byte Values".
constexpr uint8_t kZeroOp = 0x00;
constexpr uint8_t kOneOp = 0x01;
constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0a;
constexpr uint8_t kWordPrefix = 0x0b;
constexpr uint8_t kDwordPrefix = 0x0c;
constexpr uint8_t kStringPrefix = 0x0d;
constexpr uint8_t kQwordPrefix = 0x0e;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kMethodOp = 0x14;
constexpr uint8_t kDualNamePrefix = 0x2e;
constexpr uint8_t kMultiNamePrefix = 0x2f;
constexpr uint8_t kExtOp = 0x5b;
constexpr uint8_t kLocal0 = 0x60;
constexpr uint8_t kArg0 = 0x68;
constexpr uint8_t kStoreOp = 0x70;
constexpr uint8_t kAndOp = 0x7b;
constexpr uint8_t kOrOp = 0x7d;
constexpr uint8_t kExtRegionOp = 0x80;
constexpr uint8_t kExtFieldOp = 0x81;
constexpr uint8_t kExtDeviceOp = 0x82;
constexpr uint8_t kNotifyOp = 0x86;
constexpr uint8_t kCreateDwordFieldOp = 0x8a;
constexpr uint8_t kLnotOp = 0x92;
constexpr uint8_t kLequalOp = 0x93;
constexpr uint8_t kIfOp = 0xa0;
constexpr uint8_t kElseOp = 0xa1;
constexpr uint8_t kReturnOp = 0xa4;
constexpr uint8_t kOnesOp = 0xff;

void put(Code& code, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) code.push_back(static_cast<std::byte>(value >> (8 * i)));
}

Code op(uint8_t opcode) { return {static_cast<std::byte>(opcode)}; }
Code ext_op(uint8_t opcode) { return {static_cast<std::byte>(kExtOp), static_cast<std::byte>(opcode)}; }

// PkgLength (20.2.4) counts itself; what follows is the package's content. A field's length is encoded alike
// but doesn't count itself.
Code encoded_length(size_t length) {
  Code code;
  if (length < 0x40) {
    put(code, length, 1);
    return code;
  }
  SNUG_ASSERT(length < (size_t{1} << 28));
  const size_t more = length < (1u << 12) ? 1 : length < (1u << 20) ? 2 : 3;
  put(code, (more << 6) | (length & 0xf), 1);
  put(code, length >> 4, more);
  return code;
}

Code package_length(size_t content) {
  for (size_t own = 1; own <= 4; ++own) {
    Code code = encoded_length(content + own);
    if (code.size() == own) return code;
  }
  assertion_failed("AML package too long", __FILE__, __LINE__);
}

Code packaged(const Code& opcode, const Code& content) {
  return join({opcode, package_length(content.size()), content});
}

void put_segment(Code& code, std::string_view segment) {
  SNUG_ASSERT(!segment.empty() && segment.size() <= 4);
  for (size_t i = 0; i < 4; ++i) {
    const char c = i < segment.size() ? segment[i] : '_';
    SNUG_ASSERT((c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9'));
    code.push_back(static_cast<std::byte>(c));
  }
}

uint8_t hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  const char lower = static_cast<char>(c | 0x20);
  SNUG_ASSERT(lower >= 'a' && lower <= 'f');
  return static_cast<uint8_t>(lower - 'a' + 10);
}

}  // namespace

Code join(std::initializer_list<Code> terms) {
  Code code;
  for (const Code& term : terms) append(code, term);
  return code;
}

void append(Code& code, const Code& term) { code.insert(code.end(), term.begin(), term.end()); }

Code path(std::string_view name) {
  Code code;
  while (!name.empty() && (name.front() == '\\' || name.front() == '^')) {
    code.push_back(static_cast<std::byte>(name.front()));
    name.remove_prefix(1);
  }
  if (name.empty()) return join({code, op(kZeroOp)});  // NullName
  const auto count = static_cast<size_t>(std::ranges::count(name, '.')) + 1;
  if (count == 2) put(code, kDualNamePrefix, 1);
  if (count > 2) put(code, kMultiNamePrefix | (count << 8), 2);
  while (true) {
    const size_t dot = name.find('.');
    put_segment(code, name.substr(0, dot));
    if (dot == std::string_view::npos) return code;
    name.remove_prefix(dot + 1);
  }
}

Code integer(uint64_t value) {
  if (value == 0) return op(kZeroOp);
  if (value == 1) return op(kOneOp);
  if (value == std::numeric_limits<uint64_t>::max()) return op(kOnesOp);
  const auto bits = static_cast<unsigned>(std::bit_width(value));
  const size_t size = bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : 8;
  Code code = op(size == 1 ? kBytePrefix : size == 2 ? kWordPrefix : size == 4 ? kDwordPrefix : kQwordPrefix);
  put(code, value, size);
  return code;
}

Code string(std::string_view text) {
  Code code = op(kStringPrefix);
  for (const char c : text) {
    SNUG_ASSERT(c > 0 && c < 0x7f);
    code.push_back(static_cast<std::byte>(c));
  }
  put(code, 0, 1);
  return code;
}

// ACPI 6.5, 19.3.4 "EISAID": three 5-bit letters, four hex digits, byte-swapped.
Code eisa_id(std::string_view id) {
  SNUG_ASSERT(id.size() == 7);
  uint32_t value = 0;
  for (const char c : id.substr(0, 3)) value = value << 5 | static_cast<uint32_t>(c - '@');
  for (const char c : id.substr(3)) value = value << 4 | hex_digit(c);
  return integer(__builtin_bswap32(value));
}

// ACPI 6.5, 19.6.142 "ToUUID": the first three groups are little-endian.
Code uuid(std::string_view text) {
  constexpr std::array<uint8_t, 16> kDigitsAt{6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
  SNUG_ASSERT(text.size() == 36);
  Code bytes;
  for (const uint8_t at : kDigitsAt)
    put(bytes, static_cast<uint64_t>(hex_digit(text[at])) << 4 | hex_digit(text[at + 1u]), 1);
  return buffer(bytes);
}

Code buffer(std::span<const std::byte> bytes) {
  Code content = integer(bytes.size());
  content.insert(content.end(), bytes.begin(), bytes.end());
  return packaged(op(kBufferOp), content);
}

Code package(std::span<const Code> elements) {
  SNUG_ASSERT(elements.size() <= 255);
  Code content;
  put(content, elements.size(), 1);
  for (const Code& element : elements) append(content, element);
  return packaged(op(kPackageOp), content);
}

Code package(std::initializer_list<Code> elements) {
  return package(std::span(elements.begin(), elements.size()));
}

Code name(std::string_view object, const Code& value) { return join({op(kNameOp), path(object), value}); }

Code scope(std::string_view location, std::initializer_list<Code> terms) {
  return packaged(op(kScopeOp), join({path(location), join(terms)}));
}

Code device(std::string_view object, std::initializer_list<Code> terms) {
  return packaged(ext_op(kExtDeviceOp), join({path(object), join(terms)}));
}

Code method(std::string_view object, unsigned arguments, Serialize serialize,
            std::initializer_list<Code> terms) {
  SNUG_ASSERT(arguments <= 7);
  const Code flags = op(static_cast<uint8_t>(arguments | (serialize == Serialize::kYes ? 1u << 3 : 0u)));
  return packaged(op(kMethodOp), join({path(object), flags, join(terms)}));
}

Code operation_region(std::string_view object, RegionSpace space, uint64_t offset, uint64_t length) {
  return join({ext_op(kExtRegionOp), path(object), op(static_cast<uint8_t>(space)), integer(offset),
               integer(length)});
}

Code byte_field(std::string_view region, std::string_view object, unsigned bits) {
  constexpr uint8_t kByteAccess = 1;
  return packaged(ext_op(kExtFieldOp),
                  join({path(region), op(kByteAccess), path(object), encoded_length(bits)}));
}

Code create_dword_field(const Code& source, uint64_t byte_index, std::string_view object) {
  return join({op(kCreateDwordFieldOp), source, integer(byte_index), path(object)});
}

Code local(unsigned number) {
  SNUG_ASSERT(number <= 7);
  return op(static_cast<uint8_t>(kLocal0 + number));
}

Code argument(unsigned number) {
  SNUG_ASSERT(number <= 6);
  return op(static_cast<uint8_t>(kArg0 + number));
}

Code store(const Code& value, const Code& target) { return join({op(kStoreOp), value, target}); }

Code bit_and(const Code& left, const Code& right, const Code& target) {
  return join({op(kAndOp), left, right, target.empty() ? op(kZeroOp) : target});
}

Code bit_or(const Code& left, const Code& right, const Code& target) {
  return join({op(kOrOp), left, right, target.empty() ? op(kZeroOp) : target});
}

Code equal(const Code& left, const Code& right) { return join({op(kLequalOp), left, right}); }

Code logical_not(const Code& operand) { return join({op(kLnotOp), operand}); }

Code if_then(const Code& condition, std::initializer_list<Code> terms) {
  return packaged(op(kIfOp), join({condition, join(terms)}));
}

Code otherwise(std::initializer_list<Code> terms) { return packaged(op(kElseOp), join(terms)); }

Code notify(const Code& object, uint64_t value) { return join({op(kNotifyOp), object, integer(value)}); }

Code return_value(const Code& value) { return join({op(kReturnOp), value}); }

}  // namespace snug::boot::aml
