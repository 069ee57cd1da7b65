// One of a text's encoders is left out of as many samples as it should be, by
// itself, and nothing else is.

#include "models/data/encoder_drops.h"

#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

constexpr int64_t kTokens = 4;
constexpr int64_t kWidth = 6;
constexpr int64_t kPooled = 5;

const std::vector<FieldSpec> kFields = {
    {.name = kTextField, .shape = {kTokens, kWidth}},
    {.name = kPooledTextField, .shape = {kPooled}},
    {.name = kTextCountField, .dtype = DType::kInt32}};

// As of Stable Diffusion 3: two encoders share tokens and the vector, the third
// has tokens of its own.
const std::vector<DroppedEncoder> kDrops = {
    {"clip_l",
     0.3,
     {{.field = kTextField, .tokens = 2, .channels = 2},
      {.field = kPooledTextField, .channels = 2}}},
    {"clip_g",
     0.5,
     {{.field = kTextField, .tokens = 2, .first_channel = 2},
      {.field = kPooledTextField, .first_channel = 2}}},
    {"t5", 0.1, {{.field = kTextField, .first_token = 2}}}};

struct Element {
  std::vector<FieldValues> values;

  float text(int64_t token, int64_t channel) const {
    return std::get<std::vector<float>>(
        values[0])[(kTokens + token) * kWidth + channel];
  }
  float pooled(int64_t channel) const {
    return std::get<std::vector<float>>(values[1])[kPooled + channel];
  }
};

// The second of three elements, after the drops of a position.
Element Dropped(uint64_t seed, uint64_t position) {
  Element element;
  element.values = {std::vector<float>(3 * kTokens * kWidth, 1.0F),
                    std::vector<float>(3 * kPooled, 1.0F),
                    std::vector<int32_t>(3, 3)};
  DropEncoders(kDrops, seed, position, kFields, 1, element.values);
  return element;
}

TEST(EncoderDropsTest, WhatAnEncoderMadeGoesTogetherAndNothingElse) {
  std::vector<int> dropped(3);
  int first_two = 0;
  constexpr int kPositions = 4000;
  for (uint64_t position = 0; position < kPositions; ++position) {
    const Element element = Dropped(5, position);
    const bool clip_l = element.pooled(0) == 0;
    const bool clip_g = element.pooled(2) == 0;
    const bool t5 = element.text(2, 0) == 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t c = 0; c < kWidth; ++c) {
        const bool lost = t >= 2 ? t5 : c < 2 ? clip_l : clip_g;
        ASSERT_EQ(element.text(t, c), lost ? 0.0F : 1.0F);
      }
    }
    for (int64_t c = 0; c < kPooled; ++c) {
      ASSERT_EQ(element.pooled(c), (c < 2 ? clip_l : clip_g) ? 0.0F : 1.0F);
    }
    // Others of the batch keep theirs, and so do counts.
    ASSERT_EQ(std::get<std::vector<float>>(element.values[0])[0], 1.0F);
    ASSERT_EQ(std::get<std::vector<float>>(element.values[0]).back(), 1.0F);
    ASSERT_EQ(std::get<std::vector<int32_t>>(element.values[2])[1], 3);
    dropped[0] += clip_l;
    dropped[1] += clip_g;
    dropped[2] += t5;
    first_two += clip_l && clip_g;
  }
  EXPECT_NEAR(dropped[0], 0.3 * kPositions, 0.03 * kPositions);
  EXPECT_NEAR(dropped[1], 0.5 * kPositions, 0.03 * kPositions);
  EXPECT_NEAR(dropped[2], 0.1 * kPositions, 0.03 * kPositions);
  // Draws of one do not depend on those of another.
  EXPECT_NEAR(first_two, 0.15 * kPositions, 0.03 * kPositions);
}

TEST(EncoderDropsTest, DrawsAreOfTheSampleAlone) {
  int other_seed = 0;
  for (uint64_t position = 0; position < 200; ++position) {
    EXPECT_EQ(Dropped(5, position).values, Dropped(5, position).values);
    other_seed += Dropped(5, position).values != Dropped(6, position).values;
  }
  EXPECT_GT(other_seed, 50);
}

TEST(EncoderDropsTest, AllOfALanguageModelsLayersAreOneEncoder) {
  const std::vector<FieldSpec> fields = {
      {.name = TextLayerField(0), .shape = {2, 2}, .layer = 0, .num_layers = 2},
      {.name = TextLayerField(1), .shape = {2, 2}, .layer = 1, .num_layers = 2},
      {.name = kTextField, .shape = {1, 1}}};
  std::vector<FieldValues> values = {std::vector<float>(4, 1.0F),
                                     std::vector<float>(4, 1.0F),
                                     std::vector<float>(1, 1.0F)};
  const std::vector<DroppedEncoder> drops = {
      {"llama", 1.0, {{.field = kTextLayersName}}}};
  DropEncoders(drops, 1, 0, fields, 0, values);
  EXPECT_EQ(std::get<std::vector<float>>(values[0]),
            std::vector<float>(4, 0.0F));
  EXPECT_EQ(std::get<std::vector<float>>(values[1]),
            std::vector<float>(4, 0.0F));
  EXPECT_EQ(std::get<std::vector<float>>(values[2]),
            std::vector<float>(1, 1.0F));
}

}  // namespace
}  // namespace trireme
