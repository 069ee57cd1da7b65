#include <cmath>
#include <limits>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/bfloat16_attention.h"

namespace trireme {
namespace {

template <typename T>
class Forward {
 public:
  using A = ComputeType<T>;

  Forward(const CpuAttentionProblem& problem, const AttentionOperands& operands)
      : problem_(problem),
        operands_(operands),
        blocks_(problem, kWide ? sizeof(A) : sizeof(A) + sizeof(T)),
        out_pitch_(ScorePitch(problem.head_dim)) {
    for (int64_t rows : QueryExtents(problem, blocks_)) {
      for (int64_t columns : KeyExtents(problem, blocks_)) {
        for (const CpuGemmSpec& spec :
             {Scores(rows, columns), Values(rows, columns, true),
              Values(rows, columns, false)}) {
          products_.Add(spec);
        }
      }
    }
    WorkspaceCutter cutter;
    Cut(cutter);
    thread_bytes_ = cutter.bytes();
  }

  int64_t workspace_bytes() const { return thread_bytes_ * problem_.threads; }

  void Run(void* workspace) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t query_blocks =
        (p.queries + blocks_.queries - 1) / blocks_.queries;
    const int64_t items = p.batch * p.heads * query_blocks;
    const int64_t thread_count = std::min<int64_t>(p.threads, items);
#pragma omp parallel for schedule(static) \
    num_threads(thread_count) if (thread_count > 1)
    for (int64_t thread = 0; thread < thread_count; ++thread) {
      WorkspaceCutter cutter(static_cast<char*>(workspace) +
                             thread * thread_bytes_);
      const Buffers buffers = Cut(cutter);
      const int64_t end = (thread + 1) * items / thread_count;
      for (int64_t item = thread * items / thread_count; item < end; ++item) {
        const int64_t begin = item % query_blocks * blocks_.queries;
        RunBlock(item / query_blocks / p.heads, item / query_blocks % p.heads,
                 begin, std::min(blocks_.queries, p.queries - begin), buffers);
      }
    }
  }

 private:
  static constexpr bool kWide = std::is_same_v<T, A>;

  struct Buffers {
    A* scores;
    T* p;
    A* out;
    A* maxima;
    A* sums;
    KeyRange* ranges;  // of rows, in a block
    void* gemm;
  };

  Buffers Cut(WorkspaceCutter& cutter) const {
    const int64_t scores = blocks_.queries * ScorePitch(blocks_.keys);
    Buffers b;
    b.scores = cutter.Cut<A>(scores);
    if constexpr (kWide) {
      b.p = b.scores;
    } else {
      b.p = cutter.Cut<T>(scores);
    }
    b.out = cutter.Cut<A>(blocks_.queries * out_pitch_);
    b.maxima = cutter.Cut<A>(blocks_.queries);
    b.sums = cutter.Cut<A>(blocks_.queries);
    b.ranges = cutter.Cut<KeyRange>(problem_.ranged() ? blocks_.queries : 0);
    b.gemm = cutter.Cut<char>(products_.workspace_bytes());
    return b;
  }

  CpuGemmSpec Base() const {
    CpuGemmSpec spec;
    spec.dtype = DTypeOf<T>();
    spec.out_dtype = DTypeOf<A>();
    return spec;
  }

  // Q·Kᵀ.
  CpuGemmSpec Scores(int64_t rows, int64_t columns) const {
    CpuGemmSpec spec = Base();
    spec.m = rows;
    spec.n = columns;
    spec.k = problem_.head_dim;
    spec.a = {0, operands_.q.row_stride, 1};
    spec.b = {0, 1, operands_.k.row_stride};
    spec.out = {0, ScorePitch(columns), 1};
    return spec;
  }

  // P·V, added to the earlier blocks'.
  CpuGemmSpec Values(int64_t rows, int64_t columns, bool first) const {
    CpuGemmSpec spec = Base();
    spec.m = rows;
    spec.n = problem_.head_dim;
    spec.k = columns;
    spec.a = {0, ScorePitch(columns), 1};
    spec.b = {0, operands_.v.row_stride, 1};
    spec.out = {0, out_pitch_, 1};
    spec.accumulate = !first;
    return spec;
  }

