#include <omp.h>

#include <limits>
#include <numeric>

#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sparse_attention.h"
#include "runtime/ops/cpu/sparse_attention_blocks.h"

namespace trireme {
namespace {

// Queries that one thread takes at a time.
constexpr int64_t kQueries = 64;
// Rows of queries that are multiplied with a block of keys for its gradients.
constexpr int64_t kRows = 128;

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
        gathered_(std::max<int64_t>(1, kRows / problem.queries_per_key())),
        specs_(problem.head_dim),
        cutter_(workspace),
        packed_(problem, cutter_) {
    for (const int64_t keys : BlockExtents(p_)) {
      products_.Add(specs_.Scores(group(), keys));
      products_.Add(QueryGradient(keys));
      products_.Add(specs_.Scores(rows(), keys));
      products_.Add(specs_.KeySums(rows(), keys));
    }
    const int64_t queries = p_.batch * p_.queries;
    scaled_ = cutter_.Cut<T>(queries * width());
    delta_ = cutter_.Cut<A>(p_.batch * p_.heads * p_.queries);
    gates_ = cutter_.Cut<A>(queries * kSparseBranches);
    dq_ = cutter_.Cut<A>(queries * width());
    compressed_dk_ = cutter_.Cut<A>(p_.batch * p_.most_small * key_width());
    compressed_dv_ = cutter_.Cut<A>(p_.batch * p_.most_small * key_width());
    dk_ = cutter_.Cut<A>(p_.keys * key_width());
    dv_ = cutter_.Cut<A>(p_.keys * key_width());
    inverse_begins_ = cutter_.Cut<int32_t>(p_.key_heads * most_blocks());
    inverse_ = cutter_.Cut<int32_t>(p_.key_heads * p_.queries * p_.top_k);
    for (int i = 0; i < threads; ++i) buffers_.push_back(Cut());
    dense_workspace_ = cutter_.Cut<char>(AttentionBackwardWorkspace(
        DenseProblem(), DenseOperands(), DenseGradients()));
  }

  int64_t workspace_bytes() const { return cutter_.bytes(); }

  void Run() {
    ScaleOutputGradient(kCompressedBranch);
    AttentionBackwardCpu(DenseProblem(), DenseOperands(), DenseGradients(),
                         dense_workspace_);
    Round(compressed_dk_, p_.most_small, 0, p_.batch, gradients_.compressed_k,
          p_.key_heads);
    Round(compressed_dv_, p_.most_small, 0, p_.batch, gradients_.compressed_v,
          p_.key_heads);
    for (int64_t sample = 0; sample < p_.batch; ++sample) {
      std::fill_n(dk_, p_.keys * key_width(), A{0});
      std::fill_n(dv_, p_.keys * key_width(), A{0});
      for (const SparseBranch branch : {kSelectedBranch, kWindowBranch}) {
        ScaleOutputGradient(branch, sample);
        const BlockLists lists = ListsOf(p_, operands_, branch, sample);
        packed_.Pack(operands_, sample, lists, threads_);
        AddQueryGradients(sample, lists);
        Invert(sample, lists);
        AddKeyGradients(sample, lists);
      }
      Round(dk_, p_.keys, sample, 1, gradients_.k, p_.key_heads);
      Round(dv_, p_.keys, sample, 1, gradients_.v, p_.key_heads);
    }
    Round(dq_, p_.queries, 0, p_.batch, gradients_.q, p_.heads);
    T* gates = static_cast<T*>(gradients_.gates);
    for (int64_t i = 0; i < p_.batch * p_.queries * kSparseBranches; ++i) {
      gates[i] = T(gates_[i]);
    }
  }

 private:
  struct Buffers {
    A* scores;  // [max(group, rows), keys of a block]
    A* dp;
    T* p;
    T* ds;
    T* q;    // [rows, head_dim], gathered
    T* out;  // likewise: the output's gradient
    A* log_sum_exp;
    A* delta;
    A* dk;  // [keys of a block, head_dim]
    A* dv;
    void* gemm;
  };

  Buffers Cut() {
    const int64_t keys = BlockExtents(p_).back();
    const int64_t scores = std::max(group(), rows()) * keys;
    Buffers b;
    b.scores = cutter_.Cut<A>(scores);
    b.dp = cutter_.Cut<A>(scores);
    b.p = cutter_.Cut<T>(scores);
    b.ds = cutter_.Cut<T>(scores);
    b.q = cutter_.Cut<T>(rows() * p_.head_dim);
    b.out = cutter_.Cut<T>(rows() * p_.head_dim);
    b.log_sum_exp = cutter_.Cut<A>(rows());
    b.delta = cutter_.Cut<A>(rows());
    b.dk = cutter_.Cut<A>(keys * p_.head_dim);
    b.dv = cutter_.Cut<A>(keys * p_.head_dim);
    b.gemm = cutter_.Cut<char>(products_.workspace_bytes());
    return b;
  }

