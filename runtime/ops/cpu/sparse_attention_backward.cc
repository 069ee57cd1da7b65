#include <omp.h>

#include <limits>
#include <span>

#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sparse_attention.h"
#include "runtime/ops/cpu/sparse_attention_blocks.h"
#include "runtime/ops/cpu/sparse_attention_rows.h"

namespace trireme {
namespace {

// Ranges of queries that are summed by themselves, over all key heads: threads
// that can work, and copies of one key head's gradients that there are.
constexpr int64_t kRanges = 16;
// Fewer queries are not worth a range.
constexpr int64_t kLeastRange = 64;

// A branch's gradient is that of attention whose output's gradient is scaled by
// the gate. The queries' gradients are summed over branches in the compute
// type, those of keys and values over branches and queries.
template <typename T>
class Backward {
 public:
  using A = ComputeType<T>;

  Backward(const SparseAttentionProblem& problem,
           const SparseAttentionOperands& operands,
           const SparseAttentionGradients& gradients, int threads,
           void* workspace = nullptr)
      : p_(problem),
        operands_(operands),
        gradients_(gradients),
        threads_(threads),
        ranges_(RangesOf(problem)),
        range_((problem.queries + ranges_ - 1) / ranges_),
        gathered_(problem),
        specs_(problem.head_dim),
        cutter_(workspace),
        packed_(problem, cutter_) {
    for (const int64_t keys : BlockExtents(p_)) {
      for (const int64_t queries : gathered_.extents()) {
        const int64_t rows = queries * group();
        products_.Add(specs_.Scores(rows, keys));
        products_.Add(specs_.Values(rows, keys, p_.head_dim));
        products_.Add(specs_.KeySums(rows, keys));
      }
    }
    const int64_t queries = p_.batch * p_.queries;
    scaled_ = cutter_.Cut<T>(queries * width());
    delta_ = cutter_.Cut<A>(p_.batch * p_.heads * p_.queries);
    gates_ = cutter_.Cut<A>(queries * kSparseBranches);
    dq_ = cutter_.Cut<A>(queries * width());
    compressed_dk_ = cutter_.Cut<A>(p_.batch * p_.most_small * key_width());
    compressed_dv_ = cutter_.Cut<A>(p_.batch * p_.most_small * key_width());
    dk_ = cutter_.Cut<A>(ranges_ * p_.keys * key_width());
    dv_ = cutter_.Cut<A>(ranges_ * p_.keys * key_width());
    for (int i = 0; i < threads; ++i) buffers_.push_back(Cut());
    dense_workspace_ = cutter_.Cut<char>(AttentionBackwardWorkspace(
        DenseProblem(), DenseOperands(), DenseGradients()));
  }

  int64_t workspace_bytes() const { return cutter_.bytes(); }

  void Run() {
    ScaleOutputGradient(kCompressedBranch);
    AttentionBackwardCpu(DenseProblem(), DenseOperands(), DenseGradients(),
                         dense_workspace_);
    Round(compressed_dk_, p_.most_small, gradients_.compressed_k, p_.key_heads);
    Round(compressed_dv_, p_.most_small, gradients_.compressed_v, p_.key_heads);
    for (int64_t sample = 0; sample < p_.batch; ++sample) {
      ForRanges([&](int64_t key_head, int64_t range, Buffers&) {
        ClearKeySums(key_head, range);
      });
      for (const SparseBranch branch : {kSelectedBranch, kWindowBranch}) {
        ScaleOutputGradient(branch, sample);
        const BlockLists lists = ListsOf(p_, operands_, branch, sample);
        packed_.Pack(operands_, sample, lists, threads_);
        ForRanges([&](int64_t key_head, int64_t range, Buffers& b) {
          AddGradients(sample, lists, key_head, range, b);
        });
      }
      RoundKeySums(dk_, sample, gradients_.k);
      RoundKeySums(dv_, sample, gradients_.v);
    }
    Round(dq_, p_.queries, gradients_.q, p_.heads);
    T* gates = static_cast<T*>(gradients_.gates);
    for (int64_t i = 0; i < p_.batch * p_.queries * kSparseBranches; ++i) {
      gates[i] = T(gates_[i]);
    }
  }

