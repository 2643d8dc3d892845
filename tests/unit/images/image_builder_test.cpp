// What the table of layers does not show: contents, holes, limits, progress, cancelling, sameness, words.
#include "vmm/images/image_builder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <clocale>
#include <functional>
#include <random>

#include "tests/unit/images/image_fixture.h"
#include "vmm/base/checked.h"
#include "vmm/base/sha256.h"

namespace snug::test {
namespace {

using images::ImageLimits;
using testing::ElementsAre;
using testing::HasSubstr;

std::string random_bytes(size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

std::string file(const std::string& name, const std::string& contents) {
  RawHeader header;
  header.name = name;
  header.contents = contents;
  return raw(header);
}

// In GNU's way 1.0.
std::string sparse_file(const std::string& name, uint64_t size,
                        const std::vector<std::pair<uint64_t, std::string>>& parts) {
  std::string map = std::to_string(parts.size()) + "\n";
  std::string data;
  for (const auto& [offset, text] : parts) {
    map += fmt::format("{}\n{}\n", offset, text.size());
    data += text;
  }
  map.resize((map.size() + 511) / 512 * 512, '\0');
  return pax({{"GNU.sparse.major", "1"},
              {"GNU.sparse.minor", "0"},
              {"GNU.sparse.name", name},
              {"GNU.sparse.realsize", std::to_string(size)}}) +
         file("sparse", map + data);
}

uint64_t bytes_on_disk(int fd) {
  struct stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

std::string contents(const Built& built, const std::string& path) {
  EXPECT_TRUE(built.result) << built.result.error().text();
  ErofsReader reader(built.image.get());
  EXPECT_THAT(reader.problems(), ElementsAre());
  const auto found = reader.files().find(path);
  if (found == reader.files().end()) return "nothing";
  return reader.read(found->second, 0, found->second.size);
}

TEST(ImageContents, AreWhatTheTarHas) {
  for (const size_t size :
       {1UL, 511UL, 512UL, 4095UL, 4096UL, 4097UL, 8192UL, 65535UL, 262144UL, 262145UL, 1000003UL}) {
    const std::string text = random_bytes(size, static_cast<unsigned>(size));
    EXPECT_EQ(contents(build({file("a", text) + file("b", "x") + tar_end()}), "a"), text) << size;
  }
}

TEST(ImageContents, LieOnPagesOfTheirOwn) {
  const Built built = build({make_layer({"f a 1", "f b 22", "d d", "f d/c " + std::string(5000, 'x')})});
  ErofsReader reader(built.image.get());
  std::vector<uint64_t> offsets;
  for (const char* path : {"a", "b", "d/c"}) {
    const ErofsFile& one = reader.files().at(path);
    EXPECT_EQ(one.layout, 0U);
    EXPECT_EQ(one.offset % 4096, 0U);
    offsets.push_back(one.offset);
  }
  EXPECT_EQ(reader.incompatible, 0U);
  EXPECT_THAT(offsets, ElementsAre(offsets[0], offsets[0] + 4096, offsets[0] + 8192));
}

TEST(ImageContents, ThatAreAlikeAreStoredOnce) {
  const std::string text = random_bytes(10'000, 1);
  std::string other = text;
  other[9'999] ^= 1;
  const Built built = build({file("a", text) + file("b", other) + tar_end(), file("c", text) + tar_end()});
  ErofsReader reader(built.image.get());
  EXPECT_EQ(reader.files().at("a").offset, reader.files().at("c").offset);
  EXPECT_NE(reader.files().at("a").offset, reader.files().at("b").offset);
  EXPECT_NE(reader.files().at("a").nid, reader.files().at("c").nid);
  EXPECT_EQ(contents(built, "b"), other);
  EXPECT_EQ(contents(built, "c"), text);
}

TEST(ImageHoles, ATerabyteCostsNothing) {
  const Built built =
      build({sparse_file("a", uint64_t{1} << 40, {{(uint64_t{1} << 40) - 4, "last"}}) +
             sparse_file("b", uint64_t{1} << 40, {}) +
             sparse_file("c", uint64_t{1} << 40, {{0, "first"}, {uint64_t{1} << 39, "middle"}}) + tar_end()});
  ASSERT_TRUE(built.result) << built.result.error().text();
  EXPECT_LT(built.result->bytes, 32 * kMiB);
  EXPECT_LT(bytes_on_disk(built.image.get()), 32 * kMiB);
  ErofsReader reader(built.image.get());
  EXPECT_THAT(reader.problems(), ElementsAre());
  const auto& files = reader.files();
  EXPECT_EQ(reader.read(files.at("a"), (uint64_t{1} << 40) - 6, 6), std::string("\0\0last", 6));
  EXPECT_EQ(reader.read(files.at("a"), 12345, 3), std::string(3, '\0'));
  EXPECT_EQ(reader.read(files.at("b"), (uint64_t{1} << 40) - 6, 6), std::string(6, '\0'));
  EXPECT_EQ(reader.allocated(files.at("b")), 0U);
  EXPECT_EQ(reader.read(files.at("c"), 0, 6), std::string("first\0", 6));
  EXPECT_EQ(reader.read(files.at("c"), uint64_t{1} << 39, 6), "middle");
  EXPECT_LT(reader.allocated(files.at("c")), 32 * kMiB);
}

TEST(ImageHoles, AreWhereTheyWere) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 10; ++round) {
    std::vector<std::pair<uint64_t, std::string>> parts;
    uint64_t at = random() % 3 == 0 ? 0 : random() % 500'000;
    const size_t count = 1 + random() % 8;
    for (size_t i = 0; i < count; ++i) {
      parts.emplace_back(at, random_bytes(1 + random() % (random() % 2 == 0 ? 100 : 300'000),
                                          static_cast<unsigned>(random())));
      at += parts.back().second.size() + random() % (random() % 2 == 0 ? 9'000 : 900'000);
    }
    std::string expected(at, '\0');
    for (const auto& [offset, text] : parts) expected.replace(offset, text.size(), text);
    const Built built = build({sparse_file("a", at, parts) + tar_end()});
    EXPECT_EQ(contents(built, "a"), expected) << "round " << round;
    // The same as a file that has its holes as zeros.
    EXPECT_EQ(built.bytes(), build({file("a", expected) + tar_end()}).bytes()) << "round " << round;
  }
}

TEST(ImageHoles, ZerosOfATarAreHoles) {
  const std::string zeros(16 * kMiB, '\0');
  const Built built = build({packed(file("a", zeros + "end") + tar_end(), Packing::kZstd)});
  ASSERT_TRUE(built.result);
  EXPECT_LT(bytes_on_disk(built.image.get()), kMiB);
  ErofsReader reader(built.image.get());
  EXPECT_EQ(reader.read(reader.files().at("a"), zeros.size() - 2, 5), std::string("\0\0end", 5));
}

TEST(ImageHoles, AFewZerosAreNone) {
  const std::string text = random_bytes(4096, 3) + std::string(40'000, '\0') + random_bytes(4096, 4);
  const Built built = build({file("a", text) + tar_end()});
  ErofsReader reader(built.image.get());
  EXPECT_EQ(reader.files().at("a").layout, 0U);
  EXPECT_EQ(contents(built, "a"), text);
}

TEST(ImageSameness, IdAndTimeComeFromWhatIsInIt) {
  const auto about = [](const Lines& lines) {
    const Built built = build({make_layer(lines)});
    ErofsReader reader(built.image.get());
    return std::pair(reader.uuid, reader.build_time);
  };
  const auto plain = about({"f a x mtime=1000", "f b y mtime=2000"});
  EXPECT_EQ(plain.second, 2000U);
  EXPECT_EQ(plain, about({"f b y mtime=2000", "f a x mtime=1000"}));
  EXPECT_NE(plain.first, about({"f a x mtime=1000", "f b z mtime=2000"}).first);
  EXPECT_NE(plain.first, about({"f a x mtime=1000", "f b y mtime=2001"}).first);
  EXPECT_NE(plain.first, about({"f a x mtime=1000", "f b y mtime=2000 mode=600"}).first);
  EXPECT_NE(plain.first, about({"f a x mtime=1000", "f c y mtime=2000"}).first);
  EXPECT_EQ(about({"f a x mtime=-5"}).second, 0U);
}

TEST(ImageSameness, WhatIsHiddenLeavesNoTrace) {
  const Built once = build({make_layer({"f a x", "d d"})});
  const Built hidden = build({make_layer({"f secret password", "f a y", "d d", "f d/z 1"}),
                              make_layer({"f .wh.secret", "f a x", "d d", "f d/.wh..wh..opq"})});
  EXPECT_EQ(once.bytes(), hidden.bytes());
}

TEST(ImageNames, AreBytesInAnyLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* locale : {"C", "C.UTF-8"}) {
    if (std::setlocale(LC_ALL, locale) == nullptr) continue;
    const Built built = build({pax({{"path", "\xc3\xbc"}}) + file("x", "1") + pax({{"path", "\xff"}}) +
                               file("x", "2") + file("\xfe", "3") + file("\xe2\x82\xac", "4") + tar_end()});
    EXPECT_THAT(lines_of(built), ElementsAre("f %c3%bc 1", "f %e2%82%ac 4", "f %fe 3", "f %ff 2")) << locale;
  }
  std::setlocale(LC_ALL, before.c_str());
}

TEST(ImageWords, NameLayerAndEntry) {
  const Built built = build({make_layer({"f a x"}), make_layer({"f b/../%1b[2Jc x"})});
  ASSERT_FALSE(built.result);
  EXPECT_EQ(built.result.error().message,
            "layer 2, \"b/../\\x1b[2Jc\": the name leads out of the image (path-escapes)");
  EXPECT_THAT(built.result.error().hint, HasSubstr("do not trust the image"));
  EXPECT_THAT(build({"BZh91AY&SY, or so"}).result.error().message,
              "layer 1: the layer is packed with bzip2 (unknown-compression)");
  EXPECT_THAT(build({make_layer({"f a x"}), packed(make_layer({"f a x"}), Packing::kGzip).substr(0, 40)})
                  .result.error()
                  .message,
              "layer 2: the layer's compressed data ends too early (broken-compression)");
}

TEST(ImageWords, OfALongNameAreFew) {
  EXPECT_EQ(images::shown_name(std::string(4000, 'x')).size(), 203U);
  EXPECT_EQ(images::shown_name("a\"b\\c\n\x7f"), "a\\x22b\\x5cc\\x0a\\x7f");
  EXPECT_EQ(images::shown_name("\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(images::shown_name("\x9b\xc2\x9b\xc3"), "\\x9b\\xc2\\x9b\\xc3");
}

struct LimitCase {
  std::string name;
  std::function<void(ImageLimits&)> set;
  std::string fault;
};
void PrintTo(const LimitCase& row, std::ostream* out) { *out << row.name; }

class ImageLimitCases : public testing::TestWithParam<LimitCase> {};
INSTANTIATE_TEST_SUITE_P(
    All, ImageLimitCases,
    testing::Values(LimitCase{"Layers", [](ImageLimits& l) { l.layers = 1; }, "too-many-layers"},
                    LimitCase{"Entries", [](ImageLimits& l) { l.entries = 5; }, "too-many-entries"},
                    LimitCase{"Depth", [](ImageLimits& l) { l.depth = 2; }, "too-deep"},
                    LimitCase{"Links", [](ImageLimits& l) { l.links_in_path = 0; }, "too-many-links"},
                    LimitCase{"Parts", [](ImageLimits& l) { l.parts_of_path = 2; }, "too-deep"},
                    LimitCase{"Xattrs", [](ImageLimits& l) { l.xattr_bytes = 10; }, "xattr-too-large"},
                    LimitCase{"Metadata", [](ImageLimits& l) { l.metadata_bytes = 1000; },
                              "too-much-metadata"},
                    LimitCase{"File", [](ImageLimits& l) { l.file_bytes = 9'999; }, "too-many-bytes"},
                    LimitCase{"Contents", [](ImageLimits& l) { l.content_bytes = 9'999; }, "too-many-bytes"},
                    LimitCase{"Unpacked", [](ImageLimits& l) { l.unpacked_bytes = 9'999; }, "too-many-bytes"},
                    LimitCase{"Image", [](ImageLimits& l) { l.image_bytes = 9'999; }, "too-many-bytes"},
                    LimitCase{"ImageMetadata", [](ImageLimits& l) { l.image_metadata_bytes = 4200; },
                              "too-much-metadata"}),
    [](const auto& row) { return row.param.name; });

TEST_P(ImageLimitCases, AreKept) {
  const std::vector<std::string> layers{
      make_layer({"d a", "d a/b", "d a/b/c",
                  "f a/b/c/d " + std::string(10'000, 'x') + " x:user.long=name-and-value", "l l a"}),
      make_layer({"f l/b/c/e y", "f f z"})};
  ASSERT_TRUE(build(layers).result) << build(layers).result.error().text();
  ImageLimits limits;
  GetParam().set(limits);
  EXPECT_EQ(fault_of(build(layers, limits)), GetParam().fault);
}

// Folders that paths alone ask for are entries as well.
TEST(ImageLimitsOf, FoldersThatNobodyNames) {
  ImageLimits limits;
  limits.entries = 1000;
  Lines lines;
  for (int i = 0; i < 100; ++i) {
    std::string path = fmt::format("{}/", i);
    for (int depth = 0; depth < 100; ++depth) path += "d/";
    lines.push_back("d " + path);
  }
  EXPECT_EQ(fault_of(build({make_layer(lines)}, limits)), "too-many-entries");
}

// Links that lead ever deeper do not get around the limit of depth.
TEST(ImageLimitsOf, DepthThroughLinks) {
  Lines lines;
  for (int i = 0; i < 100; ++i) {
    lines.push_back(fmt::format("l l{} {}a/a/a/a/a/a/a/a", i, i == 0 ? "" : fmt::format("l{}/", i - 1)));
    lines.push_back(fmt::format("d l{}/a", i));
  }
  EXPECT_EQ(fault_of(build({make_layer(lines)})), "too-many-links");
  ImageLimits limits;
  limits.links_in_path = 1000;
  EXPECT_EQ(fault_of(build({make_layer(lines)}, limits)), "too-deep");
}

TEST(ImageLimitsOf, BombsInZstd) {
  ImageLimits limits;
  limits.unpacked_bytes = 64 * kMiB;
  std::string bomb;
  const std::string zeros = packed(std::string(16 * kMiB, '\0'), Packing::kZstd);
  RawHeader header;
  header.name = "a";
  header.size_field = fmt::format("{:011o}", uint64_t{4} << 30);
  bomb = packed(raw(header), Packing::kZstd);
  for (int i = 0; i < 64; ++i) bomb += zeros;
  EXPECT_EQ(fault_of(build({bomb}, limits)), "too-many-bytes");
  // Behind the end of the tar, too.
  bomb = packed(tar_end(), Packing::kZstd);
  for (int i = 0; i < 64; ++i) bomb += zeros;
  EXPECT_EQ(fault_of(build({bomb}, limits)), "too-many-bytes");
}

// A file of many parts is refused while it is read.
TEST(ImageLimitsOf, PartsOfOneFile) {
  std::string contents;
  for (int i = 0; i < 200; ++i) contents += "x" + std::string(70'000, '\0');
  ImageLimits limits;
  limits.metadata_bytes = 8'000;
  EXPECT_EQ(fault_of(build({file("a", contents) + tar_end()}, limits)), "");
  limits.metadata_bytes = 4'000;
  EXPECT_EQ(fault_of(build({file("a", contents) + tar_end()}, limits)), "too-much-metadata");
}

// What would take hours if every whiteout looked at every file of its folder.
TEST(ImageLimitsOf, ManyWhiteouts) {
  constexpr int kCount = 20'000;
  std::string lower;
  std::string upper;
  for (int i = 0; i < kCount; ++i) lower += file(fmt::format("d/{}", i), "");
  for (int i = 0; i < kCount; ++i) upper += file(fmt::format("d/new{}", i), "");
  for (int i = 0; i < kCount; ++i)
    upper += file(i % 3 == 0 ? "d/.wh..wh..opq" : i % 3 == 1 ? ".wh.d" : fmt::format("d/.wh.{}", i), "");
  const Built built = build({lower + tar_end(), upper + tar_end()});
  ASSERT_TRUE(built.result) << built.result.error().text();
  ErofsReader reader(built.image.get());
  EXPECT_THAT(reader.problems(), ElementsAre());
  EXPECT_EQ(reader.files().size(), kCount + 2U);
}

TEST(ImageLayers, AThousand) {
  const std::vector<std::string> layers(1000, make_layer({"f a x", "f .wh.b"}));
  EXPECT_THAT(lines_of(build(layers)), ElementsAre("f a x"));
  EXPECT_EQ(fault_of(build(std::vector<std::string>(1001, layers[0]))), "too-many-layers");
}

TEST(ImageProgress, GoesForwardToTheEnd) {
  const std::string layer = packed(file("a", random_bytes(9 * kMiB, 1)) + tar_end(), Packing::kGzip);
  std::vector<images::Progress> seen;
  const Built built = build({layer, layer}, {}, [&](const images::Progress& progress) {
    seen.push_back(progress);
    return true;
  });
  ASSERT_TRUE(built.result);
  ASSERT_GE(seen.size(), 7U);
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_LE(seen[i].done, seen[i].total);
    if (i == 0 || seen[i].stage != seen[i - 1].stage) continue;
    EXPECT_GE(seen[i].done, seen[i - 1].done);
    EXPECT_GE(seen[i].layer, seen[i - 1].layer);
  }
  EXPECT_EQ(seen[0].layers, 2U);
  EXPECT_EQ(seen.back().stage, images::Stage::kWritingImage);
}

TEST(ImageProgress, CanEndItAtAnyPoint) {
  const std::vector<std::string> layers{file("a", random_bytes(10 * kMiB, 1)) + tar_end(),
                                        make_layer({"f b x"})};
  int calls = 0;
  ASSERT_TRUE(build(layers, {}, [&](const images::Progress&) { return ++calls > 0; }).result);
  ASSERT_GE(calls, 5);
  for (int last = 1; last <= calls; ++last) {
    int call = 0;
    const Built built = build(layers, {}, [&](const images::Progress&) { return ++call < last; });
    EXPECT_EQ(fault_of(built), "cancelled") << last;
    EXPECT_EQ(call, last);
    // Nobody takes what there is for an image.
    ErofsReader reader(built.image.get());
    EXPECT_FALSE(reader.problems().empty());
  }
}

TEST(ImageFiles, ThatCannotBeWrittenAreSaid) {
  const UniqueFd layer = memory_file(make_layer({"f a x"}));
  const images::Layer source{layer.get(), 0};
  images::ImageJob job;
  job.layers = {&source, 1};
  job.spool = memory_file();
  const UniqueFd readable(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  job.image = readable.get();
  const auto result = images::build_image(std::move(job));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("writing the image: "));
}

TEST(ImageFiles, ALayerMayComeThroughAPipe) {
  const std::string layer = packed(make_layer({"d d", "f d/a " + std::string(100, 'x')}), Packing::kZstd);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  ASSERT_EQ(::write(to.get(), layer.data(), layer.size()), static_cast<ssize_t>(layer.size()));
  to.reset();
  const images::Layer source{from.get(), 0};
  Built built;
  built.image = memory_file("what was there before, and longer than a block" + std::string(100'000, 'x'));
  images::ImageJob job;
  job.layers = {&source, 1};
  job.spool = memory_file();
  job.image = built.image.get();
  built.result = images::build_image(std::move(job));
  EXPECT_THAT(lines_of(built), ElementsAre("d d", "f d/a " + std::string(100, 'x')));
  EXPECT_EQ(built.bytes(), build({layer}).bytes());
}

// Of one layer that is stored as `stored` and named by `digest`.
Result<images::ErofsSummary> built_of(const std::string& stored, const std::string& digest) {
  const UniqueFd layer = memory_file(stored);
  const UniqueFd image = memory_file();
  const images::Layer layers[] = {{layer.get(), stored.size(), digest}};
  images::ImageJob job;
  job.layers = layers;
  job.spool = memory_file();
  job.image = image.get();
  return images::build_image(std::move(job));
}

TEST(ImageBuilder, ALayerIsWhatItsDigestNames) {
  const auto digest = [](const std::string& bytes) { return sha256_digest(std::as_bytes(std::span(bytes))); };
  // Bytes behind the archive's end count too.
  const std::string plain = file("a", std::string(300'000, 'x')) + std::string(20'000, '\0');
  const std::string bzip2 = "BZh" + plain;
  EXPECT_TRUE(built_of(plain, digest(plain)));
  EXPECT_THAT(built_of(bzip2, digest(bzip2)).error().text(), HasSubstr("unknown-compression"));
  for (const size_t at : {size_t{3}, size_t{600}, plain.size() - 1}) {
    for (std::string other : {plain, bzip2}) {
      const std::string right = digest(other);
      other[at] ^= 1;
      EXPECT_THAT(built_of(other, right).error().text(),
                  testing::AllOf(HasSubstr("layer 1: "), HasSubstr(right), HasSubstr("(wrong-digest)")))
          << at;
    }
  }
}

}  // namespace
}  // namespace snug::test
