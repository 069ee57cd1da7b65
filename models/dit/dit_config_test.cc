// Sizes of a DiT and its FLOPs.

#include "models/dit/dit_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

// Latents of 256 x 256 pictures.
DitConfig Resolved(Dit::Preset preset) {
  Dit dit;
  dit.set_preset(preset);
  const auto config =
      ResolveDit(dit, {.channels = 4, .height = 32, .width = 32}, 1000);
  CHECK_OK(config.status());
  return *config;
}

TEST(ResolveDitTest, FillsPresetsAndDefaultsAndWritesThemBack) {
  const DitConfig xl = Resolved(Dit::XL);
  EXPECT_EQ(xl.hidden, 1152);
  EXPECT_EQ(xl.layers, 28);
  EXPECT_EQ(xl.heads, 16);
  EXPECT_EQ(xl.mlp_hidden, 4 * 1152);
  EXPECT_EQ(xl.tokens(), 256);
  EXPECT_EQ(xl.classes, 1000);
  EXPECT_TRUE(xl.qk_norm);
  EXPECT_EQ(xl.positions, Dit::ROPE);

  Dit dit;
  dit.set_preset(Dit::S);
  dit.set_layers(3);
  dit.set_qk_norm(false);
  dit.set_positions(Dit::SINCOS);
  dit.set_class_conditional(false);
  const ImageSpec image = {.channels = 1, .height = 28, .width = 28};
  const auto resolved = ResolveDit(dit, image, 10);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->hidden, 384);
  EXPECT_EQ(resolved->layers, 3);
  EXPECT_EQ(resolved->classes, 0);
  Dit filled;
  FillDit(*resolved, filled);
  const auto again = ResolveDit(filled, image, 10);
  CHECK_OK(again.status());
  EXPECT_EQ(again->layers, 3);
  EXPECT_EQ(again->classes, 0);
  EXPECT_FALSE(again->qk_norm);
  EXPECT_EQ(again->positions, Dit::SINCOS);
}

TEST(ResolveDitTest, ThePublishedModelIsAPreset) {
  const DitConfig config = Resolved(Dit::XL_2);
  EXPECT_EQ(config.layers, 28);
  EXPECT_TRUE(config.conditions_per_block);
  EXPECT_TRUE(config.learned_variance);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_EQ(config.positions, Dit::SINCOS);
  EXPECT_EQ(config.predicted_channels(), 2 * 2 * 8);
  Dit filled;
  filled.set_preset(Dit::XL_2);
  filled.set_learned_variance(false);
  const ImageSpec image = {.channels = 4, .height = 32, .width = 32};
  FillDit(*ResolveDit(filled, image, 1000), filled);
  filled.clear_preset();
  const auto again = ResolveDit(filled, image, 1000);
  CHECK_OK(again.status());
  EXPECT_TRUE(again->conditions_per_block);
  EXPECT_FALSE(again->learned_variance);
}

// Weights of a thousand classes go on with the ten that a data set has.
TEST(ResolveDitTest, ATableMayHaveMoreClassesThanTheData) {
  const ImageSpec image = {.channels = 4, .height = 32, .width = 32};
  Dit dit;
  dit.set_preset(Dit::S);
  dit.set_classes(1000);
  EXPECT_EQ(ResolveDit(dit, image, 10)->classes, 1000);
  EXPECT_EQ(ResolveDit(dit, image, 0)->classes, 1000);
  EXPECT_EQ(ResolveDit(dit, image, 1001).status().message(),
            "model.dit.classes: found 1000, expected 1001 to 16777216");
  dit.set_class_conditional(false);
  EXPECT_EQ(ResolveDit(dit, image, 10).status().message(),
            "model.dit.classes: found 1000 with class_conditional: false, "
            "expected none");
}

TEST(ResolveDitTest, SetsOfTokensHaveNeitherPatchesNorPositions) {
  Dit dit;
  dit.set_preset(Dit::TINY);
  const TokenSetSpec set = {.tokens = 50, .channels = 129};
  const auto resolved = ResolveDit(dit, {}, 3, set);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->tokens(), 50);
  EXPECT_EQ(resolved->token_channels(), 129);
  EXPECT_EQ(resolved->positions, Dit::NONE);
  EXPECT_EQ(resolved->classes, 3);
  Dit filled;
  FillDit(*resolved, filled);
  CHECK_OK(ResolveDit(filled, {}, 3, set).status());

  Dit patched = dit;
  patched.set_patch(2);
  EXPECT_EQ(ResolveDit(patched, {}, 3, set).status().message(),
            "model.dit.patch: found 2, expected none where samples are sets of "
            "tokens");
  Dit learned = dit;
  learned.set_learned_variance(true);
  EXPECT_EQ(ResolveDit(learned, {}, 3, set).status().message(),
            "model.dit.learned_variance: found true, expected false where "
            "samples are sets of tokens");
  dit.set_positions(Dit::ROPE);
  EXPECT_EQ(ResolveDit(dit, {}, 3, set).status().message(),
            "model.dit.positions: found ROPE, expected NONE where samples are "
            "sets of tokens, which have no order");
}