 private:
  struct Buffers {
    A* scores;  // [rows, keys of a block]
    A* dp;
    T* p;
    T* ds;
    T* q;    // [rows, head_dim], gathered
    T* out;  // likewise: the output's gradient
    A* log_sum_exp;
    A* delta;
    A* dq;  // [rows, head_dim]
    A* dk;  // [keys of a block, head_dim]
    A* dv;
    InvertedLists lists;
    void* gemm;
  };

  Buffers Cut() {
    const int64_t keys = BlockExtents(p_).back();
    const int64_t rows = gathered_.most() * group();
    return {
        .scores = cutter_.Cut<A>(rows * keys),
        .dp = cutter_.Cut<A>(rows * keys),
        .p = cutter_.Cut<T>(rows * keys),
        .ds = cutter_.Cut<T>(rows * keys),
        .q = cutter_.Cut<T>(rows * p_.head_dim),
        .out = cutter_.Cut<T>(rows * p_.head_dim),
        .log_sum_exp = cutter_.Cut<A>(rows),
        .delta = cutter_.Cut<A>(rows),
        .dq = cutter_.Cut<A>(rows * p_.head_dim),
        .dk = cutter_.Cut<A>(keys * p_.head_dim),
        .dv = cutter_.Cut<A>(keys * p_.head_dim),
        .lists = {p_, range_, cutter_},
        .gemm = cutter_.Cut<char>(products_.workspace_bytes()),
    };
  }

  static int64_t RangesOf(const SparseAttentionProblem& p) {
    const int64_t most = (p.queries + kLeastRange - 1) / kLeastRange;
    return std::clamp<int64_t>(kRanges / p.key_heads, 1, most);
  }

  int64_t group() const { return p_.queries_per_key(); }
  int64_t width() const { return p_.heads * p_.head_dim; }
  int64_t key_width() const { return p_.key_heads * p_.head_dim; }
  CpuAttentionProblem DenseProblem() const {
    AttentionProblem dense;
    dense.dtype = p_.dtype;
    dense.batch = p_.batch;
    dense.heads = p_.heads;
    dense.key_heads = p_.key_heads;
    dense.queries = p_.queries;
    dense.keys = p_.most_small;
    dense.head_dim = p_.head_dim;
    dense.scale = p_.scale;
    dense.masked = true;
    dense.unrounded = true;
    return {dense, threads_};
  }
  AttentionOperands DenseOperands() const {
    return {operands_.q,
            operands_.compressed_k,
            operands_.compressed_v,
            operands_.small_counts,
            PartOf(p_, operands_, kCompressedBranch),
            LogSumExpOf<A>(p_, operands_, kCompressedBranch, 0, 0)};
  }
  AttentionGradients DenseGradients() const {
    return {{scaled_, width()},
            {dq_, width()},
            {compressed_dk_, key_width()},
            {compressed_dv_, key_width()}};
  }

  // scaled = gate·dO, zeros as padding, of one sample or of all; its products
  // with the branch's output, row by row; and the gate's gradient.
  void ScaleOutputGradient(SparseBranch branch) {
    for (int64_t sample = 0; sample < p_.batch; ++sample) {
      ScaleOutputGradient(branch, sample);
    }
  }
  void ScaleOutputGradient(SparseBranch branch, int64_t sample) {
    const int64_t real = RealQueries(p_, operands_, sample);
    ParallelRows(p_.queries, width(), [&](int64_t query) {
      const int64_t row = sample * p_.queries + query;
      const T* part = HeadRow<T>(PartOf(p_, operands_, branch), row, 0, 0);
      const T* grad = static_cast<const T*>(gradients_.out) + row * width();
      T* scaled = scaled_ + row * width();
      A& gate_gradient = gates_[row * kSparseBranches + branch];
      gate_gradient = 0;
      if (query >= real) {
        std::fill_n(scaled, width(), T{});
        for (int64_t head = 0; head < p_.heads; ++head) {
          delta_[(sample * p_.heads + head) * p_.queries + query] = 0;
        }
        return;
      }
      const A gate = SigmoidOf(static_cast<A>(static_cast<const T*>(
          operands_.gates)[row * kSparseBranches + branch]));
      for (int64_t c = 0; c < width(); ++c) {
        scaled[c] = T(gate * static_cast<A>(grad[c]));
      }
      A dot = 0;
      RowDots(RowPairs<T>{1, width(), grad, width(), part, width()}, &dot);
      gate_gradient = gate * (1 - gate) * dot;
      for (int64_t head = 0; head < p_.heads; ++head) {
        RowDots(
            RowPairs<T>{1, p_.head_dim, scaled + head * p_.head_dim,
                        p_.head_dim, part + head * p_.head_dim, p_.head_dim},
            &delta_[(sample * p_.heads + head) * p_.queries + query]);
      }
    });
  }

