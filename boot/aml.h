// ACPI machine language, written by composition: every function returns the bytes of one term, and terms nest
// as they do in ASL (ACPI 6.5, chapter 20; resource descriptors: chapter 6.4). Any thread; no state.
//
// Names are ours, never a file's or a guest's: a malformed one is an assertion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace snug::boot::aml {

using Code = std::vector<std::byte>;

// One behind the other.
Code join(std::initializer_list<Code> terms);
void append(Code& code, const Code& term);

// "_HID", "\\_SB.PCI0", "^GED0"; segments of up to 4 characters are padded with '_' (20.2.2).
Code path(std::string_view name);

// Data (20.2.3). Integers take their smallest encoding.
Code integer(uint64_t value);
Code string(std::string_view text);  // ASCII without NUL
Code eisa_id(std::string_view id);   // "PNP0A08"
Code uuid(std::string_view text);    // "33db4d5b-1ff7-401c-9657-7441c03dd766", as ToUUID
Code buffer(std::span<const std::byte> bytes);
Code package(std::span<const Code> elements);  // at most 255
Code package(std::initializer_list<Code> elements);

// Named objects (20.2.5.1, 20.2.5.2).
enum class RegionSpace : uint8_t { kSystemMemory = 0, kSystemIo = 1 };
enum class Serialize { kNo, kYes };
Code name(std::string_view object, const Code& value);
Code scope(std::string_view location, std::initializer_list<Code> terms);
Code device(std::string_view object, std::initializer_list<Code> terms);
Code method(std::string_view object, unsigned arguments, Serialize serialize,
            std::initializer_list<Code> terms);
Code operation_region(std::string_view object, RegionSpace space, uint64_t offset, uint64_t length);
// One field of `bits` from the region's start, byte access, no lock, preserve.
Code byte_field(std::string_view region, std::string_view object, unsigned bits);
Code create_dword_field(const Code& source, uint64_t byte_index, std::string_view object);

// Statements and expressions (20.2.5.3, 20.2.5.4). A `target` may be empty: the result is only the value.
Code local(unsigned number);     // 0..7
Code argument(unsigned number);  // 0..6
Code store(const Code& value, const Code& target);
Code bit_and(const Code& left, const Code& right, const Code& target = {});
Code bit_or(const Code& left, const Code& right, const Code& target = {});
Code equal(const Code& left, const Code& right);
Code logical_not(const Code& operand);
Code if_then(const Code& condition, std::initializer_list<Code> terms);
Code otherwise(std::initializer_list<Code> terms);  // right behind if_then
Code notify(const Code& object, uint64_t value);
Code return_value(const Code& value);

// Resource descriptors (6.4), put together by resources(), which is what _CRS wants. Ends are inclusive.
enum class Trigger { kLevel, kEdge };
Code io(uint16_t base, uint8_t length);
Code interrupt(uint32_t gsi, Trigger trigger);  // active high, exclusive
Code memory32_fixed(uint32_t base, uint32_t length);
Code word_bus(uint16_t first, uint16_t last);
Code word_io(uint16_t first, uint16_t last);
Code dword_memory(uint32_t first, uint32_t last);
Code qword_memory(uint64_t first, uint64_t last);
Code resources(std::initializer_list<Code> descriptors);

}  // namespace snug::boot::aml
