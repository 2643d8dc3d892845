// Sections of a machine's state: written, read again, and everything else refused.
#include "vmm/core/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace snug {
namespace {

using testing::HasSubstr;

std::vector<std::byte> two_sections() {
  StateWriter writer;
  SectionWriter& first = writer.section("first", 1);
  first.number(uint8_t{1});
  first.number(uint16_t{0x1234});
  first.number(uint32_t{0xdeadbeef});
  first.number(uint64_t{1} << 63);
  first.flag(true);
  first.text("words");
  writer.section("second", 7);
  return writer.finish();
}

std::string refusal(std::vector<std::byte> bytes) {
  const auto reader = StateReader::parse(std::move(bytes));
  return reader ? "" : reader.error().message;
}

TEST(StateTest, SectionsAreReadAsTheyWereWritten) {
  auto reader = StateReader::parse(two_sections());
  ASSERT_TRUE(reader) << reader.error().text();
  auto first = reader->section("first", 1);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->number<uint8_t>(), 1);
  EXPECT_EQ(first->number<uint16_t>(), 0x1234);
  EXPECT_EQ(first->number<uint32_t>(), 0xdeadbeef);
  EXPECT_EQ(first->number<uint64_t>(), uint64_t{1} << 63);
  EXPECT_TRUE(first->flag());
  EXPECT_EQ(first->text(5), "words");
  EXPECT_TRUE(first->finish());
  EXPECT_FALSE(reader->finish()) << "a section that nobody has asked for";
  auto second = reader->section("second", 9);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->version(), 7);
  EXPECT_TRUE(second->finish());
  EXPECT_TRUE(reader->finish());
}

TEST(StateTest, WhatIsCutOrChangedIsRefused) {
  const auto whole = two_sections();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(refusal({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)}), "") << size;
  for (size_t at = 0; at < whole.size(); ++at) {
    auto changed = whole;
    changed[at] ^= std::byte{0x10};
    EXPECT_NE(refusal(changed), "") << at;
  }
  auto longer = whole;
  longer.push_back(std::byte{0});
  EXPECT_THAT(refusal(longer), HasSubstr("says"));
}

TEST(StateTest, NamesAreThereOnceAndKnown) {
  StateWriter twice;
  twice.section("a", 1);
  twice.section("a", 1);
  EXPECT_THAT(refusal(twice.finish()), HasSubstr("section a is there twice"));
  auto reader = StateReader::parse(two_sections());
  ASSERT_TRUE(reader);
  EXPECT_THAT(reader->section("third", 1).error().message, HasSubstr("section third is missing"));
  EXPECT_THAT(reader->section("second", 6).error().message, HasSubstr("version 7, and this snug reads 6"));
  EXPECT_THAT(reader->finish().error().message, HasSubstr("does not know it"));
}

TEST(StateTest, AReaderThatHasMetSomethingWrongReadsZerosAndSaysSo) {
  const std::array bytes{std::byte{3}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{'a'}};
  SectionReader cut("short", 1, bytes);
  EXPECT_EQ(cut.text(10), "");
  EXPECT_EQ(cut.number<uint8_t>(), 0);
  EXPECT_THAT(cut.finish().error().message, HasSubstr("section short: it ends too early"));
  SectionReader large("large", 1, bytes);
  EXPECT_EQ(large.blob(2).size(), 0u);
  EXPECT_THAT(large.finish().error().message, HasSubstr("3 where 2 is the most"));
  SectionReader rest("rest", 1, bytes);
  (void)rest.number<uint32_t>();
  EXPECT_THAT(rest.finish().error().message, HasSubstr("1 bytes more"));
  SectionReader flag("flag", 1, bytes);
  EXPECT_FALSE(flag.flag());
  EXPECT_FALSE(flag.good()) << "3 is no flag";
  SectionReader refused("refused", 1, bytes);
  refused.refuse("first");
  refused.refuse("second");
  EXPECT_THAT(refused.finish().error().message, HasSubstr("first"));
}

}  // namespace
}  // namespace snug
