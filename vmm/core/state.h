// The state of a machine as bytes: sections, each with a name, a version and a checksum, in any order. Who
// has state writes a section and reads it again; nothing here knows what is in one.
//
//   head     "snugstat", u32 format, u32 sections, u64 bytes of all, u32 CRC-32 of the head before it
//   section  u32 bytes of its content, u16 version, u16 bytes of its name, name, content, u32 CRC-32 of those
//
// All numbers are little-endian. What is read may be anybody's work: every length is checked against what is
// there, and a reader that has met something wrong reads zeros from there on and says so at its end.
//
// Any thread; one at a time for each object.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace snug {

constexpr uint32_t kStateFormat = 1;
constexpr size_t kStateMax = size_t{64} << 20;  // bytes of all sections

class SectionWriter {
 public:
  template <std::unsigned_integral T>
  void number(T value) {
    for (size_t i = 0; i < sizeof value; ++i)
      bytes_.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i)));
  }
  void flag(bool value) { number(static_cast<uint8_t>(value)); }
  // As they are: the reader knows how many.
  void bytes(std::span<const std::byte> bytes);
  // With their length before them.
  void blob(std::span<const std::byte> bytes);
  void text(std::string_view text) { blob(std::as_bytes(std::span(text))); }

 private:
  friend class StateWriter;
  std::string name_;
  uint16_t version_ = 0;
  std::vector<std::byte> bytes_;
};

class StateWriter {
 public:
  // A new one; no two have the same name. It stays where it is.
  SectionWriter& section(std::string name, uint16_t version);
  std::vector<std::byte> finish() const;

 private:
  std::list<SectionWriter> sections_;
};

class SectionReader {
 public:
  SectionReader(std::string name, uint16_t version, std::span<const std::byte> content)
      : name_(std::move(name)), version_(version), left_(content) {}

  uint16_t version() const { return version_; }
  const std::string& name() const { return name_; }

  template <std::unsigned_integral T>
  T number() {
    uint64_t value = 0;
    const auto from = take(sizeof(T));
    for (size_t i = 0; i < from.size(); ++i) value |= uint64_t{std::to_integer<uint8_t>(from[i])} << (8 * i);
    return static_cast<T>(value);
  }
  // A number of at most `most`: more is wrong, and reads as 0.
  template <std::unsigned_integral T>
  T number_to(T most) {
    const T value = number<T>();
    if (value <= most) return value;
    refuse(fmt::format("{} where {} is the most", uint64_t{value}, uint64_t{most}));
    return 0;
  }
  bool flag() { return number_to<uint8_t>(1) != 0; }
  void bytes(std::span<std::byte> out);
  // What blob() and text() have written, of at most `most` bytes.
  std::span<const std::byte> blob(size_t most);
  std::string text(size_t most);

  // It cannot be so: `why` is what finish() says, unless something was wrong before.
  void refuse(std::string why);
  bool good() const { return why_.empty(); }
  // All of it was read, and nothing was wrong.
  Result<void> finish();

 private:
  std::span<const std::byte> take(size_t count);

  std::string name_;
  uint16_t version_;
  std::span<const std::byte> left_;
  std::string why_;
};

class StateReader {
 public:
  // Errors: no state, of a later format, cut short, changed.
  static Result<StateReader> parse(std::vector<std::byte> bytes);

  bool has(std::string_view name) const { return sections_.contains(name); }
  // Errors: there is none; it is newer than `newest`, the version that its reader knows.
  Result<SectionReader> section(std::string_view name, uint16_t newest);
  // Errors: a section that nobody has asked for.
  Result<void> finish() const;

 private:
  struct Section {
    uint16_t version = 0;
    size_t at = 0;  // in bytes_
    size_t size = 0;
  };
  std::vector<std::byte> bytes_;
  std::map<std::string, Section, std::less<>> sections_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace snug
