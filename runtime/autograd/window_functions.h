// Attention in windows (runtime/ops/window_attention.h) as a differentiable op;
// rules as in functions.h.

#ifndef TRIREME_RUNTIME_AUTOGRAD_WINDOW_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_WINDOW_FUNCTIONS_H_

#include "runtime/autograd/tape.h"
#include "runtime/ops/window_attention.h"

namespace trireme {

// qkv[b, height·width, 3·heads·head_dim], log_scales[heads] and
// biases[differences, heads] → [b, height·width, heads·head_dim]. Keeps its
// operands only.
Variable WindowAttention(Tape& tape, const WindowLayout& layout,
                         const Variable& qkv, Parameter& log_scales,
                         const Variable& biases);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_WINDOW_FUNCTIONS_H_
