#include "scheduler/pieces/model_shape.h"

#include "gtest/gtest.h"
#include "scheduler/pieces/transformer_pieces_testing.h"

namespace trireme {
namespace {

TransformerParts Modulated() { return {.modulation_parameters = 6 * 64 * 64}; }

ModelShape Dit() {
  ModelShape model;
  model.layers = 4;
  model.hidden = 64;
  model.mlp_hidden = 256;
  model.heads = 8;
  model.tokens = 128;
  model.pieces = PiecesByFormulas(Modulated());
  return model;
}

// sbh units of the published tables.
double Units(const ModelShape& model, const BlockSplit& split,
             Plan::Recompute recompute) {
  const ModelPieces pieces = PiecesOf(model, split, recompute, false);
  return static_cast<double>(pieces.blocks[0].activation_bytes) /
         static_cast<double>(model.tokens * split.microbatch_size *
                             model.hidden);
}

TEST(ModelShape, FlopsAreThoseOfThePapers) {
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
  const double blocks = ModelTrainingFlops(dit);
  dit.pieces = PiecesByFormulas({.embedding_flops = 1e6, .head_flops = 2e6});
  EXPECT_DOUBLE_EQ(ModelTrainingFlops(dit), blocks + 9e6);
  // Of a partial pipeline: every sample passes both ends.
  EXPECT_DOUBLE_EQ(ModelTrainingFlops(dit, 0.5), 0.5 * blocks + 9e6);
}

// Korthikanti et al., table 2, and a DiT's block by the same count: too little
// here is an out-of-memory error in the middle of a run.
TEST(ModelShape, ActivationBytesAreThoseOfTheLiterature) {
  // Of the table's 34 units two are masks of dropout, which we do not have.
  ModelShape plain = Dit();
  plain.pieces = PiecesByFormulas();
  const BlockSplit one = {.microbatch_size = 3};
  EXPECT_DOUBLE_EQ(Units(plain, one, Plan::NONE), 34 - 2);
  EXPECT_DOUBLE_EQ(Units(plain, {.tp = 4}, Plan::NONE), 10 - 2 + 24.0 / 4);
  EXPECT_DOUBLE_EQ(
      Units(plain, {.tp = 4, .sequence_parallel = true}, Plan::NONE),
      (34.0 - 2) / 4);
  EXPECT_DOUBLE_EQ(Units(plain, one, Plan::FULL), 2);

  ModelShape dit = Dit();
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::NONE), 36);
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::SELECTIVE), 24);
  EXPECT_DOUBLE_EQ(Units(dit, {.cp = 2}, Plan::NONE), 18);
  TransformerParts normed = Modulated();
  normed.qk_norm = true;
  dit.pieces = PiecesByFormulas(normed);
  EXPECT_DOUBLE_EQ(Units(dit, one, Plan::NONE), 40);
}

TEST(ModelShape, ParametersPerRank) {
  // 12 h^2 + 6 h^2 of matrices, and biases:.
  const auto of_block = [](int64_t tp) {
    return PiecesOf(Dit(), {.tp = tp}, Plan::NONE, false).blocks[0].parameters;
  };
  EXPECT_EQ(of_block(1), 18 * 64 * 64 + 9 * 64);
  EXPECT_EQ(of_block(2), (18 * 64 * 64 + 7 * 64) / 2 + 2 * 64);
}

TEST(ModelShape, ErrorsNameTheField) {
  ModelShape model = Dit();
  model.hidden = 0;
  EXPECT_EQ(CheckModelShape(model).message().find("model.hidden: "), 0u);
}

}  // namespace
}  // namespace trireme
