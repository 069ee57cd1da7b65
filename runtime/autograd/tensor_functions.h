// The general ops of runtime/ops as differentiable ops, beside the layers of
// functions.h: products, elementwise ops, sums, lookups and patches of which
// new layers and losses are made. Same rules as there: one node each.

#ifndef TRIREME_RUNTIME_AUTOGRAD_TENSOR_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_TENSOR_FUNCTIONS_H_

#include <cstdint>

#include "runtime/autograd/tape.h"

namespace trireme {

// y[.., m, n] = op(a)·op(b), with a[.., m, k] ([.., k, m] transposed) and
// b[k, n] ([n, k] transposed) for all of a's leading dims, or with the same
// leading dims as a. A b for all needs an a that is not transposed (CHECKed).
Variable MatMul(Tape& tape, const Variable& a, const Variable& b,
                bool transpose_a = false, bool transpose_b = false);

// a∘b, and a·factor.
Variable Multiply(Tape& tape, const Variable& a, const Variable& b);
Variable Scale(Tape& tape, const Variable& a, double factor);

// Over the last dim.
Variable Softmax(Tape& tape, const Variable& x);

// Σ x and Σ x² as one element in the compute type (fp32; fp64 for fp64).
Variable Sum(Tape& tape, const Variable& x);
Variable SumOfSquares(Tape& tape, const Variable& x);
// y[b, h] = Σ over s of x[b, s, h].
Variable SumTokens(Tape& tape, const Variable& x);

// y[n, h] = table[indices[n], h], of a table that is computed
// (EmbeddingLookup: a parameter). indices int32 [n], in range (CHECKed).
Variable GatherRows(Tape& tape, const Variable& table, const Tensor& indices);
// y[count, h]: y[i] is the sum of the rows[n, h] whose index is i.
Variable ScatterRows(Tape& tape, const Variable& rows, const Tensor& indices,
                     int64_t count);

// x[b, c, H, W] ↔ tokens[b, (H/p)·(W/p), p·p·c] (runtime/ops/embedding.h).
Variable Patchify(Tape& tape, const Variable& x, int64_t patch);
Variable Unpatchify(Tape& tape, const Variable& tokens, int64_t patch,
                    int64_t channels, int64_t height, int64_t width);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_TENSOR_FUNCTIONS_H_