TEST(ResolveDitTest, TokensOfALatticeHavePlaces) {
  Dit dit;
  dit.set_preset(Dit::TINY);
  const TokenSetSpec set = {.tokens = 64, .channels = 27, .lattice = 4};
  const auto resolved = ResolveDit(dit, {}, 3, set);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->positions, Dit::SINCOS);
  Dit filled;
  FillDit(*resolved, filled);
  CHECK_OK(ResolveDit(filled, {}, 3, set).status());
  dit.set_positions(Dit::ROPE);
  EXPECT_EQ(ResolveDit(dit, {}, 3, set).status().message(),
            "model.dit.heads: found 4 heads of 32 channels, expected heads of "
            "a multiple of 6 channels for positions ROPE");
  dit.set_hidden(96);
  CHECK_OK(ResolveDit(dit, {}, 3, set).status());
}

// Whoever goes on at another size keeps the places that the weights know.
TEST(ResolveDitTest, TablesOfPositionsHaveABaseOfTheirOwn) {
  Dit dit;
  dit.set_preset(Dit::XL_2);
  const ImageSpec image = {.channels = 4, .height = 64, .width = 64};
  const auto own = ResolveDit(dit, image, 1000);
  CHECK_OK(own.status());
  EXPECT_EQ(own->position_base, 32);
  dit.set_position_base(16);
  const auto smaller = ResolveDit(dit, image, 1000);
  CHECK_OK(smaller.status());
  EXPECT_EQ(smaller->position_base, 16);
  Dit filled;
  FillDit(*smaller, filled);
  EXPECT_EQ(filled.position_base(), 16u);

  const auto message = [](const Dit& wrong, const TokenSetSpec& set) {
    return std::string(
        ResolveDit(wrong, {.channels = 4, .height = 64, .width = 64}, 3, set)
            .status()
            .message());
  };
  dit.set_position_base(0);
  EXPECT_EQ(message(dit, {}),
            "model.dit.position_base: found 0, expected 1 to 16384");
  dit.set_position_base(16);
  dit.set_positions(Dit::ROPE);
  EXPECT_EQ(message(dit, {}),
            "model.dit.position_base: found 16 with positions ROPE, expected "
            "it with SINCOS only");
  Dit of_sets;
  of_sets.set_preset(Dit::TINY);
  of_sets.set_position_base(4);
  EXPECT_EQ(message(of_sets, {.tokens = 8, .channels = 27, .lattice = 2}),
            "model.dit.position_base: found 4, expected none where samples are "
            "sets of tokens");
  // Rotary positions count patches and have none.
  Dit rotary;
  rotary.set_preset(Dit::TINY);
  FillDit(*ResolveDit(rotary, image, 10), filled = Dit());
  EXPECT_FALSE(filled.has_position_base());
}

TEST(ResolveDitTest, ErrorsNameTheField) {
  const auto message = [](const Dit& dit) {
    return std::string(
        ResolveDit(dit, {.channels = 1, .height = 28, .width = 30}, 10)
            .status()
            .message());
  };
  Dit dit;
  EXPECT_EQ(message(dit), "model.dit.hidden: found 0, expected 4 to 131072");
  dit.set_preset(Dit::S);
  dit.set_heads(5);
  EXPECT_EQ(message(dit),
            "model.dit.hidden: found 384, expected a multiple of the 5 heads");
  dit.set_heads(6);
  dit.set_patch(4);
  EXPECT_EQ(message(dit),
            "model.dit.patch: found 4, expected a divisor of the pictures' "
            "30 x 28 pixels");
  dit.set_patch(2);
  dit.set_mlp_ratio(0);
  EXPECT_EQ(message(dit),
            "model.dit.mlp_ratio: found 0, expected more than 0 and at most "
            "64");
  dit.set_mlp_ratio(4);
  dit.set_heads(64);
  EXPECT_EQ(message(dit),
            "model.dit.heads: found 64 heads of 6 channels, expected heads of "
            "a multiple of 4 channels for positions ROPE");
}

