// A transformer as the planner sees it: sizes only, no tensors. The trainer
// fills one from its model's configuration.
//
// Units: FLOPs and bytes of one *sample* where not said otherwise; a matrix
// product of [m, k] by [k, n] is 2mkn FLOPs. Sources: Korthikanti et al.,
// "Reducing activation recomputation in large transformer models" (activation
// bytes), Narayanan et al., "Efficient large-scale language model training on
// GPU clusters" (FLOPs).

#ifndef TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_
#define TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/pieces/measured_memory.h"
#include "scheduler/pieces/transformer_flops.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// The pieces of a model that have costs of their own.
enum class ModelPiece { kBlock, kEmbedding, kHead };
inline constexpr size_t kNumModelPieces = 3;

// Measured seconds of one piece on one kind of device. Overrides what FLOPs and
// rates give for this split; what they give for others is scaled as the nearest
// split that was measured says.
struct MeasuredPiece {
  ModelPiece piece = ModelPiece::kBlock;
  std::string device;  // name in the cluster
  int64_t tp = 1;
  int64_t cp = 1;
  bool sequence_parallel = false;
  int64_t microbatch_size = 1;
  // Compute only: no communication, no recomputation.
  double forward_s = 0;
  double backward_s = 0;
  // Of the backward, what can be put off (weight gradients).
  double backward_weight_s = 0;
};

// How one microbatch of a block is divided and kept.
struct BlockSplit {
  int64_t tp = 1;
  int64_t cp = 1;
  int64_t ulysses = 1;
  bool sequence_parallel = false;
  int64_t microbatch_size = 1;
};

struct ModelShape {
  using Text = TransformerSizes::Text;

  std::string name;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t mlp_hidden = 0;
  int64_t heads = 0;
  // Of one sample in the blocks, text of kJoint not included.
  int64_t tokens = 0;
  int64_t text_tokens = 0;
  Text text = Text::kNone;
  // Parameters of a block's adaLN (6 h^2 with one table per block; of each of
  // the two streams of kJoint); 0: none. Their products act on one vector per
  // sample and cost no FLOPs here.
  int64_t modulation_parameters = 0;
  // RMS norms on queries and keys keep two more activations.
  bool qk_norm = false;
  // Parameters and forward FLOPs of what lies before the first block and after
  // the last one.
  int64_t embedding_parameters = 0;
  double embedding_flops = 0;
  int64_t head_parameters = 0;
  double head_flops = 0;
  // Of weights and activations: 2 (bf16, fp16), 4 or 8 (fp64).
  int64_t element_bytes = 2;
  // "bf16", "fp16", "fp32", "fp64"; empty: no measured times are looked for.
  std::string dtype;
  // Of one parameter's gradient, and of its optimizer state (fp32 master
  // weight and two moments; no master where weights are fp32 already).
  int64_t gradient_bytes = 4;
  int64_t optimizer_bytes = 12;
  // Whether collectives inside blocks run behind products and attention, as
  // far as those take as long. The blocks of a rehearsal sleep, which hides
  // nothing.
  bool hides_collectives = true;
  std::vector<MeasuredPiece> measured;
  // Memory of the model's parts, in place of the formulas below; null, and
  // nothing for a split that the model cannot have: none is known. `deferred`:
  // weight gradients are put off. A pure function.
  std::function<std::optional<MeasuredMemory>(
      const BlockSplit& split, Plan::Recompute recompute, bool deferred)>
      measured_memory;
};

// InvalidArgument with the field's name where a size makes no sense.
absl::Status CheckModelShape(const ModelShape& model);

// Tokens of one sample that a block's self-attention and MLP work on.
int64_t SequenceLength(const ModelShape& model);

BlockSplit SplitOf(const Plan& plan);

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

// Rounded up, for positive numbers.
inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
// Of the whole model.
int64_t ModelParameters(const ModelShape& model);
// Forward and backward (3 times forward) over one sample: the FLOPs of MFU, as
// published runs count them: the blocks (transformer_flops.h), neither
// embedding_flops nor head_flops, nor recomputation.
double ModelTrainingFlops(const ModelShape& model);

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

#endif  // TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_