  int64_t group() const { return p_.queries_per_key(); }
  int64_t rows() const { return gathered_ * group(); }
  int64_t width() const { return p_.heads * p_.head_dim; }
  int64_t key_width() const { return p_.key_heads * p_.head_dim; }
  int64_t most_blocks() const {
    return std::max(p_.most_large, p_.most_windows) + 1;
  }

  // scores[group, keys]·keys, added where dq lies.
  CpuGemmSpec QueryGradient(int64_t keys) const {
    return specs_.Values(group(), keys, p_.head_dim, /*accumulate=*/true);
  }

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
    const int64_t real = RealQueries(p_, operands_.token_counts[sample]);
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

  // Rounds sums[samples, tokens, heads, head_dim] into a gradient, from sample
  // `first` on.
  void Round(const A* sums, int64_t tokens, int64_t first, int64_t samples,
             const HeadsPointer& to, int64_t heads) const {
    const int64_t columns = heads * p_.head_dim;
    ParallelRows(samples * tokens, columns, [&](int64_t row) {
      ScaleRows(ScaledRows<T>{
          1, columns, sums + row * columns, columns, nullptr,
          HeadRow<T>(to, first * tokens + row, 0, 0), to.row_stride});
    });
  }

  // The probabilities of `rows` rows of queries over a block's keys, and the
  // scores' gradients.
  void Probabilities(const BlockLists& lists, int64_t key_head, int64_t block,
                     int64_t rows, const T* q, const T* out, const A* lse,
                     const A* delta, Buffers& b) const {
    const int64_t keys = PaddedKeys(lists.size(block));
    const Gemm& scores = products_.Of(specs_.Scores(rows, keys));
    scores.Run(q, packed_.k(key_head, block), nullptr, b.scores, b.gemm);
    scores.Run(out, packed_.v(key_head, block), nullptr, b.dp, b.gemm);
    SoftmaxGradient(SoftmaxGradientBlock<T>{
        rows, keys, lists.size(block), nullptr, static_cast<A>(p_.scale),
        b.scores, b.dp, lse, delta, b.p, b.ds});
  }

  // The log-sum-exps and deltas of a query's heads, to rows of a buffer.
  void GatherStatistics(SparseBranch branch, int64_t sample, int64_t first_head,
                        int64_t query, A* lse, A* delta) const {
    for (int64_t i = 0; i < group(); ++i) {
      lse[i] =
          LogSumExpOf<A>(p_, operands_, branch, sample, first_head + i)[query];
      delta[i] =
          delta_[(sample * p_.heads + first_head + i) * p_.queries + query];
    }
  }

  void AddQueryGradients(int64_t sample, const BlockLists& lists) {
    const int64_t real = RealQueries(p_, operands_.token_counts[sample]);
    const int64_t blocks = (real + kQueries - 1) / kQueries;
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (int64_t item = 0; item < p_.key_heads * blocks; ++item) {
      Buffers& b = buffers_[omp_get_thread_num()];
      const int64_t key_head = item / blocks;
      const int64_t begin = item % blocks * kQueries;
      for (int64_t query = begin; query < std::min(begin + kQueries, real);
           ++query) {
        AddQueryGradient(sample, lists, key_head, query, b);
      }
    }
  }
  void AddQueryGradient(int64_t sample, const BlockLists& lists,
                        int64_t key_head, int64_t query, Buffers& b) const {
    const int64_t row = sample * p_.queries + query;
    const int64_t first_head = key_head * group();
    const int64_t at = row * width() + first_head * p_.head_dim;
    GatherStatistics(lists.branch, sample, first_head, query, b.log_sum_exp,
                     b.delta);
    for (const int32_t block : lists.ListOf(key_head, query)) {
      Probabilities(lists, key_head, block, group(),
                    HeadRow<T>(operands_.q, row, first_head, p_.head_dim),
                    scaled_ + at, b.log_sum_exp, b.delta, b);
      products_.Of(QueryGradient(PaddedKeys(lists.size(block))))
          .Run(b.ds, packed_.k(key_head, block), nullptr, dq_ + at, b.gemm);
    }
  }

