// Which names a job's patterns mean.

#include "parallel/parameters/trained_parameters.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

using Kind = TrainedParameters::Kind;

TEST(TrainedParametersTest, LayersByTheirNamesOrTheirParameters) {
  const TrainedParameters trained = {
      .kind = Kind::kLayers,
      .layers = {"blocks.1.*", "blocks.2.mlp.in", "*.q_norm.weight"},
      .except = {"*.modulation"}};
  EXPECT_TRUE(trained.Trains("blocks.1.attention.qkv.bias"));
  EXPECT_TRUE(trained.Trains("blocks.2.mlp.in.weight"));
  EXPECT_TRUE(trained.Trains("blocks.3.attention.q_norm.weight"));
  EXPECT_FALSE(trained.Trains("blocks.1.modulation.weight"));
  EXPECT_FALSE(trained.Trains("blocks.11.attention.qkv.bias"));
  EXPECT_FALSE(trained.Trains("blocks.2.mlp.out.weight"));
  EXPECT_FALSE(trained.Adapts("blocks.1.attention.qkv"));
}

TEST(TrainedParametersTest, AdaptersAloneTrain) {
  const TrainedParameters trained = {.kind = Kind::kAdapters,
                                     .layers = {"blocks.*"},
                                     .except = {"*.modulation"},
                                     .rank = 4,
                                     .alpha = 2};
  EXPECT_TRUE(trained.Adapts("blocks.11.mlp.in"));
  EXPECT_FALSE(trained.Adapts("blocks.11.modulation"));
  EXPECT_FALSE(trained.Adapts("final.linear"));
  EXPECT_TRUE(trained.Trains("blocks.11.mlp.in.lora_A"));
  EXPECT_TRUE(trained.Trains("blocks.11.mlp.in.lora_magnitude"));
  EXPECT_FALSE(trained.Trains("blocks.11.mlp.in.weight"));
  EXPECT_EQ(trained.scale(), 0.5);
}

TEST(TrainedParametersTest, EverythingIsTheDefault) {
  EXPECT_TRUE(TrainedParameters().Trains("final.linear.bias"));
  EXPECT_FALSE(TrainedParameters().Adapts("final.linear"));
}

}  // namespace
}  // namespace trireme
