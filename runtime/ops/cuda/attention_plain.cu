#include <cmath>

#include "runtime/ops/cuda/attention_arguments.cuh"
#include "runtime/ops/cuda/attention_plain.h"
#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/check.cuh"

namespace trireme {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
// At once on a multiprocessor: for more the compiler would spill registers.
constexpr int kBlocks = 4;

__device__ int WarpIndex() {
  return static_cast<int>(threadIdx.x) / kWarpThreads;
}
__device__ int WarpLane() {
  return static_cast<int>(threadIdx.x) % kWarpThreads;
}
__device__ int64_t GridWarp() {
  return static_cast<int64_t>(blockIdx.x) * kWarps + WarpIndex();
}

// Of numbers below 2³²: a division of 64 bits is a call, around which registers
// would be spilled.
__device__ int64_t Quotient(int64_t a, int64_t b) {
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
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
  // In the compute type where nothing is to be rounded.
  template <typename T>
  __device__ void Store(const AttentionArguments& a, const HeadsPointer& to,
                        int64_t row, int64_t head) const {
    UNROLL
    for (int i = 0; i < kChannels; ++i) {
      const int64_t channel = ChannelOf(i);
      if (channel >= a.head_dim) continue;
      if (a.unrounded) {
        HeadRow<C>(a, to, row, head)[channel] = values[i];
      } else {
        Narrow(values[i], HeadRow<T>(a, to, row, head)[channel]);
      }
    }
  }
};

// A kernel of its own: a call takes registers from one that has none to spare.
__global__ void __launch_bounds__(kThreads)
    CheckKeyCountsKernel(const __grid_constant__ AttentionArguments a) {
  const int64_t sample = GridThread();
  if (sample >= a.batch) return;
  CheckedIndex(a.KeyCount(sample), 0, a.keys + 1, "number of keys");
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads, kBlocks)
    ForwardKernel(const __grid_constant__ AttentionArguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(weights, C[kWarps][kWarpThreads]);
  if (GridWarp() >= a.batch * a.heads * a.queries) return;
  const WarpRow at(GridWarp(), a.heads, a.queries);
  const int64_t key_head = Quotient(at.head, a.queries_per_key);
  C* const of_warp = weights[WarpIndex()];
  const T* q = HeadRow<T>(a, a.operands.q, at.row, at.head);
  const C scale = static_cast<C>(a.scale);
  const C none = -static_cast<C>(INFINITY);
  const KeyRange keys = a.VisibleKeys(at.sample, at.token);
  ChannelSums<C, kChannels> sums;
  C highest = none, total = 0;
  for (int64_t first = keys.begin; first < keys.end; first += kWarpThreads) {
    const int64_t key = first + WarpLane();
    const bool valid = key < keys.end;
    const int64_t row = at.sample * a.keys + key;
    C score = none;
    if (valid) {
      score = Dot(q, HeadRow<T>(a, a.operands.k, row, key_head), a.head_dim) *
              scale;
    }
    const C before = highest;
    highest = Higher()(before, CombineWarp(score, Higher()));
    const C weight = valid ? Exp(score - highest) : C(0);
    const C rescale = Exp(before - highest);
    total = MultiplyAdd(total, rescale, WarpSum(weight));
    of_warp[WarpLane()] = weight;
    __syncwarp();
    sums.Scale(rescale);
    for (int j = 0; j < kWarpThreads && first + j < keys.end; ++j) {
      sums.Add(
          of_warp[j],
          HeadRow<T>(a, a.operands.v, at.sample * a.keys + first + j, key_head),
          a.head_dim);
    }
    __syncwarp();
  }
  // A query that saw no key has the sum 0 of values.
  const bool empty = highest == none;
  sums.Scale(empty ? C(0) : C(1) / total);
  sums.template Store<T>(a, a.operands.out, at.row, at.head);
  if (WarpLane() == 0 && blockIdx.y == 0) {
    static_cast<C*>(a.operands.log_sum_exp)[GridWarp()] =
        empty ? none : highest + Log(total);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DeltaKernel(const __grid_constant__ AttentionArguments a,
                ComputeType<T>* delta) {
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

// The probability of one score and its gradient times the scale.
template <typename C>
struct ScoreGradient {
  C probability;
  C slope;
};

// Of a query (its place in log_sum_exp: `at`) and a key, by one lane.
template <typename T>
__device__ ScoreGradient<ComputeType<T>> ScoreGradientOf(
    const AttentionArguments& a, int64_t at, const T* q, const T* slope,
    const T* k, const T* v) {
  using C = ComputeType<T>;
  const C scale = static_cast<C>(a.scale);
  const C log_sum_exp = static_cast<const C*>(a.operands.log_sum_exp)[at];
  const C delta = static_cast<const C*>(a.delta)[at];
  const C probability =
      Exp(MultiplyAdd(scale, Dot(q, k, a.head_dim), -log_sum_exp));
  return {probability,
          scale * probability * (Dot(slope, v, a.head_dim) - delta)};
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads, kBlocks)
    QueryGradientKernel(const __grid_constant__ AttentionArguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(slopes, C[kWarps][kWarpThreads]);
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
            ? ScoreGradientOf<T>(a, GridWarp(), q, slope,
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
  sums.template Store<T>(a, a.gradients.q, at.row, at.head);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads, kBlocks)
    KeyGradientKernel(const __grid_constant__ AttentionArguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(gradients, ScoreGradient<C>[kWarps][kWarpThreads]);
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
        gradient = ScoreGradientOf<T>(
            a, (at.sample * a.heads + head) * a.queries + query,
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
  of_key.template Store<T>(a, a.gradients.k, at.row, at.head);
  of_value.template Store<T>(a, a.gradients.v, at.row, at.head);
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
LaunchConfig ForRows(Stream& stream, int64_t rows, int64_t blocks_of_head) {
  CHECK_LT(rows, int64_t{1} << 32);
  dim3 grid = GridFor(rows, kWarps);
  grid.y = static_cast<unsigned>(blocks_of_head);
  return {grid, kThreads, 0, Handle(stream)};
}

}  // namespace

void CheckKeyCounts(Stream& stream, const AttentionArguments& a) {
  if (a.operands.key_counts == nullptr) return;
  Launch({GridFor(a.batch, kThreads), kThreads, 0, Handle(stream)},
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
    Launch(ForRows(stream, a.batch * a.heads * a.queries, 1), DeltaKernel<T>, a,
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
