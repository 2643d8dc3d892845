#include "vmm/core/state.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

constexpr std::string_view kMagic = "snugstat";
constexpr size_t kHead = 28;
constexpr size_t kSectionHead = 8;
constexpr size_t kChecksum = 4;
constexpr size_t kNameMax = 64;
constexpr size_t kSectionsMax = 1024;

uint32_t checksum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void append(std::vector<std::byte>& to, size_t width, uint64_t value) {
  to.resize(to.size() + width);
  store_le(std::span(to).last(width), value);
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameMax &&
         std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

void SectionWriter::bytes(std::span<const std::byte> bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

void SectionWriter::blob(std::span<const std::byte> bytes) {
  number(static_cast<uint32_t>(bytes.size()));
  this->bytes(bytes);
}

SectionWriter& StateWriter::section(std::string name, uint16_t version) {
  SNUG_ASSERT(is_name(name));
  sections_.emplace_back();
  sections_.back().name_ = std::move(name);
  sections_.back().version_ = version;
  return sections_.back();
}

std::vector<std::byte> StateWriter::finish() const {
  std::vector<std::byte> all;
  const auto magic = std::as_bytes(std::span(kMagic));
  all.insert(all.end(), magic.begin(), magic.end());
  size_t size = kHead;
  for (const SectionWriter& section : sections_)
    size += kSectionHead + section.name_.size() + section.bytes_.size() + kChecksum;
  append(all, 4, kStateFormat);
  append(all, 4, sections_.size());
  append(all, 8, size);
  append(all, 4, checksum(all));
  for (const SectionWriter& section : sections_) {
    const size_t start = all.size();
    append(all, 4, section.bytes_.size());
    append(all, 2, section.version_);
    append(all, 2, section.name_.size());
    const auto name = std::as_bytes(std::span(section.name_));
    all.insert(all.end(), name.begin(), name.end());
    all.insert(all.end(), section.bytes_.begin(), section.bytes_.end());
    append(all, 4, checksum(std::span(all).subspan(start)));
  }
  return all;
}

// --- reading ------------------------------------------------------------------------------------------

std::span<const std::byte> SectionReader::take(size_t count) {
  if (count > left_.size()) refuse("it ends too early");
  if (!good()) return {};
  const auto taken = left_.first(count);
  left_ = left_.subspan(count);
  return taken;
}

void SectionReader::bytes(std::span<std::byte> out) {
  const auto from = take(out.size());
  std::ranges::fill(out, std::byte{0});
  std::ranges::copy(from, out.begin());
}

std::span<const std::byte> SectionReader::blob(size_t most) {
  return take(number_to<uint32_t>(static_cast<uint32_t>(most)));
}

std::string SectionReader::text(size_t most) {
  const auto from = blob(most);
  return {reinterpret_cast<const char*>(from.data()), from.size()};
}

void SectionReader::refuse(std::string why) {
  if (good()) why_ = std::move(why);
}

Result<void> SectionReader::finish() {
  if (good() && !left_.empty()) refuse(fmt::format("{} bytes more than there should be", left_.size()));
  if (good()) return {};
  return fail("section {}: {}", name_, why_);
}

Result<StateReader> StateReader::parse(std::vector<std::byte> bytes) {
  StateReader reader;
  reader.bytes_ = std::move(bytes);
  const std::span<const std::byte> all(reader.bytes_);
  if (all.size() < kHead || std::memcmp(all.data(), kMagic.data(), kMagic.size()) != 0)
    return fail("this is no machine's state");
  const uint64_t format = load_le(all.subspan(8, 4));
  if (load_le(all.subspan(24, 4)) != checksum(all.first(24))) return fail("its head has been changed");
  if (format != kStateFormat)
    return fail_with_hint(fmt::format("format {}, and this snug reads {}", format, kStateFormat),
                          "restore it with the snug that has written it, or a later one");
  const uint64_t count = load_le(all.subspan(12, 4));
  const uint64_t size = load_le(all.subspan(16, 8));
  if (size != all.size()) return fail("it has {} bytes, and says {}", all.size(), size);
  if (count > kSectionsMax) return fail("it says that it has {} sections", count);
  size_t at = kHead;
  for (uint64_t i = 0; i < count; ++i) {
    if (!range_within(at, kSectionHead, all.size())) return fail("it ends before section {}", i);
    const uint64_t content = load_le(all.subspan(at, 4));
    const auto version = static_cast<uint16_t>(load_le(all.subspan(at + 4, 2)));
    const uint64_t name_size = load_le(all.subspan(at + 6, 2));
    const uint64_t checked = kSectionHead + name_size + content;
    if (!range_within(at, checked + kChecksum, all.size())) return fail("it ends in section {}", i);
    if (load_le(all.subspan(at + checked, kChecksum)) != checksum(all.subspan(at, checked)))
      return fail("section {} has been changed", i);
    const std::string name(reinterpret_cast<const char*>(all.data() + at + kSectionHead), name_size);
    if (!is_name(name)) return fail("section {} has no name", i);
    const Section section{version, at + kSectionHead + name_size, content};
    if (!reader.sections_.emplace(name, section).second) return fail("section {} is there twice", name);
    at += checked + kChecksum;
  }
  if (at != all.size()) return fail("{} bytes behind its last section", all.size() - at);
  return reader;
}

Result<SectionReader> StateReader::section(std::string_view name, uint16_t newest) {
  const auto found = sections_.find(name);
  if (found == sections_.end()) return fail("section {} is missing", name);
  const auto& [version, at, size] = found->second;
  if (version > newest)
    return fail_with_hint(
        fmt::format("section {} has version {}, and this snug reads {}", name, version, newest),
        "restore it with the snug that has written it, or a later one");
  read_.insert(found->first);
  return SectionReader(found->first, version, std::span<const std::byte>(bytes_).subspan(at, size));
}

Result<void> StateReader::finish() const {
  for (const auto& [name, section] : sections_)
    if (!read_.contains(name))
      return fail_with_hint(fmt::format("section {}: this snug does not know it", name),
                            "restore it with the snug that has written it, or a later one");
  return {};
}

}  // namespace snug
