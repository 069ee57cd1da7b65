#include "scheduler/planner/model_shape.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

ModelShape Dit() {
  ModelShape model;
  model.layers = 4;
  model.hidden = 64;
  model.mlp_hidden = 256;
  model.heads = 8;
  model.tokens = 128;
  model.modulation_parameters = 6 * 64 * 64;
  return model;
}

// sbh units of the published tables.
double Units(const ModelShape& model, const BlockSplit& split,
             Plan::Recompute recompute) {
  return static_cast<double>(ActivationBytes(model, split, recompute)) /
         static_cast<double>(model.tokens * split.microbatch_size *
                             model.hidden);
}

TEST(ModelShape, FlopsAreThoseOfThePapers) {
  const ModelShape gpt = GptShape("g", 80, 12288, 96, 2048, 51200);
  const double l = 80, h = 12288, s = 2048, v = 51200;
  EXPECT_NEAR(ModelTrainingFlops(gpt) /
                  (72 * l * s * h * h * (1 + s / (6 * h) + v / (12 * l * h))),
              1, 1e-12);
  EXPECT_NEAR(static_cast<double>(ModelParameters(gpt)), 145.6e9, 0.5e9);

  ModelShape dit = Dit();
  EXPECT_DOUBLE_EQ(ModelTrainingFlops(dit),
                   3.0 * 4 * (24.0 * 128 * 64 * 64 + 4.0 * 128 * 128 * 64));
  dit.text = ModelShape::Text::kCross;
  dit.text_tokens = 16;
  EXPECT_DOUBLE_EQ(
      BlockFlops(dit) - BlockFlops(Dit()),
      4.0 * 128 * 64 * 64 + 4.0 * 16 * 64 * 64 + 4.0 * 128 * 16 * 64);
  dit.text = ModelShape::Text::kJoint;
  EXPECT_DOUBLE_EQ(BlockFlops(dit),
                   24.0 * 144 * 64 * 64 + 4.0 * 144 * 144 * 64);
  // What the runtime does before and after the blocks takes time, but is none
  // of the FLOPs of MFU.
  const double blocks = ModelTrainingFlops(dit);
  dit.embedding_flops = dit.head_flops = 1e9;
  EXPECT_DOUBLE_EQ(ModelTrainingFlops(dit), blocks);
  EXPECT_DOUBLE_EQ(HeadFlops(dit), 1e9);
}

// Korthikanti et al., table 2, and a DiT's block by the same count: too little
// here is an out-of-memory error in the middle of a run.
TEST(ModelShape, ActivationBytesAreThoseOfTheLiterature) {
  const ModelShape gpt = GptShape("g", 2, 1024, 16, 256, 1000);
  const double scores = 5.0 * 16 * 256 / 1024;
  const BlockSplit one = {.microbatch_size = 3};
  EXPECT_DOUBLE_EQ(Units(gpt, one, Plan::NONE), 34 + scores);
  EXPECT_DOUBLE_EQ(Units(gpt, {.tp = 4}, Plan::NONE),
                   10 + 24.0 / 4 + scores / 4);
  EXPECT_DOUBLE_EQ(Units(gpt, {.tp = 4, .sequence_parallel = true}, Plan::NONE),
                   (34 + scores) / 4);
  EXPECT_DOUBLE_EQ(Units(gpt, one, Plan::FULL), 2);

  ModelShape dit = Dit();
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::NONE), 36);
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::SELECTIVE), 24);
  EXPECT_DOUBLE_EQ(Units(dit, {.cp = 2}, Plan::NONE), 18);
  dit.qk_norm = true;
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::NONE), 40);
}

TEST(ModelShape, ParametersPerRank) {
  // 12 h^2 + 6 h^2 of matrices, and biases:.
  EXPECT_EQ(BlockParameters(Dit()), 18 * 64 * 64 + 9 * 64);
  EXPECT_EQ(BlockParametersPerRank(Dit(), 2),
            (18 * 64 * 64 + 7 * 64) / 2 + 2 * 64);
}

TEST(ModelShape, ErrorsNameTheField) {
  ModelShape model = Dit();
  model.hidden = 0;
  EXPECT_EQ(CheckModelShape(model).message().find("model.hidden: "), 0u);
}

}  // namespace
}  // namespace trireme