  void RunBlock(int64_t sample, int64_t head, int64_t begin, int64_t rows,
                const Buffers& buffers) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t count = p.masked ? operands_.key_counts[sample] : p.keys;
    CHECK(count >= 0 && count <= p.keys)
        << "key_counts[" << sample << "] is " << count << " of " << p.keys;
    const int64_t first_row = sample * p.queries + begin;
    A* log_sum_exp = static_cast<A*>(operands_.log_sum_exp) +
                     (sample * p.heads + head) * p.queries + begin;
    std::fill_n(buffers.maxima, rows, -std::numeric_limits<A>::infinity());
    const int64_t key_head = head / p.queries_per_key();
    const KeyRange visible = VisibleToBlock(p, begin, rows, count);
    bool first = true;
    for (int64_t key = visible.begin / blocks_.keys * blocks_.keys;
         key < visible.end; key += blocks_.keys) {
      const KeyRange keys = MultipliedKeys(p, blocks_, visible, key);
      const int64_t columns = keys.end - keys.begin;
      if (columns == 0) continue;
      const int64_t key_row = sample * p.keys + keys.begin;
      products_.Of(Scores(rows, columns))
          .Run(HeadRow<T>(operands_.q, first_row, head, p.head_dim),
               HeadRow<T>(operands_.k, key_row, key_head, p.head_dim), nullptr,
               buffers.scores, buffers.gemm);
      if (p.ranged()) {
        SetRowRanges(p, begin, rows, count, keys, buffers.ranges);
      }
      OnlineSoftmax(OnlineSoftmaxBlock<T>{
          rows, ScorePitch(columns), std::min(columns, count - keys.begin),
          p.ranged() ? buffers.ranges : nullptr, static_cast<A>(p.scale),
          buffers.scores, buffers.p, buffers.maxima, buffers.sums, buffers.out,
          out_pitch_});
      products_.Of(Values(rows, columns, first))
          .Run(buffers.p,
               HeadRow<T>(operands_.v, key_row, key_head, p.head_dim), nullptr,
               buffers.out, buffers.gemm);
      first = false;
    }
    // A row that saw no key has the sum 0 of values.
    for (int64_t row = 0; row < rows; ++row) {
      const A maximum = buffers.maxima[row];
      const bool none = maximum == -std::numeric_limits<A>::infinity();
      log_sum_exp[row] = none ? maximum : maximum + std::log(buffers.sums[row]);
      buffers.sums[row] = none ? A{0} : 1 / buffers.sums[row];
    }
    if (first) std::fill_n(buffers.out, rows * out_pitch_, A{0});
    if (p.unrounded) {
      WriteRows<A>(first_row, head, rows, buffers);
    } else {
      WriteRows<T>(first_row, head, rows, buffers);
    }
  }

  // Output rows from their sums and the inverses of the sums' weights.
  template <typename Out>
  void WriteRows(int64_t first_row, int64_t head, int64_t rows,
                 const Buffers& buffers) const {
    const int64_t head_dim = problem_.head_dim;
    ScaleRows(
        ScaledRows<Out>{rows, head_dim, buffers.out, out_pitch_, buffers.sums,
                        HeadRow<Out>(operands_.out, first_row, head, head_dim),
                        operands_.out.row_stride});
  }

  const CpuAttentionProblem& problem_;
  const AttentionOperands& operands_;
  const AttentionBlocks blocks_;
  const int64_t out_pitch_;
  AttentionProducts products_;
  int64_t thread_bytes_ = 0;
};

}  // namespace

int64_t AttentionForwardWorkspace(const CpuAttentionProblem& problem,
                                  const AttentionOperands& operands) {
  if (HasBFloat16Attention(problem)) {
    return BFloat16AttentionForwardWorkspace(problem);
  }
  return DispatchFloating(problem.dtype, [&]<typename T>(T) {
    return Forward<T>(problem, operands).workspace_bytes();
  });
}

void AttentionForwardCpu(const CpuAttentionProblem& problem,
                         const AttentionOperands& operands, void* workspace) {
  if (HasBFloat16Attention(problem)) {
    BFloat16AttentionForward(problem, operands, workspace);
    return;
  }
  DispatchFloating(problem.dtype, [&]<typename T>(T) {
    Forward<T>(problem, operands).Run(workspace);
  });
}

}  // namespace trireme
