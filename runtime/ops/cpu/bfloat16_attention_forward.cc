#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/ops/cpu/bfloat16_attention.h"
#include "runtime/ops/cpu/bfloat16_dot.h"

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

class Forward : public Pass {
 public:
  Forward(const CpuAttentionProblem& problem, const AttentionOperands& operands)
      : Pass(problem, operands),
        covered_(std::min(problem.queries, kMostQueries)) {}

  int64_t thread_bytes() const {
    WorkspaceCutter cutter;
    Cut(cutter);
    return cutter.bytes();
  }

  void Run(void* workspace) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t bytes = thread_bytes();
    const int64_t parts = (p.queries + covered_ - 1) / covered_;
    ForItems(p.batch * p.heads * parts, [&](int64_t thread, int64_t item,
                                            bool more) {
      WorkspaceCutter cutter(static_cast<char*>(workspace) + thread * bytes);
      ComingRows coming;
      if (more) Coming(item + 1, parts, coming);
      const int64_t query = item % parts * covered_;
      RunItem(item / parts / p.heads, item / parts % p.heads, query,
              std::min(covered_, p.queries - query), coming, Cut(cutter));
    });
  }

 private:
  struct Buffers {
    dot::Pair* keys;
    dot::Pair* values;
    float* scores;
    BFloat16* p;
    float* out;
    float* maxima;
    float* sums;
  };

  Buffers Cut(WorkspaceCutter& cutter) const {
    const int64_t scores = blocks_.queries * blocks_.pitch;
    Buffers b;
    b.keys = cutter.Cut<dot::Pair>(blocks_.pitch * problem_.head_dim / 2);
    b.values = cutter.Cut<dot::Pair>((blocks_.keys + 1) / 2 * blocks_.width);
    b.scores = cutter.Cut<float>(scores);
    b.p = cutter.Cut<BFloat16>(scores);
    b.out = cutter.Cut<float>(covered_ * blocks_.width);
    b.maxima = cutter.Cut<float>(covered_);
    b.sums = cutter.Cut<float>(covered_);
    return b;
  }

  void Coming(int64_t item, int64_t parts, ComingRows& coming) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t sample = item / parts / p.heads;
    const int64_t head = item / parts % p.heads;
    for (const HeadsPointer& heads : {operands_.k, operands_.v}) {
      coming.Add(heads, sample * p.keys, blocks_.keys, head, p.head_dim);
    }
    const int64_t query = item % parts * covered_;
    coming.Add(operands_.q, sample * p.queries + query,
               std::min(covered_, p.queries - query), head, p.head_dim);
  }

  void RunItem(int64_t sample, int64_t head, int64_t query, int64_t rows,
               ComingRows& coming, const Buffers& b) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t count = KeyCount(sample);
    const int64_t first_row = sample * p.queries + query;
    std::fill_n(b.maxima, rows, -std::numeric_limits<float>::infinity());
    for (int64_t key = 0; key < count; key += blocks_.keys) {
      const int64_t columns = std::min(blocks_.keys, count - key);
      const int64_t key_row = sample * p.keys + key;
      PackByColumns(Row(operands_.k, key_row, head), operands_.k.row_stride,
                    columns, p.head_dim, b.keys);
      PackByRows(Row(operands_.v, key_row, head), operands_.v.row_stride,
                 columns, p.head_dim, b.values);
      for (int64_t row = 0; row < rows; row += blocks_.queries) {
        const int64_t block = std::min(blocks_.queries, rows - row);
        Scores(operands_.q, first_row + row, head, block, b.keys, columns,
               b.scores, coming);
        float* out = b.out + row * blocks_.width;
        OnlineSoftmax(OnlineSoftmaxBlock<BFloat16>{
            block, ScorePitch(columns), columns, /*ranges=*/nullptr,
            static_cast<float>(p.scale), b.scores, b.p, b.maxima + row,
            b.sums + row, out, blocks_.width});
        Weighted(dot::TiledA::Rows(b.p, ScorePitch(columns)), block, b.values,
                 columns, out, key > 0);
      }
    }
    float* log_sum_exp = static_cast<float*>(operands_.log_sum_exp) +
                         (sample * p.heads + head) * p.queries + query;
    for (int64_t row = 0; row < rows; ++row) {
      log_sum_exp[row] = count == 0 ? -std::numeric_limits<float>::infinity()
                                    : b.maxima[row] + std::log(b.sums[row]);
      b.sums[row] = 1 / b.sums[row];
    }
    if (p.unrounded) {
      Write<float>(first_row, head, count, rows, b);
    } else {
      Write<BFloat16>(first_row, head, count, rows, b);
    }
  }

  template <typename Out>
  void Write(int64_t first_row, int64_t head, int64_t count, int64_t rows,
             const Buffers& b) const {
    const int64_t head_dim = problem_.head_dim;
    Out* out = HeadRow<Out>(operands_.out, first_row, head, head_dim);
    if (count == 0) {
      for (int64_t row = 0; row < rows; ++row) {
        std::fill_n(out + row * operands_.out.row_stride, head_dim, Out{});
      }
      return;
    }
    ScaleRows(ScaledRows<Out>{rows, head_dim, b.out, blocks_.width, b.sums, out,
                              operands_.out.row_stride});
  }

  const int64_t covered_;  // queries of an item
};

}  // namespace

int64_t BFloat16AttentionForwardWorkspace(const CpuAttentionProblem& problem) {
  return Forward(problem, {}).thread_bytes() * problem.threads;
}

void BFloat16AttentionForward(const CpuAttentionProblem& problem,
                              const AttentionOperands& operands,
                              void* workspace) {
  Forward(problem, operands).Run(workspace);
}

}  // namespace trireme

#pragma GCC pop_options

namespace trireme {

bool HasBFloat16Attention(const CpuAttentionProblem& problem) {
  return UsesBFloat16Dots() && problem.dtype == DType::kBFloat16 &&
         problem.head_dim % 2 == 0 && problem.heads == problem.key_heads &&
         !problem.ranged();
}

}  // namespace trireme
