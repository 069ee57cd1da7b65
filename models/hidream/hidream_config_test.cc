// Sizes of a HiDream-I1.

#include "models/hidream/hidream_config.h"

#include <array>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

HidreamConfig Resolved(const Hidream& hidream) {
  const auto config =
      ResolveHidream(hidream, /*channels=*/16, /*resolution=*/128);
  CHECK_OK(config.status());
  return *config;
}

Hidream Preset(Hidream::Preset preset) {
  Hidream hidream;
  hidream.set_preset(preset);
  return hidream;
}

// Whoever fine-tunes the published model gets its sizes.
TEST(ResolveHidreamTest, PresetHasThePublishedSizes) {
  const HidreamConfig config = Resolved(Preset(Hidream::HIDREAM_I1));
  EXPECT_EQ(config.hidden, 2560);
  EXPECT_EQ(config.head_dim(), 128);
  EXPECT_EQ(config.layers(), 48);
  EXPECT_EQ(config.rope_axes, (std::array<int64_t, 3>{64, 32, 32}));
  EXPECT_EQ(config.tokens(), 4096);
  EXPECT_EQ(config.mlp_hidden, 6912);
  EXPECT_EQ(config.moe.experts, 4);
  EXPECT_EQ(config.moe.top_k, 2);
  EXPECT_EQ(config.moe.expert_hidden, 6912);
  EXPECT_EQ(config.moe.shared_hidden, 3584);
  EXPECT_FALSE(config.moe.normalize);
  EXPECT_DOUBLE_EQ(config.moe.balance_weight, 0.01 / 48);
  // 32 layers of Llama; the last one 17 times.
  EXPECT_EQ(config.block_text_layers[15], 15);
  EXPECT_EQ(config.block_text_layers[31], 31);
  EXPECT_EQ(config.block_text_layers[47], 31);
}

TEST(ResolveHidreamTest, CaptionsByteByByteAreTheOnlyLayer) {
  Hidream hidream = Preset(Hidream::TINY);
  hidream.mutable_text()->set_tokens(8);
  hidream.mutable_text()->mutable_bytes();
  const HidreamConfig config = Resolved(hidream);
  EXPECT_EQ(config.text_layers, 1);
  EXPECT_EQ(config.layer_tokens, 8);
  EXPECT_EQ(config.layer_width, config.text_width);
  EXPECT_EQ(config.block_text_layers, std::vector<int32_t>(4, 0));
}

// A run's job file says what was trained, also where defaults change.
TEST(ResolveHidreamTest, FilledJobResolvesToTheSame) {
  for (Hidream hidream : {Preset(Hidream::HIDREAM_I1), Preset(Hidream::TINY)}) {
    if (hidream.preset() == Hidream::TINY) {
      hidream.mutable_text()->set_tokens(8);
      hidream.mutable_text()->mutable_bytes();
      hidream.mutable_moe()->set_shared_hidden(0);
    }
    Hidream filled = hidream;
    FillHidream(Resolved(hidream), filled);
    filled.clear_preset();
    Hidream again = filled;
    FillHidream(Resolved(filled), again);
    EXPECT_EQ(again.SerializeAsString(), filled.SerializeAsString());
    EXPECT_EQ(Resolved(filled).moe, Resolved(hidream).moe);
  }
}

TEST(ResolveHidreamTest, BadSizesAreNamed) {
  const auto message = [](auto&& change) {
    Hidream hidream = Preset(Hidream::HIDREAM_I1);
    change(hidream);
    const auto config = ResolveHidream(hidream, 16, 128);
    return std::string(config.status().message());
  };
  EXPECT_EQ(message([](Hidream& h) { h.set_single_layers(0); }),
            "model.hidream.single_layers: found 0, expected 1 to 4096");
  EXPECT_EQ(message([](Hidream& h) { h.set_heads(3); }),
            "model.hidream.hidden: found 2560, expected a multiple of the 3 "
            "heads");
  EXPECT_EQ(message([](Hidream& h) {
              for (int i = 0; i < 3; ++i) h.add_rope_axes(32);
            }),
            "model.hidream.rope_axes: found 96 channels together, expected the "
            "128 of a head");
  EXPECT_EQ(message([](Hidream& h) { h.add_block_text_layers(0); }),
            "model.hidream.block_text_layers: found 1 numbers, expected 48, "
            "one a block");
  EXPECT_EQ(message([](Hidream& h) {
              for (int i = 0; i < 48; ++i) h.add_block_text_layers(32);
            }),
            "model.hidream.block_text_layers: found 32, expected 0 to 31");
  EXPECT_EQ(message([](Hidream& h) { h.mutable_moe()->set_top_k(5); }),
            "model.hidream.moe.top_k: found 5, expected 1 to 4");
  EXPECT_EQ(message([](Hidream& h) { h.mutable_moe()->set_every(2); }),
            "model.hidream.moe.every: found 2, expected 1 to 1");
  EXPECT_EQ(message([](Hidream& h) {
              h.mutable_text()->mutable_bytes();
              h.mutable_text()->set_layers(2);
            }),
            "model.hidream.text.layers: found 2, expected 0 to 0");
}

}  // namespace
}  // namespace trireme
