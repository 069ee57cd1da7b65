// Attention inside the windows of a picture's tokens, as Swin Transformer V2
// has it (Liu et al., "Swin Transformer V2: scaling up capacity and
// resolution", sections 3.2 and 3.3, and Liu et al., "Swin Transformer",
// section 3.2):
//
//   score(i, j) = τ·cos(q_i, k_j) + 16·sigmoid(bias[y_i − y_j, x_i − x_j])
//   out_i       = Σ over j of softmax(score(i, ·))_j · v_j
//
// with τ = exp(min(log_scale, log 100)), over the tokens j of i's window.
// Tokens lie row by row; windows are those of the picture rolled by `shift`
// rows up and columns left, so that the ones at its lower and right ends hold
// tokens from both ends, which do not see each other. (The paper's code adds
// −100 to the scores of such pairs.)
//
// Nothing is kept but the operands: scores are found again in backward.

#ifndef TRIREME_RUNTIME_OPS_WINDOW_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_WINDOW_ATTENTION_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/window_attention.h"

namespace trireme {

struct WindowLayout {
  // In tokens; multiples of window.
  int64_t height = 0;
  int64_t width = 0;
  int64_t window = 0;
  int64_t shift = 0;  // less than window

  // Rows of the table of biases.
  int64_t differences() const { return (2 * window - 1) * (2 * window - 1); }
};

// qkv[b, height·width, 3·heads·head_dim] (q, k and v one after the other),
// log_scales[heads] and biases[differences, heads], row
// (y_i − y_j + window − 1)·(2·window − 1) + x_i − x_j + window − 1, all of one
// dtype → [b, height·width, heads·head_dim]. Channels of a head follow from
// the shapes.
Tensor WindowAttentionForward(const WindowLayout& layout, const Tensor& qkv,
                              const Tensor& log_scales, const Tensor& biases);

struct WindowAttentionBackwardResult {
  Tensor qkv;         // as qkv
  Tensor log_scales;  // [heads], of the compute type
  Tensor biases;      // as biases
};
WindowAttentionBackwardResult WindowAttentionBackward(
    const WindowLayout& layout, const Tensor& qkv, const Tensor& log_scales,
    const Tensor& biases, const Tensor& grad_out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_WINDOW_ATTENTION_H_
