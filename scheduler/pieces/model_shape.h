// A transformer as the planner sees it: sizes only, no tensors. The trainer
// fills one from its model's configuration.
//
// What its pieces compute, hold and send is the model's own to say
// (ModelShape::pieces). A matrix product of [m, k] by [k, n] is 2mkn FLOPs.

#ifndef TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_
#define TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/pieces/model_pieces.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// A piece of a model that has costs of its own.
struct ModelPiece {
  enum Kind : uint8_t { kEmbedding, kHead, kBlock };

  ModelPiece(Kind of_kind, int32_t of_blocks = 0)
      : kind(of_kind), block_kind(of_blocks) {}

  // 0, 1, 2...: the embedding, the head, and each kind of block.
  size_t index() const {
    return static_cast<size_t>(kind) + static_cast<size_t>(block_kind);
  }

  friend bool operator==(const ModelPiece&, const ModelPiece&) = default;

  Kind kind;
  int32_t block_kind;
};

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

const PieceFigures& FiguresOf(const ModelPieces& pieces,
                              const ModelPiece& piece);

// How one microbatch of a block is divided and kept.
struct BlockSplit {
  int64_t tp = 1;
  int64_t cp = 1;
  int64_t ulysses = 1;
  int64_t ep = 1;
  // Experts' weights come to the rows (Plan.Experts).
  bool moves_weights = false;
  // In which rows go to experts, how many experts' rows may stay, and the bound
  // of those that a rank receives, over those of even routing; 0: none.
  int64_t row_chunks = 1;
  int64_t shadowed = 0;
  // Ranks of a node, where rows go by nodes; and whether a token's goes to a
  // node once.
  int64_t node_ranks = 1;
  bool deduplicates = false;
  // Of the ranks that share an expert, those that a row goes to; 0: all.
  int64_t row_copies = 0;
  double max_load = 0;
  // Gradients of experts' weights are summed rank by rank.
  bool sums_by_rank = false;
  bool sequence_parallel = false;
  int64_t microbatch_size = 1;

  friend auto operator<=>(const BlockSplit&, const BlockSplit&) = default;
};

// Consecutive blocks of one kind.
struct BlockRun {
  int32_t kind = 0;
  int64_t count = 0;
};

// What one block makes and another, further on than the next, reads. It crosses
// between stages beside x, unless one rank has both blocks.
struct BlockSkip {
  int64_t made = 0;
  int64_t read = 0;
};

struct ModelShape;

// A model's pieces on one rank under a split that the model can have; weight
// gradients are put off where `deferred` says so. A pure function.
using PieceSource =
    std::function<ModelPieces(const ModelShape& model, const BlockSplit& split,
                              Plan::Recompute recompute, bool deferred)>;

struct ModelShape {
  enum class Text { kNone, kCross, kJoint };

  std::string name;
  int64_t layers = 0;
  // Together `layers`. Empty: all blocks are alike.
  std::vector<BlockRun> block_runs;
  std::vector<BlockSkip> skips;
  int64_t hidden = 0;
  int64_t mlp_hidden = 0;
  int64_t heads = 0;
  // Of one sample in the blocks, text of kJoint not included.
  int64_t tokens = 0;
  int64_t text_tokens = 0;
  Text text = Text::kNone;
  // Of a mixture in place of MLPs; 0: none.
  int64_t experts = 0;
  int64_t expert_hidden = 0;
  int64_t shared_hidden = 0;  // of the one that all tokens go through; 0: none
  // Whether ranks may share a sample's tokens: over cp, and between products
  // over tp.
  bool context_parallel = true;
  bool sequence_parallel = true;
  // Of weights and activations: 2 (bf16, fp16), 4 or 8 (fp64).
  int64_t element_bytes = 2;
  // "bf16", "fp16", "fp32", "fp64"; empty: no measured times are looked for.
  std::string dtype;
  // Of one parameter's gradient, and of its optimizer state (fp32 master
  // weight and two moments; no master where weights are fp32 already).
  int64_t gradient_bytes = 4;
  int64_t optimizer_bytes = 12;
  // With offload: what trains of a block leaves the device with it. Else its
  // optimizer's state and it stay there, and only what is frozen leaves.
  bool trained_leaves = true;
  // Whether collectives inside blocks run behind products and attention, as
  // far as those take as long. The blocks of a rehearsal sleep, which hides
  // nothing.
  bool hides_collectives = true;
  std::vector<MeasuredPiece> measured;
  // Always set: whoever can run the model records its pieces
  // (trainer/planning/recorded_pieces.h).
  PieceSource pieces;
};

// InvalidArgument with the field's name where a size makes no sense.
absl::Status CheckModelShape(const ModelShape& model);

BlockSplit SplitOf(const Plan& plan);

// As the model's source has them.
ModelPieces PiecesOf(const ModelShape& model, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred);

// Forward and backward over one sample, the FLOPs of MFU: of all matrix
// products and convolutions that the model has in training, the embedding's,
// the head's and the losses' among them, each once however often it is computed
// again. Elementwise work is none, nor are gradients that a piece is not asked
// for. `blocks`: of the model's, the share that the sample passes.
double ModelTrainingFlops(const ModelShape& model, double blocks = 1);
// The same for whoever reads the figure.
inline constexpr std::string_view kModelFlopsMeaning =
    "all matrix products of the model and its losses, forward and backward, "
    "counted in a dry step; recompute is not counted";

// Kinds are numbered from 0.
int32_t NumBlockKinds(const ModelShape& model);
// By index.
std::vector<ModelPiece> PiecesIn(const ModelShape& model);
// The model's blocks in order; one run where block_runs is empty.
std::vector<BlockRun> BlockRunsOf(const ModelShape& model);
// The first block of the kind's longest run.
int64_t FirstBlockOf(const ModelShape& model, int32_t kind);
// Those of blocks [first, end).
std::vector<BlockRun> BlockRunsIn(const ModelShape& model, int64_t first,
                                  int64_t end);

// Rounded up, for positive numbers.
inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_MODEL_SHAPE_H_
