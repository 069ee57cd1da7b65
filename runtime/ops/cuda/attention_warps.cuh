// What attention without tensor cores is made of: a warp has a row of a head,
// its lanes have keys (or queries) to multiply it with and channels to sum.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ATTENTION_WARPS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_ATTENTION_WARPS_CUH_

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

inline constexpr int kRowWarps = 4;
inline constexpr int kRowThreads = kRowWarps * kWarpThreads;
// At once on a multiprocessor: for more the compiler would spill registers.
inline constexpr int kRowBlocks = 4;

__device__ inline int WarpIndex() {
  return static_cast<int>(threadIdx.x) / kWarpThreads;
}
__device__ inline int WarpLane() {
  return static_cast<int>(threadIdx.x) % kWarpThreads;
}
__device__ inline int64_t GridWarp() {
  return static_cast<int64_t>(blockIdx.x) * kRowWarps + WarpIndex();
}

// Of numbers below 2³²: a division of 64 bits is a call, around which registers
// would be spilled.
__device__ inline int64_t Quotient(int64_t a, int64_t b) {
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

// The elements of a head of row `row`.
template <typename T>
__device__ T* HeadRow(const HeadsPointer& heads, int64_t row, int64_t head,
                      int64_t head_dim) {
  return static_cast<T*>(heads.data) + row * heads.row_stride + head * head_dim;
}

// A query of one head of one sample, or a key; `row` counts the sample's, too.
struct WarpRow {
  int64_t sample;
  int64_t head;
  int64_t token;
  int64_t row;

  // Of warp `index` of samples·heads·tokens.
  __device__ WarpRow(int64_t index, int64_t heads, int64_t tokens) {
    const int64_t of_head = Quotient(index, tokens);
    sample = Quotient(of_head, heads);
    head = of_head - sample * heads;
    token = index - of_head * tokens;
    row = sample * tokens + token;
  }
};

// By one lane.
template <typename T>
__device__ ComputeType<T> Dot(const T* a, const T* b, int64_t n) {
  constexpr int kSize = kPackSize<T>;
  ComputeType<T> sum = 0;
  for (int64_t at = 0; at < n; at += kSize) {
    const auto left = LoadPack<kSize>(a + at, n - at);
    const auto right = LoadPack<kSize>(b + at, n - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) sum = MultiplyAdd(left[i], right[i], sum);
  }
  return sum;
}

// Sums for the channels lane + 32·i of a head, from those of the block on: wide
// heads take several blocks, each of which finds all scores.
template <typename C, int kChannels>
struct ChannelSums {
  C values[kChannels] = {};

  __device__ static int64_t ChannelOf(int i) {
    return (static_cast<int64_t>(blockIdx.y) * kChannels + i) * kWarpThreads +
           WarpLane();
  }
  __device__ void Scale(C factor) {
    UNROLL
    for (int i = 0; i < kChannels; ++i) values[i] *= factor;
  }
  template <typename T>
  __device__ void Add(C factor, const T* row, int64_t head_dim) {
    UNROLL
    for (int i = 0; i < kChannels; ++i) {
      const int64_t channel = ChannelOf(i);
      if (channel < head_dim) {
        values[i] = MultiplyAdd(factor, Widen(row[channel]), values[i]);
      }
    }
  }
  template <typename T>
  __device__ void Store(T* row, int64_t head_dim) const {
    UNROLL
    for (int i = 0; i < kChannels; ++i) {
      const int64_t channel = ChannelOf(i);
      if (channel < head_dim) Narrow(values[i], row[channel]);
    }
  }
};

// The softmax of a row's scores and the sum of values that it weighs, 32 keys
// after the other.
template <typename C, int kChannels>
struct RowSoftmax {
  C highest = -static_cast<C>(INFINITY);
  C total = 0;
  ChannelSums<C, kChannels> sums;

  // The score of the lane's key, and `count` keys from the first lane's on (at
  // most 32 are there), whose values row_of(lane) has. `weights` is the warp's.
  template <typename F>
  __device__ void Add(C score, int64_t count, int64_t head_dim, C* weights,
                      F&& row_of) {
    const bool valid = WarpLane() < count;
    const C before = highest;
    highest = Higher()(before, CombineWarp(score, Higher()));
    const C weight = valid ? Exp(score - highest) : C(0);
    const C rescale = Exp(before - highest);
    total = MultiplyAdd(total, rescale, WarpSum(weight));
    weights[WarpLane()] = weight;
    __syncwarp();
    sums.Scale(rescale);
    for (int j = 0; j < kWarpThreads && j < count; ++j) {
      sums.Add(weights[j], row_of(j), head_dim);
    }
    __syncwarp();
  }
  // The mean of values, 0 of no key, whose log-sum-exp (−∞) is returned.
  __device__ C Finish() {
    const bool empty = highest == -static_cast<C>(INFINITY);
    sums.Scale(empty ? C(0) : C(1) / total);
    return empty ? highest : highest + Log(total);
  }
};

// The probability of one score and its gradient times the scale.
template <typename C>
struct ScoreGradient {
  C probability;
  C slope;
};

// Of a query and a key, by one lane; `slope` is the gradient of the query's
// output.
template <typename T>
__device__ ScoreGradient<ComputeType<T>> ScoreGradientOf(
    const T* q, const T* slope, const T* k, const T* v, int64_t head_dim,
    ComputeType<T> scale, ComputeType<T> log_sum_exp, ComputeType<T> delta) {
  const ComputeType<T> probability =
      Exp(MultiplyAdd(scale, Dot(q, k, head_dim), -log_sum_exp));
  return {probability, scale * probability * (Dot(slope, v, head_dim) - delta)};
}

// Calls f(T, number of channels of a lane, blocks that a head takes).
template <typename F>
void DispatchChannels(DType dtype, int64_t head_dim, F&& f) {
  constexpr int64_t kNarrow = 4, kWide = 8;
  DispatchElement(dtype, [&]<typename T>(T element) {
    if (head_dim <= kNarrow * kWarpThreads) {
      f(element, std::integral_constant<int, kNarrow>(), 1);
    } else {
      f(element, std::integral_constant<int, kWide>(),
        (head_dim + kWide * kWarpThreads - 1) / (kWide * kWarpThreads));
    }
  });
}

// A warp for each of `rows`.
inline LaunchConfig ForRows(Stream& stream, int64_t rows,
                            int64_t blocks_of_head = 1) {
  CHECK_LT(rows, int64_t{1} << 32);
  dim3 grid = GridFor(rows, kRowWarps);
  grid.y = static_cast<unsigned>(blocks_of_head);
  return {grid, kRowThreads, 0, Handle(stream)};
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ATTENTION_WARPS_CUH_
