// What a tar can say of one file. One layer each.
#include "tests/unit/images/layer_cases.h"

namespace snug::test {

namespace {

std::string times(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

// One line that comes out as it went in.
LayerCase same(std::string name, const std::string& line) { return {std::move(name), {{line}}, {line}, ""}; }

}  // namespace

std::vector<LayerCase> tar_cases() {
  const std::string long_name(255, 'n');
  // 12 folders with names of 80 bytes: no header of ustar holds it.
  std::string deep = times(std::string(80, 'd') + "/", 12) + "file";
  Lines deep_lines;
  for (size_t i = 1; i <= 12; ++i) deep_lines.push_back("d " + deep.substr(0, i * 81 - 1));
  deep_lines.push_back("f " + deep + " x");
  const std::string long_target = times("target/", 500);
  return {
      {"Nothing", {{}}, {}, ""},
      {"NoLayers", {}, {}, ""},
      same("EmptyFile", "f a"),
      same("File", "f a hello"),
      same("Folder", "d a"),
      same("Link", "l a target"),
      same("LinkToNowhere", "l a /no/such/file"),
      same("LinkUpAndOut", "l a ../../../etc/passwd"),
      same("LinkToRoot", "l a /"),
      same("LinkToDot", "l a ."),
      same("LongLink", "l a " + long_target),
      same("LongestLink", "l a " + std::string(4095, 't')),
      same("Fifo", "p a"),
      same("CharacterDevice", "c null 1:3"),
      same("BlockDevice", "b vda 254:0"),
      same("DeviceOfTheLargestNumber", "c a 4095:1048575"),
      same("DeviceWithAMinorOfNineBits", "c a 5:300"),
      same("DeviceZero", "c a 0:0"),
      same("Mode", "f a x mode=640"),
      same("ModeOfNothing", "f a x mode=0"),
      same("Setuid", "f a x mode=4755"),
      same("Setgid", "f a x mode=2755"),
      same("StickyFolder", "d a mode=1777"),
      same("ModeOfALink", "l a t mode=700"),
      same("Owner", "f a x uid=1000 gid=100"),
      same("OwnerOfALink", "l a t uid=1 gid=2"),
      same("OwnerOfAFolder", "d a uid=33 gid=33"),
      same("OwnerBeyondOctal", "f a x uid=2097152 gid=3000000"),
      same("LargestOwner", "f a x uid=4294967294 gid=4294967294"),
      same("Time", "f a x mtime=1700000000"),
      same("TimeInNanoseconds", "f a x mtime=1700000000.123456789"),
      same("TimeBeyond32Bits", "f a x mtime=5000000000"),
      same("TimeBefore1970", "f a x mtime=-86400"),
      same("TimeOfALink", "l a t mtime=77"),
      same("TimeOfAFolder", "d a mtime=78.000000001"),
      same("TimeOfADevice", "c a 1:5 mtime=79"),
      same("LongName", "f " + long_name + " x"),
      {"LongPath", {{"f " + deep + " x"}}, deep_lines, ""},
      same("NameInUtf8", "f %c3%bcber x"),
      same("NameInNoCharset", "f %ff%fe x"),
      same("NameOfALinkInUtf8", "l %e2%82%ac %c3%a9%c3%a8"),
      same("TargetInNoCharset", "l a %80%81"),
      {"HardLinkInUtf8", {{"f %c3%bc x", "h a %c3%bc"}}, {"f a x links=2", "f %c3%bc x links=2"}, ""},
      same("NameWithSpaces", "f a%20b%20 x"),
      same("NameWithANewLine", "f a%0ab x"),
      same("NameWithABackslash", "f a\\b x"),
      same("NameOfDots", "f ... x"),
      same("NameBeforeDot", "f !a x"),
      same("NameOfAHyphen", "f - x"),
      same("NameThatLooksLikeAWhiteout", "f .whx x"),
      same("NameWithAWhiteoutInside", "f a.wh.b x"),
      same("NameOfOneByte", "f %01 x"),
      {"NamesInTheOrderOfBytes",
       {{"f b 1", "f %c3%bc 2", "f B 3", "f .a 4", "f a.b 5", "f a 6", "f ! 7", "f ~ 8"}},
       {"f ! 7", "f .a 4", "f B 3", "f a 6", "f a.b 5", "f b 1", "f ~ 8", "f %c3%bc 2"},
       ""},
      same("Contents", "f a " + times("0123456789", 20)),
      {"ContentsOfABlock", {{"f a " + std::string(4096, 'x')}}, {"f a 4096..."}, ""},
      {"ContentsOfABlockAndAByte", {{"f a " + std::string(4097, 'x')}}, {"f a 4097..."}, ""},
      {"ContentsOfManyBlocks", {{"f a " + std::string(300'000, 'x')}}, {"f a 300000..."}, ""},
      same("ContentsThatAreZero", "f a %00%00%00"),
      same("ContentsThatLookLikeATar", "f a ustar%0000"),
      {"TwoFilesAlike", {{"f a same", "f b same"}}, {"f a same", "f b same"}, ""},
      same("UserXattr", "f a x x:user.name=value"),
      same("XattrWithoutAValue", "f a x x:user.name="),
      same("XattrOfBytes", "f a x x:user.b=%00%01%ff%0a%3d"),
      same("TwoXattrs", "f a x x:user.a=1 x:user.b=2"),
      same("Capability",
           "f ping x x:security.capability=%01%00%00%02%00%20%00%00%00%00%00%00%00%00%00%00%00%00%00%00"),
      same("SecurityLabel", "f a x x:security.selinux=system_u:object_r:bin_t:s0%00"),
      same("TrustedXattr", "f a x x:trusted.md5=abc"),
      same("Acl",
           "f a x "
           "x:system.posix_acl_access=%02%00%00%00%01%00%06%00%ff%ff%ff%ff%04%00%04%00%ff%ff%ff%ff%20%00%04%"
           "00%ff%ff%ff%ff"),
      same("DefaultAcl",
           "d a "
           "x:system.posix_acl_default=%02%00%00%00%01%00%07%00%ff%ff%ff%ff%04%00%05%00%ff%ff%ff%ff%20%00%05%"
           "00%ff%ff%ff%ff"),
      same("XattrOfAFolder", "d a x:user.name=value"),
      same("XattrOfALink", "l a t x:security.selinux=label"),
      same("XattrOfADevice", "c a 1:3 x:security.selinux=label"),
      same("LongXattr", "f a x x:user.long=" + std::string(30'000, 'v')),
      same("LongNameOfAnXattr", "f a x x:user." + std::string(250, 'n') + "=v"),
      same("XattrsOfAllSpaces", "f a x x:security.a=1 x:trusted.a=2 x:user.a=3"),
      {"XattrOfNoSpace", {{"f a x x:com.apple.provenance=1 x:user.b=2"}}, {"f a x x:user.b=2"}, ""},
      {"XattrOfTheSystem", {{"f a x x:system.other=1"}}, {"f a x"}, ""},
      {"XattrOfAStorageDriver",
       {{"d a x:trusted.overlay.opaque=y x:user.overlay.redirect=/etc x:user.overlayed=1"}},
       {"d a x:user.overlayed=1"},
       ""},
      {"XattrOfOnlyASpace", {{"f a x x:user.=1"}}, {"f a x"}, ""},
      {"PathWithADot", {{"f ./a x", "d ./b/./c"}}, {"f a x", "d b", "d b/c"}, ""},
      {"PathWithSlashes", {{"f b//c x", "d d//"}}, {"d b", "f b/c x", "d d"}, ""},
      {"PathFromTheRoot", {{"f /a x", "f //b/c y"}}, {"f a x", "d b", "f b/c y"}, ""},
      {"FileWithASlashIsAFolder", {{"f a/ mode=750"}}, {"d a mode=750"}, ""},
      same("RootFolder", "d / mode=700 uid=5 gid=6 mtime=7.000000008 x:user.root=1"),
      {"RootFolderAfterItsFiles", {{"f a x", "d / mode=711"}}, {"d / mode=711", "f a x"}, ""},
      {"TheSameNameTwice", {{"f a 1", "f a 2"}}, {"f a 2"}, ""},
      {"MissingParents", {{"f a/b/c x"}}, {"d a", "d a/b", "f a/b/c x"}, ""},
      {"ParentsBehindTheirChildren",
       {{"f a/b/c x", "d a/b mode=700", "d a uid=9"}},
       {"d a uid=9", "d a/b mode=700", "f a/b/c x"},
       ""},
  };
}

}  // namespace snug::test
