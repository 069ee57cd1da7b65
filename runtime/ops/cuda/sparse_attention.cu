#include <algorithm>
#include <cmath>

#include "runtime/device/arena.h"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/sparse_attention.cuh"
#include "runtime/ops/cuda/sparse_attention_backward.h"

namespace trireme {
namespace {

// A warp for each query of each head. Padding attends to nothing: zeros, and
// probabilities of 0 when they are made again.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    AttendKernel(const __grid_constant__ SparseArguments a,
                 SparseBranch branch) {
  using C = ComputeType<T>;
  KERNEL_SHARED(weights, C[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.p.batch * a.p.heads * a.p.queries) return;
  const WarpRow at(GridWarp(), a.p.heads, a.p.queries);
  const int64_t key_head = Quotient(at.head, a.queries_per_key);
  const int64_t d = a.p.head_dim;
  const int64_t first_key = at.sample * a.p.keys;
  const T* const q = HeadRow<T>(a.operands.q, at.row, at.head, d);
  const C scale = static_cast<C>(a.p.scale);
  RowSoftmax<C, kChannels> softmax;
  C log_sum_exp = static_cast<C>(INFINITY);
  if (a.IsReal(at.sample, at.token)) {
    const BlockList list = a.ListOf(branch, at.sample, key_head, at.token);
    for (int64_t n = 0; n < list.length && list.blocks[n] >= 0; ++n) {
      const int32_t block = list.blocks[n];
      const int32_t end = list.offsets[block + 1];
      for (int32_t first = list.offsets[block]; first < end;
           first += kWarpThreads) {
        C score = -static_cast<C>(INFINITY);
        if (first + WarpLane() < end) {
          const int64_t row = first_key + list.order[first + WarpLane()];
          score = scale * Dot(q, HeadRow<T>(a.operands.k, row, key_head, d), d);
        }
        softmax.Add(score, end - first, d, weights[WarpIndex()], [&](int j) {
          return HeadRow<T>(a.operands.v, first_key + list.order[first + j],
                            key_head, d);
        });
      }
    }
    log_sum_exp = softmax.Finish();
  }
  softmax.sums.Store(a.PartRow<T>(branch, at.row, at.head), d);
  if (WarpLane() == 0 && blockIdx.y == 0) {
    a.LogSumExps<C>(branch)[GridWarp()] = log_sum_exp;
  }
}

// What the ordinary attention of compressed keys leaves of padding.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    ClearPaddingKernel(const __grid_constant__ SparseArguments a) {
  using C = ComputeType<T>;
  if (GridWarp() >= a.p.batch * a.p.heads * a.p.queries) return;
  const WarpRow at(GridWarp(), a.p.heads, a.p.queries);
  if (a.IsReal(at.sample, at.token)) return;
  T* const part = a.PartRow<T>(kCompressedBranch, at.row, at.head);
  for (int64_t c = WarpLane(); c < a.p.head_dim; c += kWarpThreads) {
    Narrow(C(0), part[c]);
  }
  if (WarpLane() == 0) {
    a.LogSumExps<C>(kCompressedBranch)[GridWarp()] = static_cast<C>(INFINITY);
  }
}

// The best blocks of a query so far, by one lane: the highest first, of equal
// ones the lowest.
template <typename C>
struct Choices {
  int32_t* blocks;
  C* scores;
  int64_t most;
  int64_t count = 0;

