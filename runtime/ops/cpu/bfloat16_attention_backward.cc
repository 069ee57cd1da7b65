#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/ops/cpu/bfloat16_attention.h"

// GCC 12 finds the intrinsics' own undefined vectors uninitialized.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

// All that follows is reached only where UsesBFloat16Dots(). Headers are
// included before, so that nothing of theirs is compiled for it.
#pragma GCC push_options
#pragma GCC target( \
    "avx512f,avx512bw,avx512vl,avx512bf16,prefer-vector-width=512")

#include "runtime/ops/cpu/bfloat16_attention-inl.h"

namespace trireme {
namespace {

// dk and dv are summed over blocks of queries (the inner loop), dq over blocks
// of keys (the outer loop), all in fp32.
class Backward : public Pass {
 public:
  Backward(const CpuAttentionProblem& problem,
           const AttentionOperands& operands,
           const AttentionGradients& gradients)
      : Pass(problem, operands), gradients_(gradients) {}

  int64_t thread_bytes() const {
    WorkspaceCutter cutter;
    Cut(cutter);
    return cutter.bytes();
  }

  void Run(void* workspace) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t bytes = thread_bytes();
    ForItems(p.batch * p.heads, [&](int64_t thread, int64_t item, bool more) {
      WorkspaceCutter cutter(static_cast<char*>(workspace) + thread * bytes);
      ComingRows coming;
      if (more) Coming((item + 1) / p.heads, (item + 1) % p.heads, coming);
      Written(item / p.heads, item % p.heads, coming);
      RunHead(item / p.heads, item % p.heads, coming, Cut(cutter));
    });
  }

 private:
  struct Buffers {
    dot::Pair* keys_by_column;
    dot::Pair* keys_by_row;
    dot::Pair* values_by_column;
    dot::Pair* queries_by_row;   // of a block
    dot::Pair* grad_out_by_row;  // of a block
    dot::Pair* transposed;       // p or ds of a block
    float* scores;
    float* dp;
    BFloat16* p;
    BFloat16* ds;
    float* dq;
    float* dk;
    float* dv;
    float* delta;
  };

  Buffers Cut(WorkspaceCutter& cutter) const {
    const int64_t scores = blocks_.queries * blocks_.pitch;
    const int64_t by_column = blocks_.pitch * problem_.head_dim / 2;
    const int64_t block = (blocks_.queries + 1) / 2 * blocks_.width;
    Buffers b;
    b.keys_by_column = cutter.Cut<dot::Pair>(by_column);
    b.keys_by_row =
        cutter.Cut<dot::Pair>((blocks_.keys + 1) / 2 * blocks_.width);
    b.values_by_column = cutter.Cut<dot::Pair>(by_column);
    b.queries_by_row = cutter.Cut<dot::Pair>(block);
    b.grad_out_by_row = cutter.Cut<dot::Pair>(block);
    b.transposed =
        cutter.Cut<dot::Pair>((blocks_.queries + 1) / 2 * blocks_.pitch);
    b.scores = cutter.Cut<float>(scores);
    b.dp = cutter.Cut<float>(scores);
    b.p = cutter.Cut<BFloat16>(scores);
    b.ds = cutter.Cut<BFloat16>(scores);
    b.dq = cutter.Cut<float>(problem_.queries * blocks_.width);
    b.dk = cutter.Cut<float>(blocks_.keys * blocks_.width);
    b.dv = cutter.Cut<float>(blocks_.keys * blocks_.width);
    b.delta = cutter.Cut<float>(problem_.queries);
    return b;
  }

  void Coming(int64_t sample, int64_t head, ComingRows& coming) const {
    const CpuAttentionProblem& p = problem_;
    for (const HeadsPointer& heads : {gradients_.out, operands_.out}) {
      coming.Add(heads, sample * p.queries, p.queries, head, p.head_dim);
    }
    for (const HeadsPointer& heads : {operands_.k, operands_.v}) {
      coming.Add(heads, sample * p.keys, blocks_.keys, head, p.head_dim);
    }
    coming.Add(operands_.q, sample * p.queries, p.queries, head, p.head_dim);
  }

  // What this head will write.
  void Written(int64_t sample, int64_t head, ComingRows& coming) const {
    const CpuAttentionProblem& p = problem_;
    if (p.unrounded) return;
    coming.Add(gradients_.k, sample * p.keys, p.keys, head, p.head_dim);
    coming.Add(gradients_.v, sample * p.keys, p.keys, head, p.head_dim);
    coming.Add(gradients_.q, sample * p.queries, p.queries, head, p.head_dim);
  }

