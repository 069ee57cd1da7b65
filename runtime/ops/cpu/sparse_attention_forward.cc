#include <omp.h>

#include <limits>
#include <span>
#include <type_traits>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sparse_attention.h"
#include "runtime/ops/cpu/sparse_attention_blocks.h"
#include "runtime/ops/cpu/sparse_attention_rows.h"

namespace trireme {
namespace {

// Queries that one thread takes at a time, of the compressed branch and of the
// others, and compressed keys of a product.
constexpr int64_t kQueries = 64;
constexpr int64_t kRange = 512;
constexpr int64_t kChunk = 512;
// Chunks end at multiples of it.
constexpr int64_t kChunkGranule = 64;

template <typename T>
class Forward {
 public:
  using A = ComputeType<T>;

  Forward(const SparseAttentionProblem& problem,
          const SparseAttentionOperands& operands, int threads,
          void* workspace = nullptr)
      : p_(problem),
        operands_(operands),
        threads_(threads),
        out_pitch_(ScorePitch(problem.head_dim)),
        chunks_((problem.most_small + kChunk - 1) / kChunk),
        range_(std::min(kRange, problem.queries)),
        gathered_(problem),
        specs_(problem.head_dim),
        cutter_(workspace),
        packed_(problem, cutter_) {
    for (const int64_t keys : BlockExtents(p_)) {
      for (const int64_t queries : gathered_.extents()) {
        products_.Add(specs_.Scores(queries * group(), keys));
        products_.Add(AddedValues(queries * group(), keys));
      }
    }
    for (const int64_t rows : QueryRows()) {
      for (const int64_t columns : ChunkExtents()) {
        products_.Add(ChunkScores(rows, columns));
        for (const bool accumulate : {false, true}) {
          products_.Add(ChunkValues(rows, columns, accumulate));
        }
      }
    }
    for (int i = 0; i < threads; ++i) buffers_.push_back(Cut());
  }

  int64_t workspace_bytes() const { return cutter_.bytes(); }

  void Run() {
    for (int64_t sample = 0; sample < p_.batch; ++sample) {
      const int64_t real = RealQueries(p_, operands_, sample);
      ForQueries(kQueries,
                 [&](int64_t head, int64_t begin, int64_t end, Buffers& b) {
                   Compressed(sample, head, begin, end, real, b);
                 });
      for (const SparseBranch branch : {kSelectedBranch, kWindowBranch}) {
        const BlockLists lists = ListsOf(p_, operands_, branch, sample);
        packed_.Pack(operands_, sample, lists, threads_);
        ForQueries(range_, [&](int64_t head, int64_t begin, int64_t end,
                               Buffers& b) {
          for (int64_t i = head * group(); i < (head + 1) * group(); ++i) {
            WriteNothing(branch, sample, i, std::clamp(real, begin, end), end);
          }
          if (begin < real) {
            Attend(sample, lists, head, begin, std::min(end, real), b);
          }
        });
      }
    }
    Combine();
  }

 private:
  // What a block's rows add to: sums of the online softmax.
  struct Sums {
    A* out;     // [rows, out_pitch]
    A* maxima;  // [rows]
    A* sums;    // [rows]
  };
  struct Buffers {
    A* scores;        // [kQueries, kChunk], or of a block
    T* p;             // [chunks, kQueries, kChunk], or of a block
    Sums rows;        // of kQueries, or gathered
    A* chunk_maxima;  // [chunks, kQueries]
    A* key_sums;      // [kQueries, most_small]: over heads
    A* block_scores;  // [most_large]
    T* q;             // gathered
    Sums range;       // of its queries, one after the other
    InvertedLists lists;
    void* gemm;
  };

  Sums CutSums(int64_t rows) {
    return {cutter_.Cut<A>(rows * out_pitch_), cutter_.Cut<A>(rows),
            cutter_.Cut<A>(rows)};
  }
  Buffers Cut() {
    const int64_t rows = gathered_.most() * group();
    const int64_t scores = rows * BlockExtents(p_).back();
    return {
        .scores = cutter_.Cut<A>(std::max(kQueries * kChunk, scores)),
        .p = cutter_.Cut<T>(std::max(chunks_ * kQueries * kChunk, scores)),
        .rows = CutSums(std::max(kQueries, rows)),
        .chunk_maxima = cutter_.Cut<A>(chunks_ * kQueries),
        .key_sums = cutter_.Cut<A>(kQueries * p_.most_small),
        .block_scores = cutter_.Cut<A>(p_.most_large),
        .q = cutter_.Cut<T>(rows * p_.head_dim),
        .range = CutSums(range_ * group()),
        .lists = {p_, range_, cutter_},
        .gemm = cutter_.Cut<char>(products_.workspace_bytes()),
    };
  }

