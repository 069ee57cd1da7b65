#include <cmath>

#include "runtime/ops/cuda/attention_arguments.cuh"
#include "runtime/ops/cuda/attention_plain.h"
#include "runtime/ops/cuda/attention_warps.cuh"
#include "runtime/ops/cuda/check.cuh"

namespace trireme {
namespace {

using Arguments = AttentionArguments;

// In the compute type where nothing is to be rounded.
template <typename T, typename C, int kChannels>
__device__ void Store(const ChannelSums<C, kChannels>& sums, const Arguments& a,
                      const HeadsPointer& to, int64_t row, int64_t head) {
  if (a.unrounded) {
    sums.Store(HeadRow<C>(a, to, row, head), a.head_dim);
  } else {
    sums.Store(HeadRow<T>(a, to, row, head), a.head_dim);
  }
}

// A kernel of its own: a call takes registers from one that has none to spare.
__global__ void __launch_bounds__(kRowThreads)
    CheckKeyCountsKernel(const __grid_constant__ Arguments a) {
  const int64_t sample = GridThread();
  if (sample >= a.batch) return;
  CheckedIndex(a.KeyCount(sample), 0, a.keys + 1, "number of keys");
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    ForwardKernel(const __grid_constant__ Arguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(weights, C[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.batch * a.heads * a.queries) return;
  const WarpRow at(GridWarp(), a.heads, a.queries);
  const int64_t key_head = Quotient(at.head, a.queries_per_key);
  const T* q = HeadRow<T>(a, a.operands.q, at.row, at.head);
  const C scale = static_cast<C>(a.scale);
  const KeyRange keys = a.VisibleKeys(at.sample, at.token);
  RowSoftmax<C, kChannels> softmax;
  for (int64_t first = keys.begin; first < keys.end; first += kWarpThreads) {
    const int64_t row = at.sample * a.keys + first;
    C score = -static_cast<C>(INFINITY);
    if (first + WarpLane() < keys.end) {
      score = Dot(q, HeadRow<T>(a, a.operands.k, row + WarpLane(), key_head),
                  a.head_dim) *
              scale;
    }
    softmax.Add(
        score, keys.end - first, a.head_dim, weights[WarpIndex()],
        [&](int j) { return HeadRow<T>(a, a.operands.v, row + j, key_head); });
  }
  const C log_sum_exp = softmax.Finish();
  Store<T>(softmax.sums, a, a.operands.out, at.row, at.head);
  if (WarpLane() == 0 && blockIdx.y == 0) {
    static_cast<C*>(a.operands.log_sum_exp)[GridWarp()] = log_sum_exp;
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    DeltaKernel(const __grid_constant__ Arguments a, ComputeType<T>* delta) {
  if (GridWarp() >= a.batch * a.heads * a.queries) return;
  const WarpRow at(GridWarp(), a.heads, a.queries);
  const T* slope = HeadRow<T>(a, a.gradients.out, at.row, at.head);
  const T* out = HeadRow<T>(a, a.operands.out, at.row, at.head);
  ComputeType<T> sum = 0;
  for (int64_t i = WarpLane(); i < a.head_dim; i += kWarpThreads) {
    sum = MultiplyAdd(Widen(slope[i]), Widen(out[i]), sum);
  }
  sum = WarpSum(sum);
  if (WarpLane() == 0) delta[GridWarp()] = sum;
}

// Of a query (its place in log_sum_exp: `at`) and a key, by one lane.
template <typename T>
__device__ ScoreGradient<ComputeType<T>> GradientOf(const Arguments& a,
                                                    int64_t at, const T* q,
                                                    const T* slope, const T* k,
                                                    const T* v) {
  using C = ComputeType<T>;
  return ScoreGradientOf(q, slope, k, v, a.head_dim, static_cast<C>(a.scale),
                         static_cast<const C*>(a.operands.log_sum_exp)[at],
                         static_cast<const C*>(a.delta)[at]);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    QueryGradientKernel(const __grid_constant__ Arguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(slopes, C[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.batch * a.heads * a.queries) return;
  const WarpRow at(GridWarp(), a.heads, a.queries);
  const int64_t key_head = Quotient(at.head, a.queries_per_key);
  C* const of_warp = slopes[WarpIndex()];
  const T* q = HeadRow<T>(a, a.operands.q, at.row, at.head);
  const T* slope = HeadRow<T>(a, a.gradients.out, at.row, at.head);
  const KeyRange keys = a.VisibleKeys(at.sample, at.token);
  ChannelSums<C, kChannels> sums;
  for (int64_t first = keys.begin; first < keys.end; first += kWarpThreads) {
    const int64_t key = first + WarpLane();
    const int64_t row = at.sample * a.keys + key;
    of_warp[WarpLane()] =
        key < keys.end
            ? GradientOf<T>(a, GridWarp(), q, slope,
                            HeadRow<T>(a, a.operands.k, row, key_head),
                            HeadRow<T>(a, a.operands.v, row, key_head))
                  .slope
            : C(0);
    __syncwarp();
    for (int j = 0; j < kWarpThreads && first + j < keys.end; ++j) {
      sums.Add(
          of_warp[j],
          HeadRow<T>(a, a.operands.k, at.sample * a.keys + first + j, key_head),
          a.head_dim);
    }
    __syncwarp();
  }
  Store<T>(sums, a, a.gradients.q, at.row, at.head);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    KeyGradientKernel(const __grid_constant__ Arguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(gradients, ScoreGradient<C>[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.batch * a.key_heads * a.keys) return;
  const WarpRow at(GridWarp(), a.key_heads, a.keys);
  ScoreGradient<C>* const of_warp = gradients[WarpIndex()];
  const T* k = HeadRow<T>(a, a.operands.k, at.row, at.head);
  const T* v = HeadRow<T>(a, a.operands.v, at.row, at.head);
  ChannelSums<C, kChannels> of_key, of_value;
  KeyRange queries{0, 0};
  if (at.token < a.KeyCount(at.sample)) queries = a.SeeingQueries(at.token);
  for (int64_t member = 0; member < a.queries_per_key; ++member) {
    const int64_t head = at.head * a.queries_per_key + member;
    for (int64_t first = queries.begin; first < queries.end;
         first += kWarpThreads) {
      const int64_t query = first + WarpLane();
      const int64_t row = at.sample * a.queries + query;
      ScoreGradient<C> gradient = {0, 0};
      if (query < queries.end) {
        gradient =
            GradientOf<T>(a, (at.sample * a.heads + head) * a.queries + query,
                          HeadRow<T>(a, a.operands.q, row, head),
                          HeadRow<T>(a, a.gradients.out, row, head), k, v);
      }
      of_warp[WarpLane()] = gradient;
      __syncwarp();
      for (int j = 0; j < kWarpThreads && first + j < queries.end; ++j) {
        const int64_t seeing = at.sample * a.queries + first + j;
        of_key.Add(of_warp[j].slope, HeadRow<T>(a, a.operands.q, seeing, head),
                   a.head_dim);
        of_value.Add(of_warp[j].probability,
                     HeadRow<T>(a, a.gradients.out, seeing, head), a.head_dim);
      }
      __syncwarp();
    }
  }
  Store<T>(of_key, a, a.gradients.k, at.row, at.head);
  Store<T>(of_value, a, a.gradients.v, at.row, at.head);
}

}  // namespace

void CheckKeyCounts(Stream& stream, const AttentionArguments& a) {
  if (a.operands.key_counts == nullptr) return;
  Launch({GridFor(a.batch, kRowThreads), kRowThreads, 0, Handle(stream)},
         CheckKeyCountsKernel, a);
}

void PlainAttentionForward(Stream& stream, DType dtype,
                           const AttentionArguments& a) {
  DispatchChannels(
      dtype, a.head_dim,
      [&]<typename T, typename Channels>(T, Channels, int64_t blocks) {
        Launch(ForRows(stream, a.batch * a.heads * a.queries, blocks),
               ForwardKernel<T, Channels::value>, a);
      });
}

void AttentionDelta(Stream& stream, DType dtype, const AttentionArguments& a,
                    void* delta) {
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a.batch * a.heads * a.queries), DeltaKernel<T>, a,
           static_cast<ComputeType<T>*>(delta));
  });
}

void PlainAttentionBackward(Stream& stream, DType dtype,
                            const AttentionArguments& a) {
  DispatchChannels(
      dtype, a.head_dim,
      [&]<typename T, typename Channels>(T, Channels, int64_t blocks) {
        Launch(ForRows(stream, a.batch * a.heads * a.queries, blocks),
               QueryGradientKernel<T, Channels::value>, a);
        Launch(ForRows(stream, a.batch * a.key_heads * a.keys, blocks),
               KeyGradientKernel<T, Channels::value>, a);
      });
}

}  // namespace trireme