TEST(ResolveDitTest, ExpertsHaveDefaultsAndAreWrittenBack) {
  const ImageSpec image = {.channels = 1, .height = 28, .width = 28};
  Dit dit;
  dit.set_preset(Dit::S);
  dit.mutable_moe()->set_experts(8);
  const auto resolved = ResolveDit(dit, image, 10);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->moe->top_k, 2);
  EXPECT_EQ(resolved->moe->expert_hidden, resolved->mlp_hidden);
  EXPECT_EQ(resolved->moe->balance_weight, 0.01);
  EXPECT_EQ(resolved->moe->balance_over, MoeConfig::BalanceOver::kSample);
  MixtureOfExperts& moe = *dit.mutable_moe();
  moe.set_top_k(3);
  moe.set_expert_hidden(20);
  moe.set_expert(MixtureOfExperts::GELU);
  moe.set_shared_hidden(16);
  moe.set_bias(true);
  moe.set_normalize(true);
  moe.set_balance_loss(0.5);
  moe.set_z_loss(0.25);
  moe.set_every(3);
  moe.set_router(MixtureOfExperts::COSINE);
  moe.set_scores(MixtureOfExperts::SIGMOID);
  moe.set_groups(4);
  moe.set_top_groups(3);
  moe.set_capacity_factor(1.25);
  moe.set_drop(MixtureOfExperts::BY_SCORE);
  moe.set_noise(1);
  moe.set_bias_step(0.001);
  moe.set_importance_loss(0.125);
  moe.set_balance_over(MixtureOfExperts::BATCH);
  moe.set_importance_over(MixtureOfExperts::MICROBATCH);
  Dit filled;
  FillDit(*ResolveDit(dit, image, 10), filled);
  const auto again = ResolveDit(filled, image, 10);
  CHECK_OK(again.status());
  EXPECT_EQ(*again->moe,
            (MoeConfig{.experts = 8,
                       .top_k = 3,
                       .expert_hidden = 20,
                       .kind = MoeConfig::ExpertKind::kGelu,
                       .shared_hidden = 16,
                       .bias = true,
                       .normalize = true,
                       .balance_weight = 0.5,
                       .z_weight = 0.25,
                       .balance_over = MoeConfig::BalanceOver::kBatch,
                       .importance_over = MoeConfig::BalanceOver::kMicrobatch,
                       .importance_weight = 0.125,
                       .router = MoeConfig::RouterKind::kCosine,
                       .scores = MoeConfig::Scores::kSigmoid,
                       .groups = 4,
                       .top_groups = 3,
                       .capacity_factor = 1.25,
                       .drop = MoeConfig::Drop::kByScore,
                       .noise = 1,
                       .bias_step = 0.001}));
  EXPECT_FALSE(again->has_experts(1));
  EXPECT_TRUE(again->has_experts(2));
}

TEST(ResolveDitTest, ErrorsNameTheFieldOfExperts) {
  const auto message = [](const Dit& dit) {
    return std::string(
        ResolveDit(dit, {.channels = 1, .height = 28, .width = 28}, 10)
            .status()
            .message());
  };
  Dit dit;
  dit.set_preset(Dit::S);
  MixtureOfExperts& moe = *dit.mutable_moe();
  EXPECT_EQ(message(dit), "model.dit.moe.experts: found 0, expected 1 to 4096");
  moe.set_experts(4);
  moe.set_top_k(5);
  EXPECT_EQ(message(dit), "model.dit.moe.top_k: found 5, expected 1 to 4");
  moe.set_top_k(2);
  moe.set_every(13);
  EXPECT_EQ(message(dit), "model.dit.moe.every: found 13, expected 1 to 12");
  moe.set_every(1);
  moe.set_z_loss(-1);
  EXPECT_EQ(message(dit),
            "model.dit.moe.z_loss: found -1, expected 0 to 1000000");
  moe.set_z_loss(0);
  moe.set_groups(3);
  EXPECT_EQ(message(dit),
            "model.dit.moe.groups: found 3, expected a divisor of 4");
  moe.set_groups(4);
  moe.set_top_groups(1);
  EXPECT_EQ(message(dit),
            "model.dit.moe.top_groups: found 1, expected a divisor of the 2 "
            "experts of a token that leaves at most 1, the experts of a group");
  moe.set_top_groups(2);
  moe.set_drop(MixtureOfExperts::BY_SCORE);
  EXPECT_EQ(message(dit),
            "model.dit.moe.drop: found BY_SCORE, expected a capacity_factor "
            "with it");
  moe.set_drop(MixtureOfExperts::DROP_UNSPECIFIED);
  moe.set_balance_loss(0);
  moe.set_balance_over(MixtureOfExperts::BATCH);
  EXPECT_EQ(message(dit),
            "model.dit.moe.balance_over: found BATCH, expected a balance_loss "
            "with it");
  moe.clear_balance_over();
  moe.set_importance_over(MixtureOfExperts::MICROBATCH);
  EXPECT_EQ(message(dit),
            "model.dit.moe.importance_over: found MICROBATCH, expected an "
            "importance_loss with it");
  moe.clear_importance_over();
  moe.set_capacity_factor(-1);
  EXPECT_EQ(message(dit),
            "model.dit.moe.capacity_factor: found -1, expected 0 to 4");
}

TEST(ResolveDitTest, ExpertsThatChooseHaveACapacityAndNothingToBalance) {
  Dit dit;
  dit.set_preset(Dit::S);
  MixtureOfExperts& moe = *dit.mutable_moe();
  moe.set_experts(4);
  moe.set_choice(MixtureOfExperts::EXPERTS);
  const ImageSpec image = {.channels = 1, .height = 28, .width = 28};
  const auto resolved = ResolveDit(dit, image, 10);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->moe->capacity_factor, 1);
  EXPECT_EQ(resolved->moe->balance_weight, 0);
  Dit filled;
  FillDit(*resolved, filled);
  CHECK_OK(ResolveDit(filled, image, 10).status());
  moe.set_balance_loss(0.01);
  EXPECT_EQ(ResolveDit(dit, image, 10).status().message(),
            "model.dit.moe.balance_loss: found 0.01, expected none with choice "
            "EXPERTS");
}

}  // namespace
}  // namespace trireme
