// Layers that nobody makes who means well: each is refused by name, or does no harm. And tars that libarchive
// does not write.
#include <fmt/format.h>

#include <algorithm>

#include "tests/unit/images/layer_cases.h"

namespace snug::test {

namespace {

std::string text_of(size_t count, char c) { return std::string(count, c); }

LayerCase refuses(std::string name, std::vector<Lines> layers, std::string fault) {
  return {std::move(name), std::move(layers), {}, std::move(fault)};
}
LayerCase refuses_raw(std::string name, std::function<std::string()> layer, std::string fault) {
  return {
      std::move(name), {}, {}, std::move(fault), [layer = std::move(layer)] { return std::vector{layer()}; }};
}
LayerCase reads_raw(std::string name, std::function<std::string()> layer, Lines expected) {
  return {std::move(name), {}, std::move(expected), "", [layer = std::move(layer)] {
            return std::vector{layer()};
          }};
}

std::string file(const std::string& name, const std::string& contents) {
  RawHeader header;
  header.name = name;
  header.contents = contents;
  return raw(header);
}

RawHeader of_type(const std::string& name, char type) {
  RawHeader header;
  header.name = name;
  header.type = type;
  return header;
}

const std::string kGnuMagic = std::string("ustar  \0", 8);

// The name of the next entry, or its link's target, in the way of GNU tar.
std::string gnu_long(char type, const std::string& text) {
  RawHeader header = of_type("././@LongLink", type);
  header.magic = kGnuMagic;
  header.contents = text + '\0';
  return raw(header);
}

std::string octal(uint64_t value) { return fmt::format("{:011o}", value); }

// GNU's old way of sparse files: the map is in the header, four parts at most.
std::string old_sparse(const std::string& name, const std::vector<std::pair<uint64_t, uint64_t>>& map,
                       uint64_t size, const std::string& data) {
  RawHeader header = of_type(name, 'S');
  header.magic = kGnuMagic;
  header.contents = data;
  std::string block = raw(header);
  size_t at = 386;
  for (const auto& [offset, count] : map) {
    block.replace(at, 11, octal(offset));
    block.replace(at + 12, 11, octal(count));
    at += 24;
  }
  block.replace(483, 11, octal(size));
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(block[i]);
  block.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
  return block;
}

// GNU's ways by PAX: 0.1 with the map in the header, 1.0 with it in front of the data.
std::string sparse_01(const std::string& name, const std::string& map, uint64_t size,
                      const std::string& data) {
  return pax({{"GNU.sparse.size", std::to_string(size)},
              {"GNU.sparse.numblocks", "1"},
              {"GNU.sparse.name", name},
              {"GNU.sparse.map", map}}) +
         file("GNUSparseFile.0/" + name, data);
}
std::string sparse_10(const std::string& name, std::string map, uint64_t size, const std::string& data) {
  map.resize((map.size() + 511) / 512 * 512, '\0');
  return pax({{"GNU.sparse.major", "1"},
              {"GNU.sparse.minor", "0"},
              {"GNU.sparse.name", name},
              {"GNU.sparse.realsize", std::to_string(size)}}) +
         file("GNUSparseFile.0/" + name, map + data);
}

std::string with_end(const std::string& tar) { return tar + tar_end(); }

}  // namespace

std::vector<LayerCase> raw_tar_cases() {
  std::vector<LayerCase> cases{
      reads_raw("OldTar",
                [] {
                  RawHeader header;
                  header.name = "a";
                  header.contents = "x";
                  header.magic = "";
                  return with_end(raw(header));
                },
                {"f a x"}),
      reads_raw("OldTarWithTypeZero",
                [] {
                  RawHeader header = of_type("a", '\0');
                  header.contents = "x";
                  return with_end(raw(header));
                },
                {"f a x"}),
      reads_raw("PrefixOfUstar",
                [] {
                  RawHeader header = of_type("c", '0');
                  header.prefix = "a/b";
                  return with_end(raw(header));
                },
                {"d a", "d a/b", "f a/b/c"}),
      reads_raw("GnuLongName",
                [] { return with_end(gnu_long('L', "d/" + text_of(200, 'n')) + file("cut", "x")); },
                {"d d", "f d/" + text_of(200, 'n') + " x"}),
      reads_raw("GnuLongLink",
                [] {
                  RawHeader header = of_type("l", '2');
                  header.mode = 0777;
                  header.link = "cut";
                  return with_end(gnu_long('K', text_of(300, 't')) + raw(header));
                },
                {"l l " + text_of(300, 't')}),
      reads_raw("GnuLongNameAndLink",
                [] {
                  RawHeader header = of_type("cut", '2');
                  header.mode = 0777;
                  header.link = "cut";
                  return with_end(gnu_long('K', text_of(300, 't')) + gnu_long('L', text_of(200, 'n')) +
                                  raw(header));
                },
                {"l " + text_of(200, 'n') + " " + text_of(300, 't')}),
      reads_raw("SizeOfBase256",
                [] {
                  RawHeader header = of_type("a", '0');
                  header.contents = "hello";
                  header.size_field = std::string("\x80\0\0\0\0\0\0\0\0\0\0\5", 12);
                  return with_end(raw(header));
                },
                {"f a hello"}),
      reads_raw("PaxPath",
                [] {
                  return with_end(pax({{"path", "d/\xc3\xbc"}}) + file("other", "x"));
                },
                {"d d", "f d/%c3%bc x"}),
      reads_raw("PaxPathInNoCharset",
                [] {
                  return with_end(pax({{"path", "\xff\xfe"}}) + file("other", "x"));
                },
                {"f %ff%fe x"}),
      reads_raw("PaxPathThatIsBinary",
                [] {
                  return with_end(pax({{"hdrcharset", "BINARY"}, {"path", "\xff"}}) + file("other", "x"));
                },
                {"f %ff x"}),
      reads_raw("PaxNumbers",
                [] {
                  return with_end(
                      pax({{"uid", "70000"}, {"gid", "4000000000"}, {"mtime", "12.5"}, {"size", "3"}}) +
                      file("a", "xyz"));
                },
                {"f a xyz uid=70000 gid=4000000000 mtime=12.500000000"}),
      reads_raw("PaxXattr",
                [] {
                  return with_end(pax({{"SCHILY.xattr.user.a", std::string("1\0=\n", 4)}}) + file("a", "x"));
                },
                {"f a x x:user.a=1%00%3d%0a"}),
      reads_raw("PaxXattrTwice",
                [] {
                  return with_end(pax({{"SCHILY.xattr.user.a", "1"}, {"SCHILY.xattr.user.a", "2"}}) +
                                  file("a", "x"));
                },
                {"f a x x:user.a=2"}),
      reads_raw("PaxXattrOfLibarchive",
                [] {
                  return with_end(pax({{"LIBARCHIVE.xattr.user.a", "aGVsbG8"}}) + file("a", "x"));
                },
                {"f a x x:user.a=hello"}),
      reads_raw("PaxKeysThatNobodyKnows",
                [] {
                  return with_end(
                      pax({{"comment", "x"}, {"VENDOR.key", "y"}, {"LIBARCHIVE.creationtime", "1"}}) +
                      file("a", "x"));
                },
                {"f a x"}),
      reads_raw("PaxForAllEntries",
                [] {
                  return with_end(pax({{"comment", "of a git archive"}}, 'g') + file("a", "x"));
                },
                {"f a x"}),
      reads_raw("PaxLinkpathOfAHardLink",
                [] {
                  RawHeader header = of_type("b", '1');
                  header.link = "cut";
                  return with_end(file("a", "x") + pax({{"linkpath", "a"}}) + raw(header));
                },
                {"f a x links=2", "f b x links=2"}),
      reads_raw("HardLinkWithASize",
                [] {
                  RawHeader header = of_type("b", '1');
                  header.link = "a";
                  header.size_field = octal(1);
                  return with_end(file("a", "x") + raw(header) + file("c", "y"));
                },
                {"f a x links=2", "f b x links=2", "f c y"}),
      reads_raw("TypeThatNobodyKnows",
                [] {
                  RawHeader header = of_type("a", '9');
                  header.contents = "x";
                  return with_end(raw(header));
                },
                {"f a x"}),
      reads_raw("ContiguousFile",
                [] {
                  RawHeader header = of_type("a", '7');
                  header.contents = "x";
                  return with_end(raw(header));
                },
                {"f a x"}),
      reads_raw("VolumeHeader",
                [] {
                  RawHeader header = of_type("label", 'V');
                  header.magic = kGnuMagic;
                  return with_end(raw(header) + file("a", "x"));
                },
                {"f a x"}),
      reads_raw("NoEndOfTheTar", [] { return file("a", "x"); }, {"f a x"}),
      reads_raw("EndsWithItsContents", [] { return file("a", "x").substr(0, 513); }, {"f a x"}),
      reads_raw("EndsInWhatFillsTheLastBlock", [] { return file("b", "y") + file("a", "x").substr(0, 700); },
                {"f a x", "f b y"}),
      reads_raw("OneBlockAtTheEnd", [] { return file("a", "x") + text_of(512, '\0'); }, {"f a x"}),
      reads_raw("SomethingBehindTheEnd", [] { return with_end(file("a", "x")) + text_of(5000, 'z'); },
                {"f a x"}),
      reads_raw("SparseOldGnu",
                [] {
                  return with_end(old_sparse("a", {{8, 4}, {20, 0}}, 20, "data"));
                },
                {"f a %00%00%00%00%00%00%00%00data%00%00%00%00%00%00%00%00"}),
      reads_raw("SparsePax01", [] { return with_end(sparse_01("a", "4,4", 10, "data")); },
                {"f a %00%00%00%00data%00%00"}),
      reads_raw("SparsePax10", [] { return with_end(sparse_10("a", "1\n4\n4\n", 10, "data")); },
                {"f a %00%00%00%00data%00%00"}),
      reads_raw("SparseOfNothing", [] { return with_end(sparse_10("a", "1\n5000\n0\n", 5000, "")); },
                {"f a 5000..."}),
      reads_raw("SparseOfATerabyte",
                [] { return with_end(sparse_10("a", "1\n1099511623680\n4\n", uint64_t{1} << 40, "data")); },
                {"f a 1099511627776..."}),
      reads_raw("SparseOfSixteenTerabytes",
                [] { return with_end(sparse_10("a", "0\n", uint64_t{1} << 44, "")); },
                {"f a 17592186044416..."}),
  };
  return cases;
}

std::vector<LayerCase> hostile_cases() {
  std::string many_dots;
  for (int i = 0; i < 600; ++i) many_dots += "d/";
  std::string long_path;
  for (int i = 0; i < 50; ++i) long_path += text_of(99, 'p') + "/";
  Lines chain{"d t"};
  for (int i = 0; i < 41; ++i)
    chain.push_back(fmt::format("l l{} {}", i, i == 0 ? "t" : fmt::format("l{}", i - 1)));
  chain.push_back("f l40/x 1");
  Lines short_chain(chain.begin(), chain.end() - 2);
  short_chain.push_back("f l39/x 1");
  Lines short_chain_made{"d t", "f t/x 1"};
  short_chain_made.insert(short_chain_made.end(), short_chain.begin() + 1, short_chain.end() - 1);
  std::sort(short_chain_made.begin(), short_chain_made.end(), [](const std::string& a, const std::string& b) {
    return a.substr(2, a.find(' ', 2) - 2) < b.substr(2, b.find(' ', 2) - 2);
  });
  // Each link doubles the way.
  Lines doubling{"d t", "l l0 t/../t"};
  for (int i = 1; i < 30; ++i) doubling.push_back(fmt::format("l l{} l{}/../l{}", i, i - 1, i - 1));
  doubling.push_back("f l29/x 1");
  std::string parts;
  for (int i = 0; i < 1000; ++i) parts += "t/../";
  Lines xattrs{"f a x"};
  for (int i = 0; i < 3; ++i) xattrs[0] += fmt::format(" x:user.{}={}", i, text_of(30'000, 'v'));
  std::vector<LayerCase> cases{
      refuses("DotsUp", {{"f ../a x"}}, "path-escapes"),
      refuses("DotsInside", {{"d a", "f a/../b x"}}, "path-escapes"),
      refuses("DotsAtTheEnd", {{"d a/.."}}, "path-escapes"),
      refuses("DotsFromTheRoot", {{"f /../../etc/passwd x"}}, "path-escapes"),
      refuses("DotsOfAWhiteout", {{"f ../.wh.a"}}, "path-escapes"),
      refuses("DotsOfAHardLink", {{"f a x", "h b ../a"}}, "path-escapes"),
      refuses("DotsOfAnOpaqueFolder", {{"f a/../../.wh..wh..opq"}}, "path-escapes"),
      refuses("WhiteoutOfNothing", {{"f .wh."}}, "bad-whiteout"),
      refuses("WhiteoutOfTheFolderItself", {{"d a", "f a/.wh.."}}, "bad-whiteout"),
      refuses("WhiteoutOfTheFolderAbove", {{"d a", "f a/.wh..."}}, "bad-whiteout"),
      refuses("FileBelowAWhiteout", {{"f .wh.a/b x"}}, "reserved-name"),
      refuses("WhiteoutBelowAWhiteout", {{"f .wh.a/.wh.b"}}, "reserved-name"),
      refuses("ReservedNameByALink", {{"l a .wh.x", "f a/b x"}}, "reserved-name"),
      refuses("HardLinkToNothing", {{"h a none"}}, "bad-link"),
      refuses("HardLinkToAFolder", {{"d d", "h a d"}}, "bad-link"),
      refuses("HardLinkToTheRoot", {{"h a /"}}, "bad-link"),
      refuses("HardLinkForward", {{"h a b", "f b x"}}, "bad-link"),
      refuses("HardLinkToWhatIsHidden", {{"f a 1"}, {"f .wh.a", "h b a"}}, "bad-link"),
      refuses("HardLinkBelowItsTarget", {{"f a 1", "h a/b a"}}, "bad-link"),
      refuses("HardLinkToItselfAlone", {{"h a a"}}, "bad-link"),
      refuses("HardLinkThroughAFile", {{"f a 1", "h b a/x"}}, "bad-link"),
      refuses("LinksInACircle", {{"l a b", "l b a", "f a/x 1"}}, "too-many-links"),
      refuses("LinkToItself", {{"l a a", "f a/x 1"}}, "too-many-links"),
      refuses("LinkBelowItself", {{"l a a/b", "f a/x 1"}}, "too-many-links"),
      refuses("FortyOneLinks", {chain}, "too-many-links"),
      {"FortyLinks", {short_chain}, short_chain_made, ""},
      refuses("LinksThatDouble", {doubling}, "too-many-links"),
      refuses("LinkOfAThousandParts", {{"d t", "l a " + parts.substr(0, 4095), "f a/x 1"}}, "too-many-links"),
      refuses("WhiteoutInACircle", {{"l a b", "l b a", "f a/.wh.x"}}, "too-many-links"),
      refuses("HardLinkInACircle", {{"l a b", "l b a", "h c a/x"}}, "too-many-links"),
      refuses("NameTooLong", {{"f " + text_of(256, 'n') + " x"}}, "name-too-long"),
      refuses("NameOfAFolderTooLong", {{"f " + text_of(256, 'n') + "/a x"}}, "name-too-long"),
      refuses("NameTooLongByALink", {{"l a " + text_of(256, 'n'), "f a/x 1"}}, "name-too-long"),
      refuses("PathTooLong", {{"f " + long_path + "a x"}}, "path-too-long"),
      refuses("TargetTooLong", {{"l a " + text_of(4096, 't')}}, "path-too-long"),
      refuses("TargetOfAHardLinkTooLong", {{"h a " + text_of(4096, 't')}}, "path-too-long"),
      refuses("TooDeep", {{"d " + many_dots}}, "too-deep"),
      refuses("XattrsTooLarge", {xattrs}, "xattr-too-large"),
      refuses("XattrTooLarge", {{"f a x x:user.a=" + text_of(65'536, 'v')}}, "xattr-too-large"),
      refuses("NameOfAnXattrTooLong", {{"f a x x:user." + text_of(251, 'n') + "=v"}}, "xattr-too-large"),
      refuses("OwnerTooLarge", {{"f a x uid=4294967295"}}, "bad-owner"),
      refuses("GroupBeyond32Bits", {{"f a x gid=4294967296"}}, "bad-owner"),
      refuses("MajorTooLarge", {{"c a 4096:0"}}, "bad-device"),
      refuses("MinorTooLarge", {{"c a 0:1048576"}}, "bad-device"),
      refuses_raw(
          "OwnerBelowZero",
          [] {
            return with_end(pax({{"uid", "-1"}}) + file("a", "x"));
          },
          "bad-owner"),
      refuses_raw(
          "NoName", [] { return with_end(file("", "x")); }, "bad-name"),
      refuses_raw(
          "NameOfADot", [] { return with_end(file(".", "x")); }, "bad-name"),
      refuses_raw(
          "LinkWithoutATarget", [] { return with_end(raw(of_type("a", '2'))); }, "bad-link"),
      refuses_raw(
          "HardLinkWithoutATarget", [] { return with_end(raw(of_type("a", '1'))); }, "bad-link"),
      refuses_raw(
          "NotATar", [] { return text_of(10'000, 'x'); }, "broken-archive"),
      refuses_raw(
          "NoBytes", [] { return std::string(); }, "broken-archive"),
      refuses_raw(
          "OneByte", [] { return std::string("x"); }, "broken-archive"),
      refuses_raw(
          "CutInAHeader", [] { return file("a", "x") + file("b", "y").substr(0, 300); }, "broken-archive"),
      refuses_raw(
          "CutInContents", [] { return file("a", text_of(5000, 'x')).substr(0, 3000); }, "broken-archive"),
      refuses_raw(
          "CutInTheLastByte", [] { return file("a", "xyz").substr(0, 514); }, "broken-archive"),
      refuses_raw(
          "WrongChecksum",
          [] {
            std::string second = file("b", "y");
            second[0] = 'c';
            return with_end(file("a", "x") + second);
          },
          "broken-archive"),
      refuses_raw(
          "SizeBelowZero",
          [] {
            RawHeader header = of_type("a", '0');
            header.size_field = text_of(12, '\xff');
            return with_end(raw(header));
          },
          "broken-archive"),
      refuses_raw(
          "SizeOfEverything",
          [] {
            RawHeader header = of_type("a", '0');
            header.size_field = std::string("\x80\0\0\0\x40\0\0\0\0\0\0\0", 12);
            return with_end(raw(header));
          },
          "too-many-bytes"),
      refuses_raw(
          "HeadersWithoutEnd",
          [] {
            std::string tar;
            for (int i = 0; i < 100; ++i) tar += pax({{"comment", "x"}});
            return with_end(tar + file("a", "x"));
          },
          "broken-archive"),
      refuses_raw(
          "HeaderOfTwoMegabytes",
          [] { return with_end(gnu_long('L', text_of(2'000'000, 'n')) + file("a", "x")); }, "broken-archive"),
      refuses_raw(
          "PaxThatIsBroken",
          [] {
            RawHeader header = of_type("header", 'x');
            header.contents = "99 path=a\n";
            return with_end(raw(header) + file("a", "x"));
          },
          "broken-archive"),
      refuses_raw(
          "PaxPathThatEscapes",
          [] {
            return with_end(pax({{"path", "../a"}}) + file("good", "x"));
          },
          "path-escapes"),
      refuses_raw(
          "GnuNameThatEscapes", [] { return with_end(gnu_long('L', "a/../../b") + file("good", "x")); },
          "path-escapes"),
      refuses_raw(
          "SparseBeyondItsSize", [] { return with_end(sparse_10("a", "1\n100\n4\n", 50, "data")); },
          "bad-sparse-map"),
      refuses_raw(
          "SparseBackwards", [] { return with_end(sparse_10("a", "2\n100\n4\n0\n4\n", 200, "datadata")); },
          "bad-sparse-map"),
      refuses_raw(
          "SparseOverItself", [] { return with_end(sparse_10("a", "2\n0\n4\n2\n4\n", 200, "datadata")); },
          "bad-sparse-map"),
      refuses_raw(
          "SparseBeyondAllNumbers",
          [] { return with_end(sparse_10("a", "1\n9223372036854775807\n4\n", 200, "data")); },
          "broken-archive"),
      refuses_raw(
          "SparseMapThatIsNone", [] { return with_end(sparse_10("a", "x\ny\n", 200, "data")); },
          "broken-archive"),
      refuses_raw(
          "SparseOfAnExabyte", [] { return with_end(sparse_10("a", "0\n", uint64_t{1} << 60, "")); },
          "too-many-bytes"),
      refuses_raw(
          "SparseFolder",
          [] {
            return with_end(pax({{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}}) +
                            raw(of_type("a", '5')));
          },
          "broken-archive"),
      refuses_raw(
          "SparseMapOfMegabytes",
          [] {
            std::string map = "3000000\n";
            for (int i = 0; i < 3'000'000; ++i) map += "0\n0\n";
            return with_end(sparse_10("a", map, 1, ""));
          },
          "header-too-large"),
      refuses_raw(
          "Bzip2", [] { return "BZh91AY&SY" + text_of(100, 'x'); }, "unknown-compression"),
      refuses_raw(
          "Xz",
          [] {
            return std::string(
                       "\xfd"
                       "7zXZ\0\0\4",
                       8) +
                   text_of(100, 'x');
          },
          "unknown-compression"),
      refuses_raw(
          "Zip", [] { return "PK\3\4" + text_of(100, 'x'); }, "unknown-compression"),
      refuses_raw(
          "GzipCut",
          [] {
            const std::string all = packed(with_end(file("a", "x")), Packing::kGzip);
            return all.substr(0, all.size() - 5);
          },
          "broken-compression"),
      refuses_raw(
          "GzipWithAWrongChecksum",
          [] {
            std::string all = packed(with_end(file("a", "x")), Packing::kGzip);
            all[all.size() - 6] ^= 1;
            return all;
          },
          "broken-compression"),
      refuses_raw(
          "GzipWithSomethingBehind",
          [] { return packed(with_end(file("a", "x")), Packing::kGzip) + "garbage"; }, "broken-compression"),
      refuses_raw(
          "GzipOfNoTar", [] { return packed("hello", Packing::kGzip); }, "broken-archive"),
      refuses_raw(
          "ZstdCut",
          [] {
            const std::string all = packed(with_end(file("a", "x")), Packing::kZstd);
            return all.substr(0, all.size() - 3);
          },
          "broken-compression"),
      refuses_raw(
          "ZstdWithSomethingBehind",
          [] { return packed(with_end(file("a", "x")), Packing::kZstd) + "garbage"; }, "broken-compression"),
      refuses_raw(
          "ZstdOfNoTar", [] { return packed("hello", Packing::kZstd); }, "broken-archive"),
      reads_raw("GzipOfTwoMembers",
                [] {
                  const std::string tar = with_end(file("a", "x"));
                  return packed(tar.substr(0, 700), Packing::kGzip) + packed(tar.substr(700), Packing::kGzip);
                },
                {"f a x"}),
      reads_raw("GzipOfEmptyMembers",
                [] {
                  return packed("", Packing::kGzip) + packed("", Packing::kGzip) +
                         packed(with_end(file("a", "x")), Packing::kGzip) + packed("", Packing::kGzip);
                },
                {"f a x"}),
      reads_raw("GzipWithZerosBehind",
                [] { return packed(with_end(file("a", "x")), Packing::kGzip) + text_of(10'000, '\0'); },
                {"f a x"}),
      reads_raw("ZstdOfTwoFrames",
                [] {
                  const std::string tar = with_end(file("a", "x"));
                  return packed(tar.substr(0, 700), Packing::kZstd) + packed(tar.substr(700), Packing::kZstd);
                },
                {"f a x"}),
      reads_raw("ZstdWithAFrameToSkip",
                [] {
                  return std::string("\x50\x2a\x4d\x18\3\0\0\0abc", 11) +
                         packed(with_end(file("a", "x")), Packing::kZstd);
                },
                {"f a x"}),
  };
  return cases;
}

}  // namespace snug::test
