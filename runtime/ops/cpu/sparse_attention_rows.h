// Blocks of keys as sparse attention multiplies them: with all queries of a
// range that attend to them, whose rows are gathered.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_ROWS_H_
#define TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_ROWS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>

#include "runtime/ops/cpu/sparse_attention_blocks.h"

namespace trireme {

// By block, the queries of a range whose lists have it, in their order.
class InvertedLists {
 public:
  InvertedLists(const SparseAttentionProblem& p, int64_t queries,
                WorkspaceCutter& cutter)
      : ends_(cutter.Cut<int32_t>(MostBlocks(p) + 1)),
        queries_(cutter.Cut<int32_t>(queries * p.top_k)) {}

  // Of queries [begin, end), at most as many as it was made for.
  void Invert(const BlockLists& lists, int64_t key_head, int64_t begin,
              int64_t end) {
    std::fill_n(ends_, lists.blocks() + 1, 0);
    for (int64_t query = begin; query < end; ++query) {
      for (const int32_t block : lists.ListOf(key_head, query)) {
        ++ends_[block + 1];
      }
    }
    std::partial_sum(ends_, ends_ + lists.blocks() + 1, ends_);
    for (int64_t query = begin; query < end; ++query) {
      for (const int32_t block : lists.ListOf(key_head, query)) {
        queries_[ends_[block]++] = static_cast<int32_t>(query);
      }
    }
  }

  std::span<const int32_t> QueriesOf(int64_t block) const {
    return {queries_ + (block == 0 ? 0 : ends_[block - 1]),
            queries_ + ends_[block]};
  }

 private:
  int32_t* ends_;
  int32_t* queries_;
};

// How many queries are gathered for a product with a block. There are two
// extents: each one is a product to prepare for every size of block, and what
// is gathered of fewer queries is computed and not used.
class GatheredQueries {
 public:
  explicit GatheredQueries(const SparseAttentionProblem& p)
      : many_(Fitting(p, kManyRows)), few_(Fitting(p, kFewRows)) {}

  int64_t most() const { return many_; }
  std::array<int64_t, 2> extents() const { return {few_, many_}; }

  // f(queries, extent) for successive parts of `queries`.
  template <typename F>
  void ForParts(std::span<const int32_t> queries, const F& f) const {
    while (!queries.empty()) {
      const auto left = static_cast<int64_t>(queries.size());
      const int64_t extent = left > 2 * few_ ? many_ : few_;
      const int64_t taken = std::min(left, extent);
      f(queries.first(taken), extent);
      queries = queries.subspan(taken);
    }
  }

 private:
  // A product's keys are brought into its kernel's order by every call, which
  // many rows share; scores of as many stay in the cache.
  static constexpr int64_t kManyRows = 256;
  static constexpr int64_t kFewRows = 64;

  static int64_t Fitting(const SparseAttentionProblem& p, int64_t rows) {
    return std::clamp<int64_t>(rows / p.queries_per_key(), 1, p.queries);
  }

  int64_t many_;
  int64_t few_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_ROWS_H_