  int64_t group() const { return p_.queries_per_key(); }

  std::vector<int64_t> QueryRows() const {
    std::vector<int64_t> rows = {std::min(kQueries, p_.queries)};
    const int64_t rest = p_.queries % rows[0];
    if (rest > 0) rows.push_back(rest);
    return rows;
  }

  // Columns of the chunk that begins at `key`, of `count` compressed keys.
  int64_t ChunkColumns(int64_t key, int64_t count) const {
    const int64_t columns = std::min(count - key, kChunk);
    return std::min(
        (columns + kChunkGranule - 1) / kChunkGranule * kChunkGranule,
        p_.most_small - key);
  }
  std::vector<int64_t> ChunkExtents() const {
    std::vector<int64_t> extents = {p_.most_small % kChunk};
    if (extents[0] == 0) extents.clear();
    const int64_t most = std::min(kChunk, p_.most_small);
    for (int64_t n = kChunkGranule; n <= most; n += kChunkGranule) {
      extents.push_back(n);
    }
    return extents;
  }
  CpuGemmSpec ChunkScores(int64_t rows, int64_t columns) const {
    CpuGemmSpec spec = specs_.Scores(rows, columns);
    spec.a.row = operands_.q.row_stride;
    spec.b.column = operands_.compressed_k.row_stride;
    spec.out.row = ScorePitch(columns);
    return spec;
  }
  CpuGemmSpec ChunkValues(int64_t rows, int64_t columns,
                          bool accumulate) const {
    CpuGemmSpec spec = specs_.Values(rows, columns, out_pitch_, accumulate);
    spec.a.row = ScorePitch(columns);
    spec.b.row = operands_.compressed_v.row_stride;
    return spec;
  }

  // scores[rows, keys]·values, added.
  CpuGemmSpec AddedValues(int64_t rows, int64_t keys) const {
    return specs_.Values(rows, keys, out_pitch_, /*accumulate=*/true);
  }

  // f(key head, queries [begin, end), buffers) for ranges of `length`, on all
  // threads.
  template <typename F>
  void ForQueries(int64_t length, const F& f) {
    const int64_t blocks = (p_.queries + length - 1) / length;
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (int64_t item = 0; item < p_.key_heads * blocks; ++item) {
      const int64_t begin = item % blocks * length;
      f(item / blocks, begin, std::min(begin + length, p_.queries),
        buffers_[omp_get_thread_num()]);
    }
  }

  // What a branch leaves of padding: nothing, and probabilities of 0 when they
  // are made again.
  void WriteNothing(SparseBranch branch, int64_t sample, int64_t head,
                    int64_t begin, int64_t end) const {
    const HeadsPointer part = PartOf(p_, operands_, branch);
    for (int64_t query = begin; query < end; ++query) {
      std::fill_n(
          HeadRow<T>(part, sample * p_.queries + query, head, p_.head_dim),
          p_.head_dim, T{});
      LogSumExpOf<A>(p_, operands_, branch, sample, head)[query] =
          std::numeric_limits<A>::infinity();
    }
  }

  void Compressed(int64_t sample, int64_t key_head, int64_t begin, int64_t end,
                  int64_t real_queries, Buffers& b) const {
    const int64_t rows = end - begin;
    const int64_t real = std::clamp<int64_t>(real_queries - begin, 0, rows);
    std::fill_n(b.key_sums, real * p_.most_small, A{0});
    for (int64_t head = key_head * group(); head < (key_head + 1) * group();
         ++head) {
      WriteNothing(kCompressedBranch, sample, head, begin + real, end);
      if (real > 0) CompressedHead(sample, head, begin, rows, real, b);
    }
    int32_t* selected =
        operands_.selected +
        ((sample * p_.key_heads + key_head) * p_.queries + begin) * p_.top_k;
    std::fill(selected + real * p_.top_k, selected + rows * p_.top_k, -1);
    for (int64_t row = 0; row < real; ++row) {
      Select(sample, b.key_sums + row * p_.most_small, b.block_scores,
             selected + row * p_.top_k);
    }
  }

