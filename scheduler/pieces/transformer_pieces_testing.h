// For tests and benchmarks: the pieces of a transformer by formulas, of a DiT
// or of a GPT, which has no conditioning. They take the place of a model that
// nobody runs there, as those of published runs;
// trainer/planning/planner_model_test.cc compares them with what a DiT's layers
// do.
//
// A product of [m, k] by [k, n] is 2mkn FLOPs. With s tokens, width h, MLP
// width f and n text tokens, the forward of one block over one sample is
//
//   8 s h^2 + 4 s h f + 4 s^2 h                   self-attention and MLP
//   cross text:  + 4 s h^2 + 4 n h^2 + 4 s n h
//   joint text:  the first line with s + n tokens
//
// (For f = 4h the first line is 24 s h^2 + 4 s^2 h; Narayanan et al.,
// "Efficient large-scale language model training on GPU clusters".)
// Modulations are left out.

#ifndef TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_TESTING_H_
#define TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_TESTING_H_

#include <cstdint>

#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// What a ModelShape does not say of a transformer.
struct TransformerParts {
  // Of a block's adaLN (6 h^2 with one table per block; of each of the two
  // streams of joint text); 0: none. Their products act on one vector per
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
};

// As a model's `pieces`.
PieceSource PiecesByFormulas(const TransformerParts& parts = {});

ModelPieces TransformerPieces(const ModelShape& model,
                              const TransformerParts& parts,
                              const BlockSplit& split,
                              Plan::Recompute recompute);

// Of the whole model.
int64_t ModelParameters(const ModelShape& model);
// Forward FLOPs of one block over one sample.
double BlockFlops(const ModelShape& model);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_TRANSFORMER_PIECES_TESTING_H_
