#include "vmm/cli/junit.h"

#include <gmock/gmock.h>

#include <fstream>

namespace snug::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(XmlText, HasOnlyWhatXmlMayHold) {
  EXPECT_EQ(xml_text("a <b> & \"c\"\n\t"), "a &lt;b&gt; &amp; &quot;c&quot;\n\t");
  EXPECT_EQ(xml_text(std::string_view("\0\x1b[31m", 6)), "\xe2\x90\x80\xe2\x90\x9b[31m");
  EXPECT_EQ(xml_text("\r\n"), "&#13;\n");
  const std::string fine = "\x7f \xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa7 \xef\xbf\xbd";
  EXPECT_EQ(xml_text(fine), fine);
}

TEST(XmlText, ReplacesWhatIsNoUtf8) {
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(xml_text("a\x80z"), "a" + r + "z");
  EXPECT_EQ(xml_text("\xc3"), r);                          // cut off
  EXPECT_EQ(xml_text("\xe2\x82z"), r + r + "z");           // cut short
  EXPECT_EQ(xml_text("\xc0\xaf"), r + r);                  // longer than need be
  EXPECT_EQ(xml_text("\xe0\x80\xaf"), r + r + r);          // the same
  EXPECT_EQ(xml_text("\xed\xa0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(xml_text("\xef\xbf\xbe"), r + r + r);          // U+FFFE
  EXPECT_EQ(xml_text("\xf4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(xml_text("\xff\xfe"), r + r);
}

CommandPlan plan_of(std::initializer_list<const char*> titles) {
  CommandPlan plan;
  for (const char* title : titles) plan.commands.push_back({{"sh"}, title});
  return plan;
}

TEST(Junit, EachCommandHasItsEndAndItsOutput) {
  std::vector<CommandResult> results(2);
  results[0].output.text = "one\n";
  results[1].status = 3;
  results[1].errors.text = "<two>\x1b";
  results[1].errors.left_out = 70'000;
  const std::string xml = junit_xml("box", plan_of({"a", "b", "c"}), results, "the guest's kernel panicked");
  EXPECT_THAT(xml, HasSubstr("tests=\"3\" failures=\"1\" errors=\"1\""));
  EXPECT_THAT(xml, HasSubstr("<system-out>one\n</system-out>"));
  EXPECT_THAT(xml, HasSubstr("<failure message=\"status 3\"/>"));
  EXPECT_THAT(xml, HasSubstr("<system-err>[70000 bytes left out]\n&lt;two&gt;\xe2\x90\x9b</system-err>"));
  EXPECT_THAT(xml, HasSubstr("<error message=\"the guest's kernel panicked\"/>"));
  results.resize(1);
  EXPECT_THAT(junit_xml("box", plan_of({"a"}), results, ""), Not(HasSubstr("system-err")));
}

TEST(Junit, TheEndOfAnOutputIsKept) {
  KeptOutput kept;
  std::string all;
  for (int i = 0; i < 100'000; ++i) {
    const std::string line = std::to_string(i) + "\n";
    all += line;
    kept.add(line, 1000);
    ASSERT_LE(kept.text.size(), 2000u);
  }
  EXPECT_GE(kept.text.size(), 1000u);
  EXPECT_EQ(kept.left_out + kept.text.size(), all.size());
  EXPECT_TRUE(all.ends_with(kept.text));
}

TEST(Junit, TheFileIsThereWholeOrNotAtAll) {
  const std::string folder = testing::TempDir();
  const std::string path = folder + "/snug-junit-test.xml";
  ASSERT_TRUE(write_junit(path, std::string(100'000, 'x')));
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}).size(), 100'000u);
  ::remove(path.c_str());
  EXPECT_FALSE(write_junit(folder + "/no/such/folder/x.xml", "x"));
}

}  // namespace
}  // namespace snug::cli
