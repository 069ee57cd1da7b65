// What both passes of sparse attention share: one sample's keys and values in
// the order of blocks, the blocks that a query attends to, and products.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_BLOCKS_H_
#define TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_BLOCKS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/ops/cpu/attention_blocks.h"
#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/ops/cpu/gemm.h"
#include "runtime/ops/kernels/sparse_attention.h"

namespace trireme {

// Blocks of keys are padded to multiples of it, so that there are few shapes of
// products.
inline constexpr int64_t kKeyGranule = kScoreColumns;

inline int64_t PaddedKeys(int64_t keys) {
  return (keys + kKeyGranule - 1) / kKeyGranule * kKeyGranule;
}

// Every extent that a padded block of keys may have.
inline std::vector<int64_t> BlockExtents(const SparseAttentionProblem& p) {
  std::vector<int64_t> extents;
  const int64_t most = std::min(kCellsOfLargeBlock, p.block_tokens);
  for (int64_t keys = kKeyGranule; keys < most + kKeyGranule;
       keys += kKeyGranule) {
    extents.push_back(keys);
  }
  return extents;
}

// Of one kind, in a sample.
inline int64_t MostBlocks(const SparseAttentionProblem& p) {
  return std::max(p.most_large, p.most_windows);
}

// The queries of this rank that are no padding, from the first one on: those
// that lie in a block.
inline int64_t RealQueries(const SparseAttentionProblem& p,
                           const SparseAttentionOperands& operands,
                           int64_t sample) {
  const int32_t* const blocks =
      operands.large.of_token + sample * p.block_tokens + p.first_query;
  const int64_t most =
      std::clamp<int64_t>(p.block_tokens - p.first_query, 0, p.queries);
  return std::partition_point(blocks, blocks + most,
                              [](int32_t block) { return block >= 0; }) -
         blocks;
}

template <typename A>
A SigmoidOf(A x) {
  return 1 / (1 + std::exp(-x));
}

// A branch whose queries attend to blocks, of one sample.
struct BlockLists {
  SparseBranch branch;
  std::span<const int32_t> offsets;  // of blocks in `order`
  const int32_t* order;
  // Lists of `length`: query i of key head h has lists[h·head_stride +
  // i·length]; −1 ends one.
  const int32_t* lists;
  int64_t head_stride;
  int64_t length;

  int64_t blocks() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t size(int64_t block) const {
    return offsets[block + 1] - offsets[block];
  }
  std::span<const int32_t> ListOf(int64_t key_head, int64_t query) const {
    const int32_t* list = lists + key_head * head_stride + query * length;
    return {list, std::find(list, list + length, -1)};
  }
};

inline BlockLists ListsOf(const SparseAttentionProblem& p,
                          const SparseAttentionOperands& operands,
                          SparseBranch branch, int64_t sample) {
  const bool windows = branch == kWindowBranch;
  const TokenBlocksPointer& blocks =
      windows ? operands.windows : operands.large;
  const int64_t first = sample * p.block_tokens;
  BlockLists lists;
  lists.branch = branch;
  lists.offsets = {blocks.offsets + sample * (blocks.most + 1),
                   static_cast<size_t>(blocks.counts[sample] + 1)};
  lists.order = blocks.order + first;
  lists.lists =
      windows ? blocks.of_token + first + p.first_query
              : operands.selected + sample * p.key_heads * p.queries * p.top_k;
  lists.head_stride = windows ? 0 : p.queries * p.top_k;
  lists.length = windows ? 1 : p.top_k;
  return lists;
}

// Keys and values of a sample, gathered: key head by key head, block by block,
// with zeros as padding of each block.
template <typename T>
class PackedKeys {
 public:
  PackedKeys(const SparseAttentionProblem& problem, WorkspaceCutter& cutter)
      : problem_(problem),
        rows_(PaddedKeys(problem.block_tokens +
                         (kKeyGranule - 1) * MostBlocks(problem))) {
    const int64_t elements = problem.key_heads * rows_ * problem.head_dim;
    k_ = cutter.Cut<T>(elements);
    v_ = cutter.Cut<T>(elements);
    begins_ = cutter.Cut<int64_t>(MostBlocks(problem) + 1);
  }