  __device__ void Offer(int32_t block, C score) {
    if (count == most && !(score > scores[count - 1])) return;
    if (count < most) ++count;
    int64_t at = count - 1;
    for (; at > 0 && score > scores[at - 1]; --at) {
      scores[at] = scores[at - 1];
      blocks[at] = blocks[at - 1];
    }
    scores[at] = score;
    blocks[at] = block;
  }
  // By their number, then −1.
  __device__ void Finish() {
    for (int64_t i = 1; i < count; ++i) {
      const int32_t block = blocks[i];
      int64_t at = i;
      for (; at > 0 && blocks[at - 1] > block; --at)
        blocks[at] = blocks[at - 1];
      blocks[at] = block;
    }
    for (int64_t i = count; i < most; ++i) blocks[i] = -1;
  }
};

// A warp for each query of each head of keys, after the compressed branch,
// whose probabilities it makes again. Small blocks of a large one follow each
// other, so that a large block's sum is complete when the next one begins.
template <typename T>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    SelectKernel(const __grid_constant__ SparseArguments a,
                 ComputeType<T>* scores) {
  using C = ComputeType<T>;
  if (GridWarp() >= a.p.batch * a.p.key_heads * a.p.queries) return;
  const WarpRow at(GridWarp(), a.p.key_heads, a.p.queries);
  const int64_t d = a.p.head_dim;
  const int64_t first_key = at.sample * a.p.most_small;
  const int32_t* const large = a.operands.large_of_small + first_key;
  const C scale = static_cast<C>(a.p.scale);
  Choices<C> choices = {a.operands.selected + GridWarp() * a.p.top_k,
                        scores + GridWarp() * a.p.top_k, a.p.top_k};
  int64_t keys = 0;
  if (a.IsReal(at.sample, at.token)) {
    keys = a.operands.small_counts[at.sample];
  }
  int32_t block = -1;
  C sum = 0;
  for (int64_t first = 0; first < keys; first += kWarpThreads) {
    const int64_t key = first + WarpLane();
    C of_key = 0;
    int32_t large_block = -1;
    if (key < keys) {
      large_block = large[key];
      const T* const k =
          HeadRow<T>(a.operands.compressed_k, first_key + key, at.head, d);
      for (int64_t member = 0; member < a.queries_per_key; ++member) {
        const int64_t head = at.head * a.queries_per_key + member;
        const C log_sum_exp = a.LogSumExps<C>(
            kCompressedBranch)[(at.sample * a.p.heads + head) * a.p.queries +
                               at.token];
        const T* const q = HeadRow<T>(a.operands.q, at.row, head, d);
        of_key += Exp(MultiplyAdd(scale, Dot(q, k, d), -log_sum_exp));
      }
    }
    for (int j = 0; j < kWarpThreads && first + j < keys; ++j) {
      const C value = __shfl_sync(kWholeWarp, of_key, j);
      const int32_t next = __shfl_sync(kWholeWarp, large_block, j);
      if (next != block) {
        if (WarpLane() == 0 && block >= 0) choices.Offer(block, sum);
        block = next;
        sum = 0;
      }
      sum += value;
    }
  }
  if (WarpLane() != 0) return;
  if (block >= 0) choices.Offer(block, sum);
  choices.Finish();
}

// A warp for each query: the gated sum of the branches.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    CombineKernel(const __grid_constant__ SparseArguments a) {
  using C = ComputeType<T>;
  const int64_t row = GridWarp();
  if (row >= a.p.batch * a.p.queries) return;
  const int64_t width = a.p.heads * a.p.head_dim;
  T* const out = static_cast<T*>(a.operands.out) + row * width;
  C gates[kSparseBranches];
  UNROLL
  for (int i = 0; i < kSparseBranches; ++i) gates[i] = a.Gate<T>(row, i);
  for (int64_t c = WarpLane(); c < width; c += kWarpThreads) {
    C sum = 0;
    UNROLL
    for (int i = 0; i < kSparseBranches; ++i) {
      sum = MultiplyAdd(
          gates[i],
          Widen(a.PartRow<T>(static_cast<SparseBranch>(i), row, 0)[c]), sum);
    }
    Narrow(sum, out[c]);
  }
}

// First what the compressed branch needs, then the scores of choices.
int64_t ScoresAt(const SparseAttentionProblem& p,
                 const SparseAttentionOperands& operands) {
  return Arena::Aligned(CudaAttention().forward_workspace(
      CompressedProblem(p), CompressedOperands(p, operands)));
}

int64_t ForwardWorkspace(const SparseAttentionProblem& p,
                         const SparseAttentionOperands& operands) {
  return ScoresAt(p, operands) + p.batch * p.key_heads * p.queries * p.top_k *
                                     DTypeSize(ComputeDType(p.dtype));
}

void Forward(Stream& stream, const SparseAttentionProblem& p,
             const SparseAttentionOperands& operands, void* workspace) {
  const SparseArguments a(p, operands);
  CudaAttention().forward(stream, CompressedProblem(p),
                          CompressedOperands(p, operands), workspace);
  void* const scores =
      static_cast<std::byte*>(workspace) + ScoresAt(p, operands);
  const int64_t rows = p.batch * p.heads * p.queries;
  DispatchChannels(
      p.dtype, p.head_dim,
      [&]<typename T, typename Channels>(T, Channels, int64_t blocks) {
        Launch(ForRows(stream, rows), ClearPaddingKernel<T>, a);
        Launch(ForRows(stream, p.batch * p.key_heads * p.queries),
               SelectKernel<T>, a, static_cast<ComputeType<T>*>(scores));
        for (const SparseBranch branch : {kSelectedBranch, kWindowBranch}) {
          Launch(ForRows(stream, rows, blocks),
                 AttendKernel<T, Channels::value>, a, branch);
        }
        Launch(ForRows(stream, p.batch * p.queries), CombineKernel<T>, a);
      });
}

}  // namespace

SparseAttentionKernels CudaSparseAttention() {
  return {.forward_workspace = ForwardWorkspace,
          .forward = Forward,
          .backward_workspace = SparseAttentionBackwardBytes,
          .backward = SparseAttentionBackwardPass};
}

}  // namespace trireme