  void RunHead(int64_t sample, int64_t head, ComingRows& coming,
               const Buffers& b) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t count = KeyCount(sample);
    const int64_t query_row = sample * p.queries;
    const int64_t key_row = sample * p.keys;
    if (count > 0) {
      RowDots(RowPairs<BFloat16>{p.queries, p.head_dim,
                                 Row(gradients_.out, query_row, head),
                                 gradients_.out.row_stride,
                                 Row(operands_.out, query_row, head),
                                 operands_.out.row_stride},
              b.delta);
    }
    for (int64_t key = 0; key < count; key += blocks_.keys) {
      const int64_t columns = std::min(blocks_.keys, count - key);
      const BFloat16* k = Row(operands_.k, key_row + key, head);
      PackByColumns(k, operands_.k.row_stride, columns, p.head_dim,
                    b.keys_by_column);
      PackByRows(k, operands_.k.row_stride, columns, p.head_dim, b.keys_by_row);
      PackByColumns(Row(operands_.v, key_row + key, head),
                    operands_.v.row_stride, columns, p.head_dim,
                    b.values_by_column);
      for (int64_t query = 0; query < p.queries; query += blocks_.queries) {
        RunBlock(sample, head, query,
                 std::min(blocks_.queries, p.queries - query), columns, key > 0,
                 coming, b);
      }
      Store(b.dk, columns, gradients_.k, key_row + key, head);
      Store(b.dv, columns, gradients_.v, key_row + key, head);
    }
    if (count > 0) {
      Store(b.dq, p.queries, gradients_.q, query_row, head);
    } else {
      StoreZeros(p.queries, gradients_.q, query_row, head);
    }
    StoreZeros(p.keys - count, gradients_.k, key_row + count, head);
    StoreZeros(p.keys - count, gradients_.v, key_row + count, head);
  }

  void RunBlock(int64_t sample, int64_t head, int64_t query, int64_t rows,
                int64_t columns, bool later_keys, ComingRows& coming,
                const Buffers& b) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t row = sample * p.queries + query;
    const int64_t pitch = ScorePitch(columns);
    Scores(operands_.q, row, head, rows, b.keys_by_column, columns, b.scores,
           coming);
    Scores(gradients_.out, row, head, rows, b.values_by_column, columns, b.dp,
           coming);
    const float* log_sum_exp =
        static_cast<const float*>(operands_.log_sum_exp) +
        (sample * p.heads + head) * p.queries + query;
    SoftmaxGradient(SoftmaxGradientBlock<BFloat16>{
        rows, pitch, columns, /*ranges=*/nullptr, static_cast<float>(p.scale),
        b.scores, b.dp, log_sum_exp, b.delta + query, b.p, b.ds});
    PackByRows(Row(gradients_.out, row, head), gradients_.out.row_stride, rows,
               p.head_dim, b.grad_out_by_row);
    PackByRows(Row(operands_.q, row, head), operands_.q.row_stride, rows,
               p.head_dim, b.queries_by_row);
    const int64_t pairs = (rows + 1) / 2;
    const auto key_gradient = [&](const BFloat16* weights,
                                  const dot::Pair* values, float* sums) {
      dot::PackTransposed(weights, pitch, columns, rows, b.transposed);
      Weighted(dot::TiledA::Packed(b.transposed, pairs), columns, values, rows,
               sums, query > 0);
    };
    key_gradient(b.p, b.grad_out_by_row, b.dv);
    key_gradient(b.ds, b.queries_by_row, b.dk);
    Weighted(dot::TiledA::Rows(b.ds, pitch), rows, b.keys_by_row, columns,
             b.dq + query * blocks_.width, later_keys);
  }

  // Writes sums[count, width] into rows of a gradient.
  void Store(const float* sums, int64_t count, const HeadsPointer& to,
             int64_t first_row, int64_t head) const {
    if (problem_.unrounded) {
      StoreAs<float>(sums, count, to, first_row, head);
    } else {
      StoreAs<BFloat16>(sums, count, to, first_row, head);
    }
  }

  template <typename Out>
  void StoreAs(const float* sums, int64_t count, const HeadsPointer& to,
               int64_t first_row, int64_t head) const {
    const int64_t head_dim = problem_.head_dim;
    ScaleRows(ScaledRows<Out>{count, head_dim, sums, blocks_.width, nullptr,
                              HeadRow<Out>(to, first_row, head, head_dim),
                              to.row_stride});
  }

  void StoreZeros(int64_t count, const HeadsPointer& to, int64_t first_row,
                  int64_t head) const {
    if (problem_.unrounded) {
      StoreZerosAs<float>(count, to, first_row, head);
    } else {
      StoreZerosAs<BFloat16>(count, to, first_row, head);
    }
  }

  template <typename Out>
  void StoreZerosAs(int64_t count, const HeadsPointer& to, int64_t first_row,
                    int64_t head) const {
    for (int64_t row = 0; row < count; ++row) {
      std::fill_n(HeadRow<Out>(to, first_row + row, head, problem_.head_dim),
                  problem_.head_dim, Out{});
    }
  }

  const AttentionGradients gradients_;
};

}  // namespace

int64_t BFloat16AttentionBackwardWorkspace(const CpuAttentionProblem& problem) {
  return Backward(problem, {}, {}).thread_bytes() * problem.threads;
}

void BFloat16AttentionBackward(const CpuAttentionProblem& problem,
                               const AttentionOperands& operands,
                               const AttentionGradients& gradients,
                               void* workspace) {
  Backward(problem, operands, gradients).Run(workspace);
}

}  // namespace trireme

#pragma GCC pop_options