  void Pack(const SparseAttentionOperands& operands, int64_t sample,
            const BlockLists& lists, int threads) {
    begins_[0] = 0;
    for (int64_t block = 0; block < lists.blocks(); ++block) {
      begins_[block + 1] = begins_[block] + PaddedKeys(lists.size(block));
    }
    const int64_t items = problem_.key_heads * lists.blocks();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t item = 0; item < items; ++item) {
      const int64_t head = item / lists.blocks();
      const int64_t block = item % lists.blocks();
      PackBlock(operands.k, sample, lists, head, block, k_);
      PackBlock(operands.v, sample, lists, head, block, v_);
    }
  }

  // [PaddedKeys(size of block), head_dim].
  const T* k(int64_t head, int64_t block) const { return k_ + At(head, block); }
  const T* v(int64_t head, int64_t block) const { return v_ + At(head, block); }

 private:
  int64_t At(int64_t head, int64_t block) const {
    return (head * rows_ + begins_[block]) * problem_.head_dim;
  }
  void PackBlock(const HeadsPointer& from, int64_t sample,
                 const BlockLists& lists, int64_t head, int64_t block,
                 T* to) const {
    const int64_t d = problem_.head_dim;
    T* row = to + At(head, block);
    for (int64_t i = lists.offsets[block]; i < lists.offsets[block + 1]; ++i) {
      const T* source =
          HeadRow<T>(from, sample * problem_.keys + lists.order[i], head, d);
      row = std::copy(source, source + d, row);
    }
    std::fill(row, to + At(head, block + 1), T{});
  }

  const SparseAttentionProblem& problem_;
  int64_t rows_;
  T* k_;
  T* v_;
  int64_t* begins_;
};

// Products of rows [.., head_dim] that follow each other with a padded block of
// keys, one thread each. A: of what is written.
template <typename T>
class BlockProducts {
 public:
  explicit BlockProducts(int64_t head_dim) : d_(head_dim) {}

  // rows·keysᵀ → [rows, keys].
  CpuGemmSpec Scores(int64_t rows, int64_t keys) const {
    CpuGemmSpec spec = Base(rows, keys, d_);
    spec.a = {0, d_, 1};
    spec.b = {0, 1, d_};
    spec.out = {0, keys, 1};
    return spec;
  }
  // scores[rows, keys]·values → [rows, head_dim].
  CpuGemmSpec Values(int64_t rows, int64_t keys, int64_t out_pitch,
                     bool accumulate = false) const {
    CpuGemmSpec spec = Base(rows, d_, keys);
    spec.a = {0, keys, 1};
    spec.b = {0, d_, 1};
    spec.out = {0, out_pitch, 1};
    spec.accumulate = accumulate;
    return spec;
  }
  // scores[rows, keys]ᵀ·rows → [keys, head_dim], added.
  CpuGemmSpec KeySums(int64_t rows, int64_t keys) const {
    CpuGemmSpec spec = Base(keys, d_, rows);
    spec.a = {0, 1, keys};
    spec.b = {0, d_, 1};
    spec.out = {0, d_, 1};
    spec.accumulate = true;
    return spec;
  }

 private:
  CpuGemmSpec Base(int64_t m, int64_t n, int64_t k) const {
    CpuGemmSpec spec;
    spec.dtype = DTypeOf<T>();
    spec.out_dtype = DTypeOf<ComputeType<T>>();
    spec.m = m;
    spec.n = n;
    spec.k = k;
    return spec;
  }

  int64_t d_;
};

// A branch's part of `parts`, and one query row's log-sum-exps.
inline HeadsPointer PartOf(const SparseAttentionProblem& p,
                           const SparseAttentionOperands& operands,
                           SparseBranch branch) {
  const int64_t width = p.heads * p.head_dim;
  char* parts = static_cast<char*>(operands.parts);
  if (parts != nullptr) {
    parts += branch * p.batch * p.queries * width * DTypeSize(p.dtype);
  }
  return {parts, width};
}

template <typename A>
A* LogSumExpOf(const SparseAttentionProblem& p,
               const SparseAttentionOperands& operands, SparseBranch branch,
               int64_t sample, int64_t head) {
  return static_cast<A*>(operands.log_sum_exp) +
         ((branch * p.batch + sample) * p.heads + head) * p.queries;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPARSE_ATTENTION_BLOCKS_H_
