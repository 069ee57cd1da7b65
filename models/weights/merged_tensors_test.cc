// A merged weight is W + scale·B·A, or the rows of that scaled to their
// magnitudes, whatever part of it is read.

#include "models/weights/merged_tensors.h"

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Tensors of small whole numbers.
class Numbers final : public TensorSource {
 public:
  explicit Numbers(std::map<std::string, Shape> shapes)
      : shapes_(std::move(shapes)) {}

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    const auto found = shapes_.find(name);
    if (found != shapes_.end() && found->second == shape) {
      return absl::OkStatus();
    }
    return NotFound("numbers: found no '{}' of shape {}", name,
                    shape.ToString());
  }
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = Element(name, begin + static_cast<int64_t>(i));
    }
  }
  static double Element(const std::string& name, int64_t i) {
    return static_cast<double>(
        (i * 7 + static_cast<int64_t>(name.size())) % 11 - 5);
  }

 private:
  std::map<std::string, Shape> shapes_;
};

std::unique_ptr<TensorSource> Merged(bool decomposed = false) {
  auto base = std::make_shared<Numbers>(
      std::map<std::string, Shape>{{"qkv.weight", {3, 4, 5}},
                                   {"side.weight", {6, 2}},
                                   {"out.weight", {6, 3}},
                                   {"norm", {4}}});
  auto factors = std::make_shared<Numbers>(
      std::map<std::string, Shape>{{"qkv.lora_A", {3, 2, 5}},
                                   {"qkv.lora_B", {3, 4, 2}},
                                   {"qkv.lora_magnitude", {3, 4}},
                                   {"side.lora_A", {2, 2}},
                                   {"out.lora_A", {2, 3}},
                                   {"out.lora_B", {6, 2}},
                                   {"out.lora_magnitude", {6}}});
  return MergeAdapters(
      base, factors,
      {.adapters =
           {{.layer = "qkv", .output_layer = "qkv", .groups = 3, .in = 5},
            {.layer = "side", .output_layer = "out", .in = 2},
            {.layer = "out", .output_layer = "out", .in = 3}},
       .rank = 2,
       .scale = 0.5,
       .decomposed = decomposed});
}

std::vector<double> ReadAll(const TensorSource& source, const std::string& name,
                            int64_t begin, int64_t count) {
  std::vector<double> values(count);
  source.Read(name, begin, values);
  return values;
}

TEST(MergedTensorsTest, EachPartHasItsOwnFactors) {
  const auto merged = Merged();
  ASSERT_TRUE(merged->Check("qkv.weight", {3, 4, 5}).ok());
  std::vector<double> expected;
  for (int64_t row = 0; row < 12; ++row) {
    for (int64_t column = 0; column < 5; ++column) {
      double sum = 0;
      for (int64_t k = 0; k < 2; ++k) {
        sum += Numbers::Element("qkv.lora_B", row * 2 + k) *
               Numbers::Element("qkv.lora_A", row / 4 * 10 + k * 5 + column);
      }
      expected.push_back(Numbers::Element("qkv.weight", row * 5 + column) +
                         0.5 * sum);
    }
  }
  EXPECT_EQ(ReadAll(*merged, "qkv.weight", 0, 60), expected);
  EXPECT_EQ(ReadAll(*merged, "qkv.weight", 18, 9),
            std::vector<double>(expected.begin() + 18, expected.begin() + 27));
}

TEST(MergedTensorsTest, ASumsLayersShareTheirOutputFactor) {
  const auto merged = Merged();
  ASSERT_TRUE(merged->Check("side.weight", {6, 2}).ok());
  const double product =
      Numbers::Element("out.lora_B", 10) * Numbers::Element("side.lora_A", 1) +
      Numbers::Element("out.lora_B", 11) * Numbers::Element("side.lora_A", 3);
  EXPECT_EQ(ReadAll(*merged, "side.weight", 11, 1).front(),
            Numbers::Element("side.weight", 11) + 0.5 * product);
}

// magnitude/‖row‖ for each row of some weights side by side.
std::vector<double> Scales(
    const std::vector<std::pair<std::vector<double>, int64_t>>& sums,
    const std::string& magnitude, int64_t rows) {
  std::vector<double> scales;
  for (int64_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (const auto& [sum, columns] : sums) {
      for (int64_t i = 0; i < columns; ++i) {
        squares += sum[row * columns + i] * sum[row * columns + i];
      }
    }
    scales.push_back(Numbers::Element(magnitude, row) / std::sqrt(squares));
  }
  return scales;
}

TEST(MergedTensorsTest, DecomposedRowsHaveTheirMagnitudes) {
  const auto sums = Merged(), merged = Merged(/*decomposed=*/true);
  for (const auto* source : {sums.get(), merged.get()}) {
    ASSERT_TRUE(source->Check("qkv.weight", {3, 4, 5}).ok());
  }
  const std::vector<double> sum = ReadAll(*sums, "qkv.weight", 0, 60);
  const std::vector<double> scales =
      Scales({{sum, 5}}, "qkv.lora_magnitude", 12);
  const std::vector<double> got = ReadAll(*merged, "qkv.weight", 0, 60);
  for (int64_t i = 0; i < 60; ++i) {
    EXPECT_NEAR(got[i], sum[i] * scales[i / 5], 1e-12) << i;
  }
  EXPECT_EQ(ReadAll(*merged, "qkv.weight", 18, 9),
            std::vector<double>(got.begin() + 18, got.begin() + 27));
}

TEST(MergedTensorsTest, ASumsLayersShareTheirNorms) {
  const auto sums = Merged(), merged = Merged(/*decomposed=*/true);
  for (const auto* source : {sums.get(), merged.get()}) {
    ASSERT_TRUE(source->Check("side.weight", {6, 2}).ok());
    ASSERT_TRUE(source->Check("out.weight", {6, 3}).ok());
  }
  const std::vector<double> side = ReadAll(*sums, "side.weight", 0, 12);
  const std::vector<double> out = ReadAll(*sums, "out.weight", 0, 18);
  const std::vector<double> scales =
      Scales({{side, 2}, {out, 3}}, "out.lora_magnitude", 6);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_NEAR(ReadAll(*merged, "side.weight", i, 1).front(),
                side[i] * scales[i / 2], 1e-12);
  }
  for (int64_t i = 0; i < 18; ++i) {
    EXPECT_NEAR(ReadAll(*merged, "out.weight", i, 1).front(),
                out[i] * scales[i / 3], 1e-12);
  }
}

TEST(MergedTensorsTest, OthersAreTheBases) {
  const auto merged = Merged();
  EXPECT_TRUE(merged->Check("norm", {4}).ok());
  EXPECT_EQ(ReadAll(*merged, "norm", 1, 1).front(),
            Numbers::Element("norm", 1));
  EXPECT_FALSE(merged->Check("other", {4}).ok());
  // The factors have another rank than the weight asks for.
  EXPECT_FALSE(merged->Check("side.weight", {3, 4}).ok());
}

TEST(MergedTensorsTest, WhatTrainedLiesOverTheBase) {
  auto base = std::make_shared<Numbers>(
      std::map<std::string, Shape>{{"a", {2}}, {"b", {2}}});
  auto trained =
      std::make_shared<Numbers>(std::map<std::string, Shape>{{"b", {3}}});
  const auto both = TrainedOverBase(
      base, trained, [](const std::string& name) { return name == "b"; });
  EXPECT_TRUE(both->Check("a", {2}).ok());
  EXPECT_TRUE(both->Check("b", {3}).ok());
  EXPECT_FALSE(both->Check("b", {2}).ok());
}

}  // namespace
}  // namespace trireme
