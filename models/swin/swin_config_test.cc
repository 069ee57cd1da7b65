// Sizes of a Swin Transformer V2.

#include "models/swin/swin_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

Swin Preset(Swin::Preset preset) {
  Swin swin;
  swin.set_preset(preset);
  return swin;
}

absl::StatusOr<SwinConfig> Resolve(const Swin& swin, int64_t side = 192) {
  return ResolveSwin(swin, /*channels=*/3, side, /*classes=*/10);
}

std::string ErrorOf(const Swin& swin, int64_t side = 192) {
  return MessageOf(Resolve(swin, side).status());
}

TEST(ResolveSwinTest, PresetHasThePublishedSizes) {
  const auto config = Resolve(Preset(Swin::MOE_B));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers(), 24);
  EXPECT_EQ(config->HiddenOf(0), 128);
  EXPECT_EQ(config->HiddenOf(3), 1024);
  EXPECT_EQ(config->TokensAlong(0), 48);
  ASSERT_TRUE(config->moe.has_value());
  EXPECT_EQ(config->moe->experts, 32);
  EXPECT_EQ(config->moe->top_k, 1);
  EXPECT_EQ(config->moe->capacity_factor, 1.25);
  EXPECT_EQ(config->moe->balance_weight, 0.01);
  EXPECT_EQ(config->moe->router, MoeConfig::RouterKind::kCosine);
  EXPECT_EQ(config->moe->kind, MoeConfig::ExpertKind::kGelu);
  EXPECT_TRUE(config->moe->bias);
  // Every second block of the third stage, and the last of the fourth.
  std::vector<int64_t> with_experts;
  for (int64_t i = 0; i < config->layers(); ++i) {
    if (SizesOfBlock(*config, i).moe.has_value()) with_experts.push_back(i);
  }
  EXPECT_EQ(with_experts,
            (std::vector<int64_t>{5, 7, 9, 11, 13, 15, 17, 19, 21, 23}));
  EXPECT_EQ(SizesOfBlock(*config, 5).moe->expert_hidden, 4 * 512);
  EXPECT_EQ(SizesOfBlock(*config, 23).moe->expert_hidden, 4 * 1024);
  EXPECT_FALSE(Resolve(Preset(Swin::B))->moe.has_value());
}

TEST(ResolveSwinTest, EverySecondBlockShiftsItsWindowsWhereThereAreSeveral) {
  const auto config = Resolve(Preset(Swin::B));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(SizesOfBlock(*config, 0).windows.shift, 0);
  EXPECT_EQ(SizesOfBlock(*config, 1).windows.shift, 6);
  EXPECT_FALSE(SizesOfBlock(*config, 1).merges);
  EXPECT_TRUE(SizesOfBlock(*config, 2).merges);
  EXPECT_FALSE(SizesOfBlock(*config, 0).merges);
  // Of the last stage's 6 x 6 tokens one window has all.
  const SwinBlockSizes last = SizesOfBlock(*config, 23);
  EXPECT_EQ(last.windows.window, 6);
  EXPECT_EQ(last.windows.shift, 0);
  EXPECT_EQ(last.tokens(), 36);
  EXPECT_EQ(last.heads, 32);
}

TEST(ResolveSwinTest, TinyFitsFashionMnist) {
  const auto config = Resolve(Preset(Swin::TINY), 28);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->TokensAlong(0), 14);
  EXPECT_EQ(SizesOfBlock(*config, 1).windows.shift, 3);
  EXPECT_EQ(SizesOfBlock(*config, 7).windows.window, 7);
}

// A run's job file shows what was resolved, and may be run again.
TEST(ResolveSwinTest, FilledInItIsTheSame) {
  Swin swin = Preset(Swin::MOE_B);
  const auto config = Resolve(swin);
  ASSERT_TRUE(config.ok());
  FillSwin(*config, swin);
  EXPECT_EQ(swin.stages_size(), 4);
  Swin again = swin;
  again.clear_preset();
  for (const Swin& filled : {swin, again}) {
    const auto other = Resolve(filled);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(other->moe, config->moe);
    EXPECT_EQ(other->expert_every, config->expert_every);
    EXPECT_EQ(other->mlp_hidden, config->mlp_hidden);
    EXPECT_EQ(other->layers(), config->layers());
  }
}

// As much as is asked of the last, none of the first.
TEST(ResolveSwinTest, LaterBlocksAreLeftOutMoreOften) {
  Swin swin = Preset(Swin::TINY);
  swin.set_drop_path(0.35);
  const auto config = Resolve(swin, 28);
  ASSERT_TRUE(config.ok()) << config.status();
  for (int64_t block = 0; block < 8; ++block) {
    EXPECT_NEAR(SizesOfBlock(*config, block).drop_path,
                0.05 * static_cast<double>(block), 1e-12);
  }
}

TEST(ResolveSwinTest, MistakesNameTheField) {
  Swin swin = Preset(Swin::TINY);
  swin.set_drop_path(1);
  EXPECT_EQ(ErrorOf(swin, 28),
            "model.swin.drop_path: found 1, expected 0 to less than 1");
  swin.clear_drop_path();
  EXPECT_EQ(MessageOf(ResolveSwin(swin, 1, 28, /*classes=*/0).status()),
            "model.swin: found data whose samples have no classes, expected "
            "some to learn");
  EXPECT_EQ(ErrorOf(swin, 29),
            "model.swin.patch: found 2, expected a divisor of the pictures' 29 "
            "pixels a side");
  EXPECT_EQ(ErrorOf(swin, 32),
            "model.swin.window: found 7, expected a divisor of 16, the rows "
            "and columns of tokens of stages[0]");
  EXPECT_EQ(ErrorOf(swin, 14),
            "model.swin.stages: found 2, expected fewer, or pictures whose 7 x "
            "7 patches of 2 pixels can be halved 1 times");
  swin.set_expert_stages(1);
  EXPECT_EQ(ErrorOf(swin, 28),
            "model.swin.expert_stages: found 1, expected it with moe");
  swin.mutable_moe()->set_experts(4);
  EXPECT_EQ(ErrorOf(swin, 28), "");
  swin.mutable_moe()->set_every(7);
  EXPECT_EQ(ErrorOf(swin, 28),
            "model.swin.moe.every: found 7, expected 1 to 6");
  swin = Preset(Swin::TINY);
  swin.add_stages()->set_blocks(1);
  swin.mutable_stages(0)->set_heads(5);
  EXPECT_EQ(ErrorOf(swin, 28),
            "model.swin.stages[0].heads: found 5, expected a divisor of the "
            "stage's 48 channels");
}

}  // namespace
}  // namespace trireme
