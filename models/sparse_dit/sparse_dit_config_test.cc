// Sizes of a sparse transformer.

#include "models/sparse_dit/sparse_dit_config.h"

#include <string>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::StatusOr<SparseDitConfig> Resolve(const SparseDit& model) {
  return ResolveSparseDit(model, /*tokens=*/500, /*channels=*/16,
                          /*resolution=*/32, /*classes=*/7);
}

SparseDit Preset(SparseDit::Preset preset) {
  SparseDit model;
  model.set_preset(preset);
  return model;
}

std::string ErrorOf(const SparseDit& model) {
  return MessageOf(Resolve(model).status());
}

TEST(ResolveSparseDitTest, PresetHasThePublishedSizes) {
  const auto config = Resolve(Preset(SparseDit::DIRECT3D_S2));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 1024);
  EXPECT_EQ(config->layers, 24);
  EXPECT_EQ(config->heads, 32);
  EXPECT_EQ(config->head_dim(), 32);
  EXPECT_EQ(config->key_heads, 2);
  EXPECT_EQ(config->top_k, 8);
  EXPECT_EQ(config->condition.kind, CrossCondition::Kind::kFeatures);
  EXPECT_EQ(config->condition_width(), 1024);
}

TEST(ResolveSparseDitTest, WhatIsFilledInResolvesToTheSame) {
  SparseDit model = Preset(SparseDit::TINY);
  model.mutable_picture()->set_resolution(48);
  const auto config = Resolve(model);
  ASSERT_TRUE(config.ok()) << config.status();
  SparseDit filled;
  FillSparseDit(*config, filled);
  const auto again = Resolve(filled);
  ASSERT_TRUE(again.ok()) << again.status();
  SparseDit twice;
  FillSparseDit(*again, twice);
  EXPECT_EQ(twice.SerializeAsString(), filled.SerializeAsString());
  EXPECT_EQ(again->key_heads, 2);
  EXPECT_EQ(again->top_k, 4);
  EXPECT_EQ(again->condition.tokens(), 36);
}

TEST(ResolveSparseDitTest, ErrorsNameTheField) {
  EXPECT_EQ(ErrorOf(SparseDit()),
            "model.sparse_dit.hidden: found 0, expected 6 to 131072");
  SparseDit model = Preset(SparseDit::TINY);
  model.set_heads(5);
  EXPECT_EQ(ErrorOf(model),
            "model.sparse_dit.hidden: found 128, expected a multiple of the 5 "
            "heads");
  model.set_heads(4);
  model.set_key_heads(3);
  EXPECT_EQ(ErrorOf(model),
            "model.sparse_dit.key_heads: found 3, expected a divisor of the 4 "
            "heads");
  model.set_key_heads(4);
  model.set_top_k(0);
  EXPECT_EQ(ErrorOf(model),
            "model.sparse_dit.top_k: found 0, expected 1 to 1024");
  model.set_top_k(1);
  model.mutable_features();
  EXPECT_EQ(ErrorOf(model),
            "model.sparse_dit.features.tokens: found 0, expected 1 to 65536");
  const auto no_voxels =
      ResolveSparseDit(Preset(SparseDit::TINY), 0, 16, 32, 0);
  EXPECT_EQ(MessageOf(no_voxels.status()),
            "model.sparse_dit: found samples of 0 voxels on a grid of 32 a "
            "side, expected 1 to 1048576 on one of 1 to 4096");
}

}  // namespace
}  // namespace trireme
