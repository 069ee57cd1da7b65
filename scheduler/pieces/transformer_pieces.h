// The pieces of a transformer by formulas: of a DiT, or of a GPT, which has no
// conditioning. For models that nobody here can run, as those of published
// runs; trainer/planner_model_test.cc compares them with what a DiT's layers
// do.

#ifndef TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_H_
#define TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_H_

#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

ModelPieces TransformerPieces(const ModelShape& model, const BlockSplit& split,
                              Plan::Recompute recompute);

// As the model's own source has them; by formulas where it has none.
// `deferred`: weight gradients are put off.
ModelPieces PiecesOf(const ModelShape& model, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred);

// Of the whole model.
int64_t ModelParameters(const ModelShape& model);
// Forward and backward over one sample: the FLOPs of MFU: products of the
// blocks, neither the embedding's nor the head's, nor recomputation.
double ModelTrainingFlops(const ModelShape& model);

// Tokens of one sample that a block's self-attention and MLP work on.
int64_t SequenceLength(const ModelShape& model);

// Tokens of one sample on one rank of a block, padding included: where channels
// are sharded over tp, and between those layers, where sequence parallelism
// shards tokens instead. Every rank of cp holds the whole text.
struct RankTokens {
  int64_t image = 0;
  int64_t image_between = 0;
  int64_t text = 0;
  int64_t text_between = 0;
};
RankTokens TokensOnRank(const ModelShape& model, const BlockSplit& split);

// Whether a vector for each sample (time, class) modulates every block, from
// which each block makes its own scales and shifts.
bool HasConditioning(const ModelShape& model);

// Forward FLOPs of one block over one sample, as transformer_flops.h counts
// them for a block that is not the last.
double BlockFlops(const ModelShape& model);
// Of attention's products of queries with keys and of weights with values.
double AttentionFlops(const ModelShape& model);
// Those of one microbatch on one rank: of the products with weights, and of
// attention's.
double ProductFlopsOnRank(const ModelShape& model, const BlockSplit& split);
double AttentionFlopsOnRank(const ModelShape& model, const BlockSplit& split);
int64_t BlockParameters(const ModelShape& model);

// Parameters of a block on one rank: matrices are sharded over tp, norms not.
int64_t BlockParametersPerRank(const ModelShape& model, int64_t tp);

// What one block's element-wise kernels read and write in one forward of a
// microbatch on one rank.
double ElementwiseBytes(const ModelShape& model, const BlockSplit& split);

// Activations that one block keeps from forward to backward, per microbatch and
// rank.
int64_t ActivationBytes(const ModelShape& model, const BlockSplit& split,
                        Plan::Recompute recompute);
// Of those, what the weight gradients still need after the input gradients.
int64_t DeferredWeightBytes(const ModelShape& model, const BlockSplit& split);

// The hidden states of one microbatch as they lie on one rank between blocks.
int64_t BoundaryBytes(const ModelShape& model, const BlockSplit& split);
// The message from stage to stage: the hidden states and, where the model has
// them, the conditioning and the text.
int64_t MessageBytes(const ModelShape& model, const BlockSplit& split);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_H_
