// Sizes of a TripoSG transformer.

#include "models/triposg/triposg_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = CrossCondition::Kind;

absl::StatusOr<TriposgConfig> Resolve(const Triposg& triposg) {
  return ResolveTriposg(triposg, /*latents=*/2048, /*channels=*/64,
                        /*classes=*/7);
}

Triposg Preset(Triposg::Preset preset) {
  Triposg triposg;
  triposg.set_preset(preset);
  return triposg;
}

std::string ErrorOf(const Triposg& triposg) {
  return MessageOf(Resolve(triposg).status());
}

// Whoever fine-tunes the published model gets its sizes.
TEST(ResolveTriposgTest, PresetHasThePublishedSizes) {
  const auto config = Resolve(Preset(Triposg::TRIPOSG));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 2048);
  EXPECT_EQ(config->layers, 21);
  EXPECT_EQ(config->head_dim(), 128);
  EXPECT_EQ(config->tokens(), 2049);
  EXPECT_EQ(config->condition.kind, Kind::kFeatures);
  EXPECT_EQ(config->condition_width(), 1024);
  EXPECT_FALSE(config->moe.has_value());
}

TEST(ResolveTriposgTest, EachBlockBehindTheMiddleReadsOneBeforeIt) {
  const auto config = Resolve(Preset(Triposg::TINY));
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<int64_t> carried;
  for (int64_t block = 0; block <= config->layers; ++block) {
    carried.push_back(config->skips_before(block));
  }
  EXPECT_EQ(carried, (std::vector<int64_t>{0, 1, 2, 2, 1, 0}));
  EXPECT_FALSE(config->has_skip(2));
  EXPECT_TRUE(config->has_skip(3));
}

TEST(ResolveTriposgTest, TheConditionIsWhatTheJobSaysElseTheClass) {
  Triposg triposg = Preset(Triposg::TINY);
  auto config = Resolve(triposg);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->condition.kind, Kind::kClass);
  EXPECT_EQ(config->condition.classes, 7);
  EXPECT_EQ(config->condition.tokens(), 1);
  triposg.mutable_picture()->set_resolution(48);
  config = Resolve(triposg);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->condition.tokens(), 36);
  EXPECT_EQ(config->condition.classes, 0);
  triposg.mutable_features()->set_tokens(9);
  triposg.mutable_features()->mutable_bytes();
  config = Resolve(triposg);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->condition.tokens(), 9);
  EXPECT_TRUE(config->condition.caption_bytes);
}

// A run's job file says what was trained, also where defaults change.
TEST(ResolveTriposgTest, WhatIsFilledInResolvesToTheSame) {
  Triposg triposg = Preset(Triposg::TINY);
  triposg.mutable_picture();
  triposg.mutable_moe()->set_experts(4);
  const auto config = Resolve(triposg);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->expert_blocks, 5);
  EXPECT_EQ(config->moe->shared_hidden, 512);
  Triposg filled;
  FillTriposg(*config, filled);
  const auto again = Resolve(filled);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->hidden, config->hidden);
  EXPECT_EQ(again->layers, config->layers);
  EXPECT_EQ(again->condition.tokens(), config->condition.tokens());
  EXPECT_EQ(again->moe, config->moe);
  EXPECT_EQ(again->expert_blocks, config->expert_blocks);
}

TEST(ResolveTriposgTest, ErrorsNameTheField) {
  Triposg triposg = Preset(Triposg::TINY);
  triposg.set_layers(6);
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.layers: found 6, expected an odd number: each block "
            "before the middle one has one behind it");
  triposg = Preset(Triposg::TINY);
  triposg.set_heads(3);
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.hidden: found 128, expected an even multiple of the "
            "3 heads");
  triposg = Preset(Triposg::TINY);
  triposg.mutable_picture()->set_patch(7);
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.picture.patch: found 7, expected a divisor of the "
            "picture's 64 pixels a side");
  triposg = Preset(Triposg::TINY);
  triposg.mutable_features();
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.features.tokens: found 0, expected 1 to 65536");
  triposg = Preset(Triposg::TINY);
  triposg.set_expert_blocks(2);
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.expert_blocks: found 2, expected it with moe");
  triposg.mutable_moe()->set_experts(4);
  triposg.mutable_moe()->set_every(2);
  EXPECT_EQ(ErrorOf(triposg),
            "model.triposg.moe.every: found 2, expected 1 to 1");
}

}  // namespace
}  // namespace trireme