  void CompressedHead(int64_t sample, int64_t head, int64_t begin, int64_t rows,
                      int64_t real, Buffers& b) const {
    const int64_t d = p_.head_dim;
    const int64_t count = operands_.small_counts[sample];
    const int64_t query_row = sample * p_.queries + begin;
    const int64_t key_head = head / group();
    std::fill_n(b.rows.maxima, real, -std::numeric_limits<A>::infinity());
    for (int64_t key = 0; key < count; key += kChunk) {
      const int64_t columns = ChunkColumns(key, count);
      const int64_t key_row = sample * p_.most_small + key;
      T* p = b.p + key * kQueries;
      products_.Of(ChunkScores(rows, columns))
          .Run(HeadRow<T>(operands_.q, query_row, head, d),
               HeadRow<T>(operands_.compressed_k, key_row, key_head, d),
               nullptr, b.scores, b.gemm);
      OnlineSoftmax(OnlineSoftmaxBlock<T>{
          real, ScorePitch(columns), std::min(columns, count - key), nullptr,
          static_cast<A>(p_.scale), b.scores, p, b.rows.maxima, b.rows.sums,
          b.rows.out, out_pitch_});
      std::copy_n(b.rows.maxima, real,
                  b.chunk_maxima + key / kChunk * kQueries);
      products_.Of(ChunkValues(rows, columns, key > 0))
          .Run(p, HeadRow<T>(operands_.compressed_v, key_row, key_head, d),
               nullptr, b.rows.out, b.gemm);
    }
    Finish(kCompressedBranch, sample, head, begin, real, b);
    const A* log_sum_exp =
        LogSumExpOf<A>(p_, operands_, kCompressedBranch, sample, head) + begin;
    for (int64_t key = 0; key < count; key += kChunk) {
      const int64_t pitch = ScorePitch(ChunkColumns(key, count));
      const int64_t valid = std::min(count - key, kChunk);
      for (int64_t row = 0; row < real; ++row) {
        const A factor = std::exp(
            b.chunk_maxima[key / kChunk * kQueries + row] - log_sum_exp[row]);
        const T* p = b.p + key * kQueries + row * pitch;
        A* sums = b.key_sums + row * p_.most_small + key;
#pragma omp simd
        for (int64_t i = 0; i < valid; ++i) {
          sums[i] += factor * static_cast<A>(p[i]);
        }
      }
    }
  }

  // Log-sum-exps and the branch's output of `rows` queries of one head, of what
  // OnlineSoftmax and the products left.
  void Finish(SparseBranch branch, int64_t sample, int64_t head, int64_t begin,
              int64_t rows, Buffers& b) const {
    A* log_sum_exp =
        LogSumExpOf<A>(p_, operands_, branch, sample, head) + begin;
    for (int64_t row = 0; row < rows; ++row) {
      log_sum_exp[row] = b.rows.maxima[row] + std::log(b.rows.sums[row]);
      b.rows.sums[row] = 1 / b.rows.sums[row];
    }
    const HeadsPointer part = PartOf(p_, operands_, branch);
    ScaleRows(ScaledRows<T>{
        rows, p_.head_dim, b.rows.out, out_pitch_, b.rows.sums,
        HeadRow<T>(part, sample * p_.queries + begin, head, p_.head_dim),
        part.row_stride});
  }

  // The large blocks with the highest sums of probabilities, by their number.
  void Select(int64_t sample, const A* key_sums, A* scores,
              int32_t* selected) const {
    const int64_t blocks = operands_.large.counts[sample];
    const int32_t* large = operands_.large_of_small + sample * p_.most_small;
    std::fill_n(scores, blocks, A{0});
    for (int64_t i = 0; i < operands_.small_counts[sample]; ++i) {
      scores[large[i]] += key_sums[i];
    }
    int64_t found = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      if (found == p_.top_k && !(scores[block] > scores[selected[found - 1]])) {
        continue;
      }
      if (found < p_.top_k) ++found;
      int64_t at = found - 1;
      for (; at > 0 && scores[block] > scores[selected[at - 1]]; --at) {
        selected[at] = selected[at - 1];
      }
      selected[at] = static_cast<int32_t>(block);
    }
    std::sort(selected, selected + found);
    std::fill(selected + found, selected + p_.top_k, -1);
  }

  // All heads of a key head, of queries [begin, end) that are no padding.
  void Attend(int64_t sample, const BlockLists& lists, int64_t key_head,
              int64_t begin, int64_t end, Buffers& b) const {
    const int64_t rows = (end - begin) * group();
    std::fill_n(b.range.out, rows * out_pitch_, A{0});
    std::fill_n(b.range.maxima, rows, -std::numeric_limits<A>::infinity());
    std::fill_n(b.range.sums, rows, A{0});
    b.lists.Invert(lists, key_head, begin, end);
    for (int64_t block = 0; block < lists.blocks(); ++block) {
      gathered_.ForParts(b.lists.QueriesOf(block),
                         [&](auto queries, int64_t extent) {
                           AttendToBlock(sample, lists, key_head, block, begin,
                                         queries, extent, b);
                         });
    }
    const int64_t first_head = key_head * group();
    const HeadsPointer part = PartOf(p_, operands_, lists.branch);
    for (int64_t query = begin; query < end; ++query) {
      CHECK(!lists.ListOf(key_head, query).empty())
          << "a token without a block";
      A* sums = b.range.sums + (query - begin) * group();
      for (int64_t i = 0; i < group(); ++i) {
        LogSumExpOf<A>(p_, operands_, lists.branch, sample,
                       first_head + i)[query] =
            b.range.maxima[(query - begin) * group() + i] + std::log(sums[i]);
        sums[i] = 1 / sums[i];
      }
      ScaleRows(
          ScaledRows<T>{group(), p_.head_dim,
                        b.range.out + (query - begin) * group() * out_pitch_,
                        out_pitch_, sums,
                        HeadRow<T>(part, sample * p_.queries + query,
                                   first_head, p_.head_dim),
                        p_.head_dim});
    }
  }

