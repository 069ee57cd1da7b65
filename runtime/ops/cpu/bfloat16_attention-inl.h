// What attention's two passes in bf16 share: blocks of scores, a head's
// operands packed, the rows of the next head on their way into the cache.
// Included once in each pass's target region.

#ifndef TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_INL_H_
#define TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_INL_H_

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/bfloat16_dot-inl.h"

namespace trireme {
namespace {

// Keys, and queries in forward, that a head's packed operands and sums cover.
constexpr int64_t kMostKeys = 512;
constexpr int64_t kMostQueries = 512;
// Scores at a time: of few queries, so that they stay in the cache with all
// else; of 64 at least, since each packed key then serves eight tiles.
constexpr int64_t kScores = 1 << 15;

struct Blocks {
  int64_t keys;
  int64_t queries;  // of a block of scores
  int64_t pitch;    // of scores
  int64_t width;    // of rows of head_dim sums

  explicit Blocks(const CpuAttentionProblem& p)
      : keys(std::min(p.keys, kMostKeys)),
        pitch(ScorePitch(keys)),
        width(ScorePitch(p.head_dim)) {
    queries = std::min(
        p.queries, std::max<int64_t>(
                       64, kScores / pitch / dot::kTileRows * dot::kTileRows));
  }
};

// Rows of the head that comes next, handed out to tiles.
class ComingRows {
 public:
  // A line's end, and with it the next line's beginning, at each step.
  static constexpr int64_t kStepBytes = 128;

  void Add(const HeadsPointer& heads, int64_t first_row, int64_t rows,
           int64_t head, int64_t head_dim) {
    const auto* data =
        HeadRow<const char>({heads.data, heads.row_stride * kBytes}, first_row,
                            head, head_dim * kBytes);
    for (int64_t at = 0; at < head_dim * kBytes; at += kStepBytes) {
      if (count_ == kMost) return;
      runs_[count_++] = {data + at, heads.row_stride * kBytes, rows};
    }
  }

  dot::TilePrefetch Take(int64_t most) {
    if (taken_ == count_) return {};
    dot::TilePrefetch& run = runs_[taken_];
    dot::TilePrefetch taken = run;
    taken.count = std::min(most, run.count);
    run.data += taken.count * run.step;
    run.count -= taken.count;
    if (run.count == 0) ++taken_;
    return taken;
  }

 private:
  static constexpr int64_t kBytes = sizeof(BFloat16);
  static constexpr int kMost = 16;
  std::array<dot::TilePrefetch, kMost> runs_;
  int count_ = 0;
  int taken_ = 0;
};

// A head's rows [rows, head_dim] packed as b: by their rows, or transposed.
void PackByRows(const BFloat16* from, int64_t stride, int64_t rows,
                int64_t head_dim, dot::Pair* to) {
  dot::PackRows(from, stride, 0, rows, head_dim, (rows + 1) / 2, to);
}

void PackByColumns(const BFloat16* from, int64_t stride, int64_t rows,
                   int64_t head_dim, dot::Pair* to) {
  for (int64_t row = 0; row < rows; row += dot::kPanel) {
    dot::PackColumns(from + row * stride, stride, head_dim / 2,
                     std::min<int64_t>(dot::kPanel, rows - row),
                     to + row * (head_dim / 2));
  }
}

dot::TileOut Sums(float* data, int64_t pitch, bool adds) {
  return {reinterpret_cast<char*>(data), pitch, false, adds, nullptr};
}

// What both passes know of a problem.
class Pass {
 protected:
  Pass(const CpuAttentionProblem& problem, const AttentionOperands& operands)
      : problem_(problem), operands_(operands), blocks_(problem) {}

  int64_t KeyCount(int64_t sample) const {
    const int64_t count =
        problem_.masked ? operands_.key_counts[sample] : problem_.keys;
    CHECK(count >= 0 && count <= problem_.keys)
        << "key_counts[" << sample << "] is " << count << " of "
        << problem_.keys;
    return count;
  }

  const BFloat16* Row(const HeadsPointer& heads, int64_t row,
                      int64_t head) const {
    return HeadRow<const BFloat16>(heads, row, head, problem_.head_dim);
  }

  // scores[rows, pitch] = x·yᵀ, y packed.
  void Scores(const HeadsPointer& x, int64_t row, int64_t head, int64_t rows,
              const dot::Pair* y, int64_t columns, float* scores,
              ComingRows& coming) const {
    const int64_t pairs = problem_.head_dim / 2;
    const int64_t pitch = ScorePitch(columns);
    dot::Multiply(dot::TiledA::Rows(Row(x, row, head), x.row_stride), rows, y,
                  pitch, pairs, Sums(scores, pitch, false),
                  [&] { return coming.Take(pairs); });
  }

  // sums[rows, head_dim] (+)= p[rows, keys]·y, y packed by its rows.
  void Weighted(const dot::TiledA& p, int64_t rows, const dot::Pair* y,
                int64_t terms, float* sums, bool adds) const {
    dot::Multiply(p, rows, y, problem_.head_dim, (terms + 1) / 2,
                  Sums(sums, blocks_.width, adds),
                  [] { return dot::TilePrefetch{}; });
  }

  // Calls run(item, workspace) for each of `items`, on the problem's threads.
  template <typename F>
  void ForItems(int64_t items, F&& run) const {
    const int threads =
        static_cast<int>(std::min<int64_t>(problem_.threads, items));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      const int64_t thread = omp_get_thread_num();
      const int64_t team = omp_get_num_threads();
      const int64_t end = (thread + 1) * items / team;
      for (int64_t item = thread * items / team; item < end; ++item) {
        run(thread, item, item + 1 < end);
      }
    }
  }

  const CpuAttentionProblem problem_;
  const AttentionOperands operands_;
  const Blocks blocks_;
};

}  // namespace
}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_BFLOAT16_ATTENTION_INL_H_
