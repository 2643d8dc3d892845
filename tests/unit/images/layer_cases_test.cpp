// Each row of the table, in every way a layer is packed; fsck.erofs has a look at each image where it is
// installed.
#include "tests/unit/images/layer_cases.h"

#include "tests/unit/images/image_fixture.h"
#include "tests/unit/images/outside_tools.h"

namespace snug::test {
namespace {

std::vector<LayerCase> all_cases() {
  std::vector<LayerCase> all;
  for (const auto& [prefix, cases] : {std::pair{"Tar", tar_cases()},
                                      {"RawTar", raw_tar_cases()},
                                      {"Whiteout", whiteout_cases()},
                                      {"Merge", merge_cases()},
                                      {"Link", link_cases()},
                                      {"Hostile", hostile_cases()}})
    for (LayerCase row : cases) {
      row.name = prefix + row.name;
      all.push_back(std::move(row));
    }
  return all;
}

std::vector<std::string> layers_of(const LayerCase& row) {
  if (row.raw) return row.raw();
  std::vector<std::string> layers;
  for (const Lines& lines : row.layers) layers.push_back(make_layer(lines));
  return layers;
}

class LayerCases : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(All, LayerCases, testing::ValuesIn(all_cases()),
                         [](const auto& row) { return row.param.name; });

TEST_P(LayerCases, MakeTheImage) {
  const std::vector<std::string> layers = layers_of(GetParam());
  const Built built = build(layers);
  if (!GetParam().fault.empty()) {
    EXPECT_EQ(fault_of(built), GetParam().fault) << testing::PrintToString(lines_of(built));
    return;
  }
  EXPECT_THAT(lines_of(built), testing::ElementsAreArray(GetParam().expected));
  ASSERT_TRUE(built.result);
  const std::string problem = fsck(built.image.get());
  EXPECT_EQ(problem, "");
  if (built.result->bytes > 64 * kMiB) return;
  // How a layer is packed is no part of what it says.
  const std::string bytes = built.bytes();
  EXPECT_EQ(build(layers).bytes(), bytes) << "a second time";
  for (const Packing packing : {Packing::kGzip, Packing::kZstd}) {
    std::vector<std::string> again;
    for (const std::string& layer : layers) again.push_back(packed(layer, packing));
    if (!layers.empty() && (layers[0].starts_with("\x1f\x8b") || layers[0].starts_with("\x28\xb5") ||
                            layers[0].starts_with("\x50\x2a")))
      break;
    EXPECT_EQ(build(again).bytes(), bytes) << (packing == Packing::kGzip ? "in gzip" : "in zstd");
  }
}

// Where a row has nothing that an older format cannot say, it says the same.
TEST_P(LayerCases, InOtherFormats) {
  const LayerCase& row = GetParam();
  if (row.raw || !row.fault.empty()) return;
  for (const Lines& lines : row.layers)
    for (const std::string& line : lines)
      if (line.size() > 90 || line.find(" x:") != std::string::npos ||
          line.find("mtime=") != std::string::npos || line.find("uid=") != std::string::npos ||
          line.starts_with("c ") || line.starts_with("b "))
        return;
  for (const TarFormat format : {TarFormat::kGnu, TarFormat::kUstar}) {
    std::vector<std::string> layers;
    for (const Lines& lines : row.layers) layers.push_back(make_layer(lines, format));
    EXPECT_THAT(lines_of(build(layers)), testing::ElementsAreArray(row.expected));
  }
}

TEST(LayerCaseTable, HasEnoughRows) { EXPECT_GE(all_cases().size(), 150U); }

}  // namespace
}  // namespace snug::test