  // By key head and block the queries whose lists have it, in their order:
  // inverse_[begins[block − 1], begins[block]) of the head.
  void Invert(int64_t sample, const BlockLists& lists) {
    const int64_t real = RealQueries(p_, operands_.token_counts[sample]);
#pragma omp parallel for schedule(static) num_threads(threads_)
    for (int64_t head = 0; head < p_.key_heads; ++head) {
      int32_t* begins = inverse_begins_ + head * most_blocks();
      int32_t* inverse = inverse_ + head * p_.queries * p_.top_k;
      std::fill_n(begins, lists.blocks() + 1, 0);
      for (int64_t query = 0; query < real; ++query) {
        for (const int32_t block : lists.ListOf(head, query)) {
          ++begins[block + 1];
        }
      }
      std::partial_sum(begins, begins + lists.blocks() + 1, begins);
      for (int64_t query = 0; query < real; ++query) {
        for (const int32_t block : lists.ListOf(head, query)) {
          inverse[begins[block]++] = static_cast<int32_t>(query);
        }
      }
    }
  }
  std::span<const int32_t> QueriesOf(int64_t head, int64_t block) const {
    const int32_t* begins = inverse_begins_ + head * most_blocks();
    const int32_t* inverse = inverse_ + head * p_.queries * p_.top_k;
    return {inverse + (block == 0 ? 0 : begins[block - 1]),
            inverse + begins[block]};
  }

  void AddKeyGradients(int64_t sample, const BlockLists& lists) {
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (int64_t item = 0; item < p_.key_heads * lists.blocks(); ++item) {
      AddBlockGradients(sample, lists, item / lists.blocks(),
                        item % lists.blocks(), buffers_[omp_get_thread_num()]);
    }
  }
  void AddBlockGradients(int64_t sample, const BlockLists& lists,
                         int64_t key_head, int64_t block, Buffers& b) const {
    const int64_t d = p_.head_dim;
    const int64_t keys = PaddedKeys(lists.size(block));
    const std::span<const int32_t> queries = QueriesOf(key_head, block);
    std::fill_n(b.dk, keys * d, A{0});
    std::fill_n(b.dv, keys * d, A{0});
    for (size_t first = 0; first < queries.size(); first += gathered_) {
      Gather(sample, lists.branch, key_head * group(),
             queries.subspan(
                 first, std::min<size_t>(gathered_, queries.size() - first)),
             b);
      Probabilities(lists, key_head, block, rows(), b.q, b.out, b.log_sum_exp,
                    b.delta, b);
      const Gemm& sums = products_.Of(specs_.KeySums(rows(), keys));
      sums.Run(b.p, b.out, nullptr, b.dv, b.gemm);
      sums.Run(b.ds, b.q, nullptr, b.dk, b.gemm);
    }
    for (int64_t i = 0; i < lists.size(block); ++i) {
      const int64_t token = lists.order[lists.offsets[block] + i];
      const int64_t at = token * key_width() + key_head * d;
      for (int64_t c = 0; c < d; ++c) {
        dk_[at + c] += b.dk[i * d + c];
        dv_[at + c] += b.dv[i * d + c];
      }
    }
  }
  // The heads of some queries, one query after the other; the buffer's other
  // rows add nothing.
  void Gather(int64_t sample, SparseBranch branch, int64_t first_head,
              std::span<const int32_t> queries, Buffers& b) const {
    const int64_t row_width = group() * p_.head_dim;
    for (size_t i = 0; i < queries.size(); ++i) {
      const int64_t row = sample * p_.queries + queries[i];
      std::copy_n(HeadRow<T>(operands_.q, row, first_head, p_.head_dim),
                  row_width, b.q + i * row_width);
      std::copy_n(scaled_ + row * width() + first_head * p_.head_dim, row_width,
                  b.out + i * row_width);
      GatherStatistics(branch, sample, first_head, queries[i],
                       b.log_sum_exp + i * group(), b.delta + i * group());
    }
    const auto used = static_cast<int64_t>(queries.size()) * group();
    std::fill(b.q + used * p_.head_dim, b.q + rows() * p_.head_dim, T{});
    std::fill(b.out + used * p_.head_dim, b.out + rows() * p_.head_dim, T{});
    std::fill(b.log_sum_exp + used, b.log_sum_exp + rows(),
              std::numeric_limits<A>::infinity());
    std::fill(b.delta + used, b.delta + rows(), A{0});
  }

  const SparseAttentionProblem& p_;
  const SparseAttentionOperands& operands_;
  const SparseAttentionGradients& gradients_;
  int threads_;
  int64_t gathered_;  // queries
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
  A* dk_;  // [keys, key_heads, head_dim], of one sample
  A* dv_;
  int32_t* inverse_begins_;  // [key_heads, most_blocks]
  int32_t* inverse_;         // [key_heads, queries·top_k]
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