  // Adds a block's part to the sums of some queries of the range that begins at
  // `begin`. The product's other rows are of nobody.
  void AttendToBlock(int64_t sample, const BlockLists& lists, int64_t key_head,
                     int64_t block, int64_t begin,
                     std::span<const int32_t> queries, int64_t extent,
                     Buffers& b) const {
    const int64_t keys = PaddedKeys(lists.size(block));
    const auto used = static_cast<int64_t>(queries.size()) * group();
    for (size_t i = 0; i < queries.size(); ++i) {
      std::copy_n(HeadRow<T>(operands_.q, sample * p_.queries + queries[i],
                             key_head * group(), p_.head_dim),
                  group() * p_.head_dim, b.q + i * group() * p_.head_dim);
      CopySums(b.range, queries[i] - begin, b.rows, i);
    }
    products_.Of(specs_.Scores(extent * group(), keys))
        .Run(b.q, packed_.k(key_head, block), nullptr, b.scores, b.gemm);
    OnlineSoftmax(OnlineSoftmaxBlock<T>{
        used, keys, lists.size(block), nullptr, static_cast<A>(p_.scale),
        b.scores, b.p, b.rows.maxima, b.rows.sums, b.rows.out, out_pitch_});
    products_.Of(AddedValues(extent * group(), keys))
        .Run(b.p, packed_.v(key_head, block), nullptr, b.rows.out, b.gemm);
    for (size_t i = 0; i < queries.size(); ++i) {
      CopySums(b.rows, i, b.range, queries[i] - begin);
    }
  }
  // Of one query's heads.
  void CopySums(const Sums& from, int64_t from_query, const Sums& to,
                int64_t to_query) const {
    const int64_t at = from_query * group(), to_at = to_query * group();
    std::copy_n(from.out + at * out_pitch_, group() * out_pitch_,
                to.out + to_at * out_pitch_);
    std::copy_n(from.maxima + at, group(), to.maxima + to_at);
    std::copy_n(from.sums + at, group(), to.sums + to_at);
  }

  void Combine() const {
    const int64_t width = p_.heads * p_.head_dim;
    const T* gates = static_cast<const T*>(operands_.gates);
    T* out = static_cast<T*>(operands_.out);
    ParallelRows(p_.batch * p_.queries, width, [&](int64_t row) {
      const T* parts[kSparseBranches];
      A factors[kSparseBranches];
      for (int64_t i = 0; i < kSparseBranches; ++i) {
        parts[i] = HeadRow<T>(
            PartOf(p_, operands_, static_cast<SparseBranch>(i)), row, 0, 0);
        factors[i] =
            SigmoidOf(static_cast<A>(gates[row * kSparseBranches + i]));
      }
      for (int64_t c = 0; c < width; ++c) {
        A sum = 0;
        for (int64_t i = 0; i < kSparseBranches; ++i) {
          sum += factors[i] * static_cast<A>(parts[i][c]);
        }
        out[row * width + c] = T(sum);
      }
    });
  }

  const SparseAttentionProblem& p_;
  const SparseAttentionOperands& operands_;
  int threads_;
  int64_t out_pitch_;
  int64_t chunks_;
  int64_t range_;  // queries
  GatheredQueries gathered_;
  BlockProducts<T> specs_;
  AttentionProducts products_;
  WorkspaceCutter cutter_;
  PackedKeys<T> packed_;
  std::vector<Buffers> buffers_;
};

}  // namespace

int64_t SparseAttentionForwardWorkspace(const SparseAttentionProblem& problem,
                                        const SparseAttentionOperands& operands,
                                        int threads) {
  return DispatchFloating(problem.dtype, [&]<typename T>(T) {
    return Forward<T>(problem, operands, threads).workspace_bytes();
  });
}

void SparseAttentionForwardCpu(const SparseAttentionProblem& problem,
                               const SparseAttentionOperands& operands,
                               int threads, void* workspace) {
  DispatchFloating(problem.dtype, [&]<typename T>(T) {
    Forward<T>(problem, operands, threads, workspace).Run();
  });
}

}  // namespace trireme
