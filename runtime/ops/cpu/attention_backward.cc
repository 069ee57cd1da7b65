#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/bfloat16_attention.h"

namespace trireme {
namespace {

// Gradients are summed in the compute type: dk and dv over the query heads of a
// key head and their blocks of queries (the inner loops), dq over blocks of
// keys (the outer loop). Where queries differ in the keys that they see, a
// block adds to some of the rows of dk and dv only, and sums begin at zero
// instead.
template <typename T>
class Backward {
 public:
  using A = ComputeType<T>;

  Backward(const CpuAttentionProblem& problem,
           const AttentionOperands& operands,
           const AttentionGradients& gradients)
      : problem_(problem),
        operands_(operands),
        gradients_(gradients),
        blocks_(problem, 2 * (kWide ? sizeof(A) : sizeof(A) + sizeof(T))) {
    for (int64_t rows : QueryExtents(problem, blocks_)) {
      for (int64_t columns : KeyExtents(problem, blocks_)) {
        for (bool first : {true, false}) {
          for (const CpuGemmSpec& spec :
               {Scores(rows, columns, operands.q, operands.k),
                Scores(rows, columns, gradients.out, operands.v),
                KeyGradient(rows, columns, gradients.out, first),
                KeyGradient(rows, columns, operands.q, first),
                QueryGradient(rows, columns, first)}) {
            products_.Add(spec);
          }
        }
      }
    }
    WorkspaceCutter cutter;
    Cut(cutter);
    thread_bytes_ = cutter.bytes();
  }

  int64_t workspace_bytes() const { return thread_bytes_ * problem_.threads; }

  void Run(void* workspace) const {
    const int64_t items = problem_.batch * problem_.key_heads;
    const int64_t thread_count = std::min<int64_t>(problem_.threads, items);
#pragma omp parallel for schedule(static) \
    num_threads(thread_count) if (thread_count > 1)
    for (int64_t thread = 0; thread < thread_count; ++thread) {
      WorkspaceCutter cutter(static_cast<char*>(workspace) +
                             thread * thread_bytes_);
      const Buffers buffers = Cut(cutter);
      const int64_t end = (thread + 1) * items / thread_count;
      for (int64_t item = thread * items / thread_count; item < end; ++item) {
        RunKeyHead(item / problem_.key_heads, item % problem_.key_heads,
                   buffers);
      }
    }
  }

 private:
  static constexpr bool kWide = std::is_same_v<T, A>;

  struct Buffers {
    A* scores;
    A* dp;
    T* p;
    T* ds;
    A* dq;             // [queries_per_key, queries, head_dim]
    A* dk;             // [blocks_.keys, head_dim]
    A* dv;             // [blocks_.keys, head_dim]
    A* delta;          // [queries_per_key, queries]
    KeyRange* ranges;  // of rows, in a block
    void* gemm;
  };

