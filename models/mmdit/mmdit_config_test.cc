// Sizes of an MMDiT.

#include "models/mmdit/mmdit_config.h"

#include <array>
#include <string>
#include <tuple>

#include "gtest/gtest.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

MmditConfig Resolved(const Mmdit& mmdit) {
  const auto config = ResolveMmdit(mmdit, /*channels=*/16, /*resolution=*/128);
  CHECK_OK(config.status());
  return *config;
}

// Whoever fine-tunes a published model gets that model's sizes.
TEST(ResolveMmditTest, PresetsHaveThePublishedSizes) {
  Mmdit mmdit;
  mmdit.set_preset(Mmdit::FLUX1_DEV);
  const MmditConfig flux = Resolved(mmdit);
  EXPECT_EQ(flux.hidden, 3072);
  EXPECT_EQ(flux.dual_layers, 19);
  EXPECT_EQ(flux.single_layers, 38);
  EXPECT_EQ(flux.rope_axes, (std::array<int64_t, 3>{16, 56, 56}));
  EXPECT_EQ(flux.patch_channels(), 64);
  EXPECT_TRUE(flux.guidance.has_value());
  mmdit.set_preset(Mmdit::FLUX1_SCHNELL);
  EXPECT_FALSE(Resolved(mmdit).guidance.has_value());
  mmdit.set_preset(Mmdit::SD3_MEDIUM);
  const MmditConfig sd3 = Resolved(mmdit);
  EXPECT_EQ(sd3.head_dim(), 64);
  EXPECT_EQ(sd3.single_layers, 0);
  EXPECT_FALSE(sd3.qk_norm);
  EXPECT_EQ(sd3.positions, Mmdit::SINCOS);
  mmdit.set_preset(Mmdit::SD35_MEDIUM);
  EXPECT_EQ(Resolved(mmdit).image_attention_layers, 13);
  EXPECT_TRUE(Resolved(mmdit).qk_norm);
  mmdit.set_preset(Mmdit::SD35_LARGE);
  EXPECT_EQ(Resolved(mmdit).hidden, 2432);
}

// A resumed run reads back what was written.
TEST(ResolveMmditTest, WhatIsFilledInResolvesToTheSame) {
  for (const Mmdit::Preset preset :
       {Mmdit::SD3_MEDIUM, Mmdit::SD35_MEDIUM, Mmdit::FLUX1_DEV}) {
    Mmdit mmdit;
    mmdit.set_preset(preset);
    const MmditConfig config = Resolved(mmdit);
    Mmdit filled;
    FillMmdit(config, filled);
    const MmditConfig again = Resolved(filled);
    EXPECT_EQ(again.hidden, config.hidden);
    EXPECT_EQ(again.layers(), config.layers());
    EXPECT_EQ(again.qk_norm, config.qk_norm);
    EXPECT_EQ(again.positions, config.positions);
    EXPECT_EQ(again.rope_axes, config.rope_axes);
    EXPECT_EQ(again.position_table, config.position_table);
    EXPECT_EQ(again.text_width, config.text_width);
    EXPECT_EQ(again.pooled_width, config.pooled_width);
    EXPECT_EQ(again.guidance, config.guidance);
    EXPECT_EQ(again.image_attention_layers, config.image_attention_layers);
  }
}

// Pictures of each size see the middle of one table, which must reach as far.
TEST(ResolveMmditTest, SizesAreCutOutOfTheMiddleOfTheTable) {
  Mmdit mmdit;
  mmdit.set_preset(Mmdit::SD3_MEDIUM);
  MmditConfig config = Resolved(mmdit);
  EXPECT_EQ(config.position_table, 192);
  // Coordinates run from 0 to 64.
  EXPECT_EQ(config.position_coordinate(96), 32);
  for (const auto& [height, width, fits] : {std::tuple(384, 384, true),
                                            {384, 2, true},
                                            {2, 384, true},
                                            {386, 2, false},
                                            {2, 386, false}}) {
    config.height = height;
    config.width = width;
    EXPECT_EQ(CheckMmditSizes(config).ok(), fits) << height << "x" << width;
  }
  EXPECT_NE(CheckMmditSizes(config).message().find(
                "found 193 patches along a side, expected at most the 192"),
            std::string::npos);
}

TEST(ResolveMmditTest, ErrorsNameTheField) {
  const auto message = [](const Mmdit& mmdit) {
    return std::string(ResolveMmdit(mmdit, 3, 32).status().message());
  };
  Mmdit mmdit;
  mmdit.set_preset(Mmdit::TINY);
  EXPECT_NE(message(mmdit).find("model.mmdit.text.tokens"), std::string::npos);
  mmdit.mutable_text()->set_tokens(8);
  mmdit.mutable_text()->set_width(8);
  EXPECT_NE(message(mmdit).find("model.mmdit.text.pooled_width"),
            std::string::npos);
  mmdit.mutable_text()->set_pooled_width(8);
  EXPECT_TRUE(ResolveMmdit(mmdit, 3, 32).ok()) << message(mmdit);
  Mmdit wrong = mmdit;
  wrong.add_rope_axes(32);
  EXPECT_NE(message(wrong).find("model.mmdit.rope_axes"), std::string::npos);
  wrong.add_rope_axes(1);
  wrong.add_rope_axes(0xffffffffU);
  EXPECT_NE(message(wrong).find("model.mmdit.rope_axes"), std::string::npos);
  wrong = mmdit;
  wrong.set_positions(Mmdit::SINCOS);
  wrong.set_position_table(4);
  EXPECT_NE(message(wrong).find("model.mmdit.position_table"),
            std::string::npos);
  wrong = mmdit;
  wrong.set_image_attention_layers(3);
  EXPECT_NE(message(wrong).find("model.mmdit.image_attention_layers"),
            std::string::npos);
  const auto of_views = [](const Mmdit& mmdit) {
    return std::string(ResolveMmdit(mmdit, 3, 32, /*set_tokens=*/0, /*views=*/3)
                           .status()
                           .message());
  };
  wrong = mmdit;
  wrong.set_view_streams(true);
  EXPECT_NE(message(wrong).find("model.mmdit.view_streams: found with one "),
            std::string::npos);
  EXPECT_EQ(of_views(wrong), "");
  wrong.set_image_attention_layers(1);
  EXPECT_NE(of_views(wrong).find("view_streams: found with image_attention"),
            std::string::npos);
  wrong = mmdit;
  for (const int channels : {0, 16, 16}) wrong.add_rope_axes(channels);
  EXPECT_EQ(message(wrong), "");
  EXPECT_NE(of_views(wrong).find("expected some, which tell 3 views apart"),
            std::string::npos);
  wrong = mmdit;
  wrong.set_heads(0);
  EXPECT_NE(message(wrong).find("model.mmdit.heads"), std::string::npos);
}

}  // namespace
}  // namespace trireme
