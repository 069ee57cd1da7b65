// Matrix-product FLOPs of a transformer's blocks by formulas, as published runs
// count them.
//
// A product of [m, k] by [k, n] is 2mkn FLOPs. With s tokens, width h, MLP
// width f and n text tokens, the forward of one block over one sample is
//
//   8 s h^2 + 4 s h f + 4 s^2 h                   self-attention and MLP
//   cross text:  + 4 s h^2 + 4 n h^2 + 4 s n h
//   joint text:  the first line with s + n tokens; in the model's last block,
//                whose text is only read as keys and values:
//                8 s h^2 + 4 n h^2 + 4 s h f + 4 s (s + n) h
//
// (For f = 4h the first line is 24 s h^2 + 4 s^2 h; Narayanan et al.,
// "Efficient large-scale language model training on GPU clusters".)
// Modulations, embeddings and heads are left out; recomputation never counts.

#ifndef TRIREME_SCHEDULER_PIECES_TRANSFORMER_FLOPS_H_
#define TRIREME_SCHEDULER_PIECES_TRANSFORMER_FLOPS_H_

#include <cstdint>

namespace trireme {

struct TransformerSizes {
  enum class Text { kNone, kCross, kJoint };

  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t mlp_hidden = 0;
  int64_t tokens = 0;  // text of kJoint not included
  int64_t text_tokens = 0;
  Text text = Text::kNone;
};

// Forward of one block over one sample; of the model's last block if `last`.
double BlockForwardFlops(const TransformerSizes& sizes, bool last = false);
// Of attention's products of queries with keys and of weights with values.
double AttentionForwardFlops(const TransformerSizes& sizes, bool last = false);
// Forward and backward (3 times forward) of all blocks over one sample.
double BlocksTrainingFlops(const TransformerSizes& sizes);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_TRANSFORMER_FLOPS_H_