  // Rounds sums[batch, tokens, heads, head_dim] into a gradient.
  void Round(const A* sums, int64_t tokens, const HeadsPointer& to,
             int64_t heads) const {
    const int64_t columns = heads * p_.head_dim;
    ParallelRows(p_.batch * tokens, columns, [&](int64_t row) {
      ScaleRows(ScaledRows<T>{1, columns, sums + row * columns, columns,
                              nullptr, HeadRow<T>(to, row, 0, 0),
                              to.row_stride});
    });
  }

  // f(key head, range of queries, buffers), on all threads.
  template <typename F>
  void ForRanges(const F& f) {
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (int64_t item = 0; item < p_.key_heads * ranges_; ++item) {
      f(item / ranges_, item % ranges_, buffers_[omp_get_thread_num()]);
    }
  }

  // Adds the ranges' sums up, and rounds them into a sample's gradient.
  void RoundKeySums(A* sums, int64_t sample, const HeadsPointer& to) const {
    const int64_t d = p_.head_dim;
    ParallelRows(p_.key_heads * p_.keys, d * ranges_, [&](int64_t i) {
      const int64_t key_head = i / p_.keys, key = i % p_.keys;
      A* total = sums + KeySumsOf(key_head, 0) + key * d;
      for (int64_t range = 1; range < ranges_; ++range) {
        const A* more = sums + KeySumsOf(key_head, range) + key * d;
        for (int64_t c = 0; c < d; ++c) total[c] += more[c];
      }
      ScaleRows(ScaledRows<T>{
          1, d, total, d, nullptr,
          HeadRow<T>(to, sample * p_.keys + key, key_head, d), to.row_stride});
    });
  }

  // A key head's part of a range's sums: [keys, head_dim].
  int64_t KeySumsOf(int64_t key_head, int64_t range) const {
    return (range * p_.key_heads + key_head) * p_.keys * p_.head_dim;
  }
  void ClearKeySums(int64_t key_head, int64_t range) {
    const int64_t at = KeySumsOf(key_head, range);
    std::fill_n(dk_ + at, p_.keys * p_.head_dim, A{0});
    std::fill_n(dv_ + at, p_.keys * p_.head_dim, A{0});
  }

  // All gradients of a branch that come from a range's queries of a key head.
  void AddGradients(int64_t sample, const BlockLists& lists, int64_t key_head,
                    int64_t range, Buffers& b) const {
    const int64_t real = RealQueries(p_, operands_, sample);
    const int64_t begin = std::min(range * range_, real);
    b.lists.Invert(lists, key_head, begin, std::min(begin + range_, real));
    const int64_t d = p_.head_dim;
    for (int64_t block = 0; block < lists.blocks(); ++block) {
      const std::span<const int32_t> queries = b.lists.QueriesOf(block);
      if (queries.empty()) continue;
      const int64_t keys = PaddedKeys(lists.size(block));
      std::fill_n(b.dk, keys * d, A{0});
      std::fill_n(b.dv, keys * d, A{0});
      gathered_.ForParts(queries, [&](auto part, int64_t extent) {
        AddPart(sample, lists, key_head, block, part, extent, b);
      });
      for (int64_t i = 0; i < lists.size(block); ++i) {
        const int64_t token = lists.order[lists.offsets[block] + i];
        const int64_t at = KeySumsOf(key_head, range) + token * d;
        for (int64_t c = 0; c < d; ++c) {
          dk_[at + c] += b.dk[i * d + c];
          dv_[at + c] += b.dv[i * d + c];
        }
      }
    }
  }
  // Of some queries and one block; those of its keys to the buffer.
  void AddPart(int64_t sample, const BlockLists& lists, int64_t key_head,
               int64_t block, std::span<const int32_t> queries, int64_t extent,
               Buffers& b) const {
    const int64_t rows = extent * group();
    const int64_t keys = PaddedKeys(lists.size(block));
    const T* k = packed_.k(key_head, block);
    const T* v = packed_.v(key_head, block);
    Gather(sample, lists.branch, key_head * group(), queries, rows, b);
    const Gemm& scores = products_.Of(specs_.Scores(rows, keys));
    scores.Run(b.q, k, nullptr, b.scores, b.gemm);
    scores.Run(b.out, v, nullptr, b.dp, b.gemm);
    SoftmaxGradient(SoftmaxGradientBlock<T>{
        rows, keys, lists.size(block), nullptr, static_cast<A>(p_.scale),
        b.scores, b.dp, b.log_sum_exp, b.delta, b.p, b.ds});
    const Gemm& sums = products_.Of(specs_.KeySums(rows, keys));
    sums.Run(b.p, b.out, nullptr, b.dv, b.gemm);
    sums.Run(b.ds, b.q, nullptr, b.dk, b.gemm);
    products_.Of(specs_.Values(rows, keys, p_.head_dim))
        .Run(b.ds, k, nullptr, b.dq, b.gemm);
    const int64_t row_width = group() * p_.head_dim;
    for (size_t i = 0; i < queries.size(); ++i) {
      A* dq = dq_ + (sample * p_.queries + queries[i]) * width() +
              key_head * row_width;
      const A* added = b.dq + i * row_width;
      for (int64_t c = 0; c < row_width; ++c) dq[c] += added[c];
    }
  }