  Buffers Cut(WorkspaceCutter& cutter) const {
    const int64_t scores = blocks_.queries * ScorePitch(blocks_.keys);
    Buffers b;
    b.scores = cutter.Cut<A>(scores);
    b.dp = cutter.Cut<A>(scores);
    if constexpr (kWide) {
      b.p = b.scores;
      b.ds = b.dp;
    } else {
      b.p = cutter.Cut<T>(scores);
      b.ds = cutter.Cut<T>(scores);
    }
    const int64_t queries = problem_.queries_per_key() * problem_.queries;
    b.dq = cutter.Cut<A>(queries * problem_.head_dim);
    b.dk = cutter.Cut<A>(blocks_.keys * problem_.head_dim);
    b.dv = cutter.Cut<A>(blocks_.keys * problem_.head_dim);
    b.delta = cutter.Cut<A>(queries);
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

  // Q·Kᵀ or dO·Vᵀ.
  CpuGemmSpec Scores(int64_t rows, int64_t columns, const HeadsPointer& a,
                     const HeadsPointer& b) const {
    CpuGemmSpec spec = Base();
    spec.m = rows;
    spec.n = columns;
    spec.k = problem_.head_dim;
    spec.a = {0, a.row_stride, 1};
    spec.b = {0, 1, b.row_stride};
    spec.out = {0, ScorePitch(columns), 1};
    return spec;
  }

  // Pᵀ·dO or dSᵀ·Q.
  CpuGemmSpec KeyGradient(int64_t rows, int64_t columns, const HeadsPointer& b,
                          bool first) const {
    CpuGemmSpec spec = Base();
    spec.m = columns;
    spec.n = problem_.head_dim;
    spec.k = rows;
    spec.a = {0, 1, ScorePitch(columns)};
    spec.b = {0, b.row_stride, 1};
    spec.out = {0, problem_.head_dim, 1};
    spec.accumulate = !first;
    return spec;
  }

  // dS·K.
  CpuGemmSpec QueryGradient(int64_t rows, int64_t columns, bool first) const {
    CpuGemmSpec spec = Base();
    spec.m = rows;
    spec.n = problem_.head_dim;
    spec.k = columns;
    spec.a = {0, ScorePitch(columns), 1};
    spec.b = {0, operands_.k.row_stride, 1};
    spec.out = {0, problem_.head_dim, 1};
    spec.accumulate = !first;
    return spec;
  }

  // Writes sums[count, head_dim] into rows of a gradient.
  void Store(const A* sums, int64_t count, const HeadsPointer& to,
             int64_t first_row, int64_t head) const {
    if (problem_.unrounded) {
      StoreAs<A>(sums, count, to, first_row, head);
    } else {
      StoreAs<T>(sums, count, to, first_row, head);
    }
  }

  template <typename Out>
  void StoreAs(const A* sums, int64_t count, const HeadsPointer& to,
               int64_t first_row, int64_t head) const {
    const int64_t head_dim = problem_.head_dim;
    ScaleRows(ScaledRows<Out>{count, head_dim, sums, head_dim, nullptr,
                              HeadRow<Out>(to, first_row, head, head_dim),
                              to.row_stride});
  }

  void StoreZeros(int64_t count, const HeadsPointer& to, int64_t first_row,
                  int64_t head) const {
    if (problem_.unrounded) {
      StoreZerosAs<A>(count, to, first_row, head);
    } else {
      StoreZerosAs<T>(count, to, first_row, head);
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

  void RunKeyHead(int64_t sample, int64_t key_head,
                  const Buffers& buffers) const {
    const CpuAttentionProblem& p = problem_;
    const int64_t count = p.masked ? operands_.key_counts[sample] : p.keys;
    const int64_t query_row = sample * p.queries;
    const int64_t key_row = sample * p.keys;
    const int64_t group = p.queries_per_key();
    for (int64_t member = 0; member < group; ++member) {
      const int64_t head = key_head * group + member;
      if (count == 0) {
        StoreZeros(p.queries, gradients_.q, query_row, head);
      } else {
        RowDots(
            RowPairs<T>{p.queries, p.head_dim,
                        HeadRow<T>(gradients_.out, query_row, head, p.head_dim),
                        gradients_.out.row_stride,
                        HeadRow<T>(operands_.out, query_row, head, p.head_dim),
                        operands_.out.row_stride},
            buffers.delta + member * p.queries);
      }
    }
    if (p.ranged()) {
      std::fill_n(buffers.dq, group * p.queries * p.head_dim, A{0});
    }
    int64_t stored = 0;
    for (int64_t key = 0; key < count; key += blocks_.keys) {
      if (p.ranged()) {
        std::fill_n(buffers.dk, blocks_.keys * p.head_dim, A{0});
        std::fill_n(buffers.dv, blocks_.keys * p.head_dim, A{0});
      }
      for (int64_t member = 0; member < group; ++member) {
        for (int64_t query = 0; query < p.queries; query += blocks_.queries) {
          RunBlock({sample, key_head, member, query,
                    std::min(blocks_.queries, p.queries - query), key, count},
                   buffers);
        }
      }
      const KeyRange all = MultipliedKeys(p, blocks_, {0, count}, key);
      Store(buffers.dk, all.end - key, gradients_.k, key_row + key, key_head);
      Store(buffers.dv, all.end - key, gradients_.v, key_row + key, key_head);
      stored = all.end;
    }
    for (int64_t member = 0; count > 0 && member < group; ++member) {
      Store(buffers.dq + member * p.queries * p.head_dim, p.queries,
            gradients_.q, query_row, key_head * group + member);
    }
    StoreZeros(p.keys - stored, gradients_.k, key_row + stored, key_head);
    StoreZeros(p.keys - stored, gradients_.v, key_row + stored, key_head);
  }

  // Queries [query, query + rows) of one query head against the block of keys
  // that begins at `key`.
  struct Block {
    int64_t sample;
    int64_t key_head;
    int64_t member;  // of the key head's query heads
    int64_t query;
    int64_t rows;
    int64_t key;
    int64_t key_count;
  };

  void RunBlock(const Block& block, const Buffers& buffers) const {
    const CpuAttentionProblem& p = problem_;
    const auto& [sample, key_head, member, query, rows, key, key_count] = block;
    const KeyRange keys = MultipliedKeys(
        p, blocks_, VisibleToBlock(p, query, rows, key_count), key);
    const int64_t columns = keys.end - keys.begin;
    if (columns == 0) return;
    const int64_t head = key_head * p.queries_per_key() + member;
    const int64_t query_row = sample * p.queries + query;
    const int64_t key_row = sample * p.keys + keys.begin;
    const T* q = HeadRow<T>(operands_.q, query_row, head, p.head_dim);
    const T* k = HeadRow<T>(operands_.k, key_row, key_head, p.head_dim);
    const T* v = HeadRow<T>(operands_.v, key_row, key_head, p.head_dim);
    const T* grad_out = HeadRow<T>(gradients_.out, query_row, head, p.head_dim);
    const A* log_sum_exp = static_cast<const A*>(operands_.log_sum_exp) +
                           (sample * p.heads + head) * p.queries + query;
    auto run = [&](const CpuGemmSpec& spec, const void* a, const void* b,
                   A* out) {
      products_.Of(spec).Run(a, b, nullptr, out, buffers.gemm);
    };
    run(Scores(rows, columns, operands_.q, operands_.k), q, k, buffers.scores);
    run(Scores(rows, columns, gradients_.out, operands_.v), grad_out, v,
        buffers.dp);
    if (p.ranged()) {
      SetRowRanges(p, query, rows, key_count, keys, buffers.ranges);
    }
    const int64_t at = member * p.queries + query;
    SoftmaxGradient(SoftmaxGradientBlock<T>{
        rows, ScorePitch(columns), std::min(columns, key_count - keys.begin),
        p.ranged() ? buffers.ranges : nullptr, static_cast<A>(p.scale),
        buffers.scores, buffers.dp, log_sum_exp, buffers.delta + at, buffers.p,
        buffers.ds});
    const bool first_queries = !p.ranged() && member == 0 && query == 0;
    const bool first_keys = !p.ranged() && key == 0;
    const int64_t sums = (keys.begin - key) * p.head_dim;
    run(KeyGradient(rows, columns, gradients_.out, first_queries), buffers.p,
        grad_out, buffers.dv + sums);
    run(KeyGradient(rows, columns, operands_.q, first_queries), buffers.ds, q,
        buffers.dk + sums);
    run(QueryGradient(rows, columns, first_keys), buffers.ds, k,
        buffers.dq + at * p.head_dim);
  }

  const CpuAttentionProblem& problem_;
  const AttentionOperands& operands_;
  const AttentionGradients& gradients_;
  const AttentionBlocks blocks_;
  AttentionProducts products_;
  int64_t thread_bytes_ = 0;
};

}  // namespace

int64_t AttentionBackwardWorkspace(const CpuAttentionProblem& problem,
                                   const AttentionOperands& operands,
                                   const AttentionGradients& gradients) {
  if (HasBFloat16Attention(problem)) {
    return BFloat16AttentionBackwardWorkspace(problem);
  }
  return DispatchFloating(problem.dtype, [&]<typename T>(T) {
    return Backward<T>(problem, operands, gradients).workspace_bytes();
  });
}

void AttentionBackwardCpu(const CpuAttentionProblem& problem,
                          const AttentionOperands& operands,
                          const AttentionGradients& gradients,
                          void* workspace) {
  if (HasBFloat16Attention(problem)) {
    BFloat16AttentionBackward(problem, operands, gradients, workspace);
    return;
  }
  DispatchFloating(problem.dtype, [&]<typename T>(T) {
    Backward<T>(problem, operands, gradients).Run(workspace);
  });
}

}  // namespace trireme
