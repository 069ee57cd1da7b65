// The vectorised loops between the matrix products of attention. T is the type
// of the operands (bf16, float or double), A = ComputeType<T> that of scores.
//
// Blocks of scores are [rows, columns] with `columns` rounded up to
// kScoreColumns (a "pitch"): no loop has a scalar tail, and whatever lies
// beyond the `valid` columns, or outside ranges[row] where there are ranges,
// becomes probability 0. For float and double, probabilities may overwrite the
// scores.

#ifndef TRIREME_RUNTIME_OPS_CPU_ATTENTION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_ATTENTION_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

inline constexpr int64_t kScoreColumns = 16;

// The elements from one row of a block with `columns` columns to the next.
inline int64_t ScorePitch(int64_t columns) {
  return (columns + kScoreColumns - 1) / kScoreColumns * kScoreColumns;
}

// The columns of a row of a block that count.
template <typename Block>
KeyRange RowRange(const Block& block, int64_t row) {
  return block.ranges == nullptr ? KeyRange{0, block.valid} : block.ranges[row];
}

// One more block of keys of a softmax over rows. On entry row r has seen scores
// with the maximum maxima[r] (−inf before the first block), the sum sums[r] of
// their exponentials relative to it, and the weighted values out[r, out_pitch];
// on return p holds this block's exponentials relative to the new maximum, and
// the others are rescaled to it. A row whose range is empty stays as it was.
template <typename T>
struct OnlineSoftmaxBlock {
  using A = ComputeType<T>;
  int64_t rows;
  int64_t pitch;
  int64_t valid;           // at least 1
  const KeyRange* ranges;  // [rows], null: [0, valid) for each
  A scale;                 // positive
  const A* scores;
  T* p;
  A* maxima;
  A* sums;
  A* out;
  int64_t out_pitch;
};

void OnlineSoftmax(const OnlineSoftmaxBlock<BFloat16>& block);
void OnlineSoftmax(const OnlineSoftmaxBlock<Float16>& block);
void OnlineSoftmax(const OnlineSoftmaxBlock<float>& block);
void OnlineSoftmax(const OnlineSoftmaxBlock<double>& block);

// The same block in the backward pass: p = exp(scale·score − log_sum_exp) and
// the gradient of the scores before scaling, ds = scale·p∘(dp − delta).
template <typename T>
struct SoftmaxGradientBlock {
  using A = ComputeType<T>;
  int64_t rows;
  int64_t pitch;
  int64_t valid;
  const KeyRange* ranges;  // see OnlineSoftmaxBlock
  A scale;
  const A* scores;
  const A* dp;
  const A* log_sum_exp;
  const A* delta;
  T* p;
  T* ds;
};

void SoftmaxGradient(const SoftmaxGradientBlock<BFloat16>& block);
void SoftmaxGradient(const SoftmaxGradientBlock<Float16>& block);
void SoftmaxGradient(const SoftmaxGradientBlock<float>& block);
void SoftmaxGradient(const SoftmaxGradientBlock<double>& block);

// to[r, columns] = from[r, columns]·factors[r], or copies without factors.
template <typename T>
struct ScaledRows {
  using A = ComputeType<T>;
  int64_t rows;
  int64_t columns;
  const A* from;
  int64_t from_pitch;
  const A* factors;  // may be null
  T* to;
  int64_t to_pitch;
};

void ScaleRows(const ScaledRows<BFloat16>& x);
void ScaleRows(const ScaledRows<Float16>& x);
void ScaleRows(const ScaledRows<float>& x);
void ScaleRows(const ScaledRows<double>& x);

// Rows of two matrices.
template <typename T>
struct RowPairs {
  int64_t rows;
  int64_t columns;
  const T* a;
  int64_t a_pitch;
  const T* b;
  int64_t b_pitch;
};

// dots[r] = Σ a[r, i]·b[r, i].
void RowDots(const RowPairs<BFloat16>& x, float* dots);
void RowDots(const RowPairs<Float16>& x, float* dots);
void RowDots(const RowPairs<float>& x, float* dots);
void RowDots(const RowPairs<double>& x, double* dots);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ATTENTION_KERNELS_H_