  // The heads of some queries, one query after the other; the buffer's other
  // rows add nothing.
  void Gather(int64_t sample, SparseBranch branch, int64_t first_head,
              std::span<const int32_t> queries, int64_t rows,
              Buffers& b) const {
    const int64_t row_width = group() * p_.head_dim;
    for (size_t i = 0; i < queries.size(); ++i) {
      const int64_t row = sample * p_.queries + queries[i];
      std::copy_n(HeadRow<T>(operands_.q, row, first_head, p_.head_dim),
                  row_width, b.q + i * row_width);
      std::copy_n(scaled_ + row * width() + first_head * p_.head_dim, row_width,
                  b.out + i * row_width);
      for (int64_t head = 0; head < group(); ++head) {
        const int64_t at = i * group() + head;
        b.log_sum_exp[at] = LogSumExpOf<A>(p_, operands_, branch, sample,
                                           first_head + head)[queries[i]];
        b.delta[at] =
            delta_[(sample * p_.heads + first_head + head) * p_.queries +
                   queries[i]];
      }
    }
    const auto used = static_cast<int64_t>(queries.size()) * group();
    std::fill(b.q + used * p_.head_dim, b.q + rows * p_.head_dim, T{});
    std::fill(b.out + used * p_.head_dim, b.out + rows * p_.head_dim, T{});
    std::fill(b.log_sum_exp + used, b.log_sum_exp + rows,
              std::numeric_limits<A>::infinity());
    std::fill(b.delta + used, b.delta + rows, A{0});
  }

  const SparseAttentionProblem& p_;
  const SparseAttentionOperands& operands_;
  const SparseAttentionGradients& gradients_;
  int threads_;
  int64_t ranges_;
  int64_t range_;  // queries
  GatheredQueries gathered_;
  BlockProducts<T> specs_;
  AttentionProducts products_;
  WorkspaceCutter cutter_;
  PackedKeys<T> packed_;
  T* scaled_;         // [batch, queries, heads, head_dim]
  A* delta_;          // [batch, heads, queries]
  A* gates_;          // [batch, queries, branches]: their gradients
  A* dq_;             // as scaled_
  A* compressed_dk_;  // [batch, most_small, key_heads, head_dim]
  A* compressed_dv_;
  A* dk_;  // [ranges, key_heads, keys, head_dim], of one sample
  A* dv_;
  std::vector<Buffers> buffers_;
  void* dense_workspace_;
};

}  // namespace

int64_t SparseAttentionBackwardWorkspace(
    const SparseAttentionProblem& problem,
    const SparseAttentionOperands& operands,
    const SparseAttentionGradients& gradients, int threads) {
  return DispatchFloating(problem.dtype, [&]<typename T>(T) {
    return Backward<T>(problem, operands, gradients, threads).workspace_bytes();
  });
}

void SparseAttentionBackwardCpu(const SparseAttentionProblem& problem,
                                const SparseAttentionOperands& operands,
                                const SparseAttentionGradients& gradients,
                                int threads, void* workspace) {
  DispatchFloating(problem.dtype, [&]<typename T>(T) {
    Backward<T>(problem, operands, gradients, threads, workspace).Run();
  });
}

}  // namespace trireme
