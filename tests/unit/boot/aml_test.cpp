#include "boot/aml.h"

#include <gtest/gtest.h>

#include <string>

namespace snug::boot::aml {
namespace {

// "5b 82" and so on.
std::string hex(const Code& code) {
  std::string text;
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (const std::byte b : code) {
    if (!text.empty()) text += ' ';
    text += kDigits[static_cast<unsigned>(b) >> 4];
    text += kDigits[static_cast<unsigned>(b) & 15];
  }
  return text;
}

TEST(Aml, IntegersTakeTheirSmallestEncoding) {
  EXPECT_EQ(hex(integer(0)), "00");
  EXPECT_EQ(hex(integer(1)), "01");
  EXPECT_EQ(hex(integer(2)), "0a 02");
  EXPECT_EQ(hex(integer(0xff)), "0a ff");
  EXPECT_EQ(hex(integer(0x100)), "0b 00 01");
  EXPECT_EQ(hex(integer(0x12345)), "0c 45 23 01 00");
  EXPECT_EQ(hex(integer(0x100000000)), "0e 00 00 00 00 01 00 00 00");
  EXPECT_EQ(hex(integer(UINT64_MAX)), "ff");
}

TEST(Aml, Paths) {
  EXPECT_EQ(hex(path("_SB")), "5f 53 42 5f");
  EXPECT_EQ(hex(path("\\_S5")), "5c 5f 53 35 5f");
  EXPECT_EQ(hex(path("\\_SB.PCI0")), "5c 2e 5f 53 42 5f 50 43 49 30");
  EXPECT_EQ(hex(path("^A.B.C")), "5e 2f 03 41 5f 5f 5f 42 5f 5f 5f 43 5f 5f 5f");
  EXPECT_EQ(hex(path("\\")), "5c 00");
}

// ACPI 6.5, 19.3.4: the example of EISAID.
TEST(Aml, EisaIds) {
  EXPECT_EQ(hex(eisa_id("PNP0A03")), "0c 41 d0 0a 03");
  EXPECT_EQ(hex(eisa_id("PNP0C0C")), "0c 41 d0 0c 0c");
}

// ACPI 6.5, 19.6.142: aabbccdd-eeff-gghh-iijj-kkllmmnnoopp is dd cc bb aa ff ee hh gg ii jj kk ...
TEST(Aml, Uuids) {
  EXPECT_EQ(hex(uuid("00112233-4455-6677-8899-aabbccddeeff")),
            "11 13 0a 10 33 22 11 00 55 44 77 66 88 99 aa bb cc dd ee ff");
}

TEST(Aml, PackageLengthGrowsWithTheContent) {
  const auto lead = [](size_t size) { return hex(buffer(Code(size))).substr(0, 11); };
  EXPECT_EQ(lead(1), "11 03 01 00");
  EXPECT_EQ(hex(buffer(Code(60))).substr(0, 11), "11 3f 0a 3c");       // 63: one byte
  EXPECT_EQ(hex(buffer(Code(61))).substr(0, 14), "11 41 04 0a 3d");    // 65: two
  EXPECT_EQ(hex(buffer(Code(4090))).substr(0, 11), "11 4f ff 0b");     // 4095: the last of two
  EXPECT_EQ(hex(buffer(Code(4091))).substr(0, 14), "11 81 00 01 0b");  // 4097: three
}

TEST(Aml, NamesAndStrings) {
  EXPECT_EQ(hex(name("_HID", string("AB"))), "08 5f 48 49 44 0d 41 42 00");
  EXPECT_EQ(hex(package({integer(5), integer(0)})), "12 05 02 0a 05 00");
}

TEST(Aml, Blocks) {
  EXPECT_EQ(hex(scope("\\_SB", {})), "10 06 5c 5f 53 42 5f");
  EXPECT_EQ(hex(device("COM1", {})), "5b 82 05 43 4f 4d 31");
  EXPECT_EQ(hex(method("_EVT", 1, Serialize::kYes, {})), "14 06 5f 45 56 54 09");
  EXPECT_EQ(hex(operation_region("EVTR", RegionSpace::kSystemIo, 0x604, 1)),
            "5b 80 45 56 54 52 01 0b 04 06 01");
  EXPECT_EQ(hex(byte_field("EVTR", "EVTS", 8)), "5b 81 0b 45 56 54 52 01 45 56 54 53 08");
}

TEST(Aml, Statements) {
  EXPECT_EQ(hex(store(integer(1), local(0))), "70 01 60");
  EXPECT_EQ(hex(bit_and(local(0), integer(1))), "7b 60 01 00");
  EXPECT_EQ(hex(bit_or(local(0), integer(1), local(1))), "7d 60 01 61");
  EXPECT_EQ(hex(if_then(equal(argument(0), integer(0)), {return_value(integer(1))})), "a0 06 93 68 00 a4 01");
  EXPECT_EQ(hex(otherwise({})), "a1 01");
  EXPECT_EQ(hex(notify(path("PWRB"), 0x80)), "86 50 57 52 42 0a 80");
  EXPECT_EQ(hex(create_dword_field(argument(3), 8, "CDW3")), "8a 6b 0a 08 43 44 57 33");
  EXPECT_EQ(hex(logical_not(local(7))), "92 67");
}

TEST(Aml, ResourceDescriptors) {
  EXPECT_EQ(hex(io(0x3f8, 8)), "47 01 f8 03 f8 03 01 08");
  EXPECT_EQ(hex(interrupt(9, Trigger::kLevel)), "89 06 00 01 01 09 00 00 00");
  EXPECT_EQ(hex(interrupt(4, Trigger::kEdge)), "89 06 00 03 01 04 00 00 00");
  EXPECT_EQ(hex(memory32_fixed(0xe0000000, 0x100000)), "86 09 00 01 00 00 00 e0 00 00 10 00");
  EXPECT_EQ(hex(word_bus(0, 0)), "88 0d 00 02 0c 00 00 00 00 00 00 00 00 00 01 00");
  EXPECT_EQ(hex(word_io(0xc000, 0xffff)), "88 0d 00 01 0c 03 00 00 00 c0 ff ff 00 00 00 40");
  EXPECT_EQ(hex(dword_memory(0xc0000000, 0xdfffffff)),
            "87 17 00 00 0c 01 00 00 00 00 00 00 00 c0 ff ff ff df 00 00 00 00 00 00 00 20");
  EXPECT_EQ(qword_memory(uint64_t{1} << 36, (uint64_t{2} << 36) - 1).size(), 46u);
  EXPECT_EQ(hex(resources({io(0x70, 2)})), "11 0d 0a 0a 47 01 70 00 70 00 01 02 79 00");
}

}  // namespace
}  // namespace snug::boot::aml
