#include <algorithm>
#include <cmath>

#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/check.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/readback.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;

// Of warps that have a row each.
__device__ int64_t WarpRow() {
  return static_cast<int64_t>(blockIdx.x) * kWarps +
         static_cast<int>(threadIdx.x) / kWarpThreads;
}
__device__ int WarpLane() {
  return static_cast<int>(threadIdx.x) % kWarpThreads;
}

__device__ int64_t ColumnAt(const ColumnChoice& choice, const int32_t* indices,
                            int64_t i) {
  return CheckedIndex(indices[i], 0, choice.columns, "column");
}

// A value by which columns are ranked: NaN is lowest.
template <typename T>
__device__ ComputeType<T> Rank(T x) {
  const ComputeType<T> wide = Widen(x);
  return wide != wide ? -static_cast<ComputeType<T>>(INFINITY) : wide;
}

// A thread for each row. Insertion into the sorted choices: a later column
// moves ahead of strictly smaller ones only.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TopKKernel(const ColumnChoice choice, const T* x, int32_t* indices) {
  const int64_t row = GridThread();
  if (row >= choice.rows) return;
  const T* from = x + row * choice.columns;
  int32_t* const chosen = indices + row * choice.k;
  int64_t filled = 0;
  for (int64_t column = 0; column < choice.columns; ++column) {
    const auto value = Rank(from[column]);
    int64_t at = filled;
    while (at > 0 && value > Rank(from[chosen[at - 1]])) --at;
    if (at == choice.k) continue;
    if (filled < choice.k) ++filled;
    for (int64_t i = filled - 1; i > at; --i) chosen[i] = chosen[i - 1];
    chosen[at] = static_cast<int32_t>(column);
  }
}

void TopK(Stream& stream, DType dtype, const ColumnChoice& choice,
          const void* x, int32_t* indices) {
  if (choice.rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(choice.rows, kThreads), kThreads, 0, Handle(stream)},
           TopKKernel<T>, choice, static_cast<const T*>(x), indices);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SelectColumnsKernel(const ColumnChoice choice, const int32_t* indices,
                        const T* x, T* y) {
  const int64_t i = GridThread();
  if (i >= choice.rows * choice.k) return;
  y[i] = x[i / choice.k * choice.columns + ColumnAt(choice, indices, i)];
}

void SelectColumns(Stream& stream, DType dtype, const ColumnChoice& choice,
                   const int32_t* indices, const void* x, void* y) {
  const int64_t n = choice.rows * choice.k;
  if (n == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)},
           SelectColumnsKernel<T>, choice, indices, static_cast<const T*>(x),
           static_cast<T*>(y));
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    PlaceColumnsKernel(const ColumnChoice choice, const int32_t* indices,
                       const T* y, T* x) {
  const int64_t at = GridThread();
  if (at >= choice.rows * choice.columns) return;
  const int64_t row = at / choice.columns;
  T value;
  Narrow(ComputeType<T>(0), value);
  for (int64_t i = row * choice.k; i < (row + 1) * choice.k; ++i) {
    if (ColumnAt(choice, indices, i) == at - row * choice.columns) value = y[i];
  }
  x[at] = value;
}

void PlaceColumns(Stream& stream, DType dtype, const ColumnChoice& choice,
                  const int32_t* indices, const void* y, void* x) {
  const int64_t n = choice.rows * choice.columns;
  if (n == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)},
           PlaceColumnsKernel<T>, choice, indices, static_cast<const T*>(y),
           static_cast<T*>(x));
  });
}

// A stable sort by counting: the block of a group counts the routes of lower
// groups, then ranks its own in the order of routes. One more block, of the
// group −1, marks those that are not routed.
__global__ void __launch_bounds__(kThreads)
    SortRoutesKernel(const RouteSort sort, int64_t* counts) {
  KERNEL_SHARED(of_warps, int[kWarps]);
  const int64_t n = sort.tokens * sort.k;
  const int group = static_cast<int>(blockIdx.x) - 1;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  if (group < 0) {
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      if (CheckedIndex(sort.group[i], -1, sort.groups, "group") < 0) {
        sort.places[i] = -1;
      }
    }
    return;
  }
  int lower = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    if (sort.group[i] >= 0 && sort.group[i] < group) ++lower;
  }
  const int begin = BlockSum<kThreads>(lower);
  int next = begin;
  for (int64_t first = 0; first < n; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const bool mine = i < n && sort.group[i] == group;
    const unsigned votes = __ballot_sync(kWholeWarp, mine);
    if (WarpLane() == 0) of_warps[warp] = __popc(votes);
    __syncthreads();
    int row = next + __popc(votes & ((1u << WarpLane()) - 1));
    UNROLL
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) row += of_warps[w];
      next += of_warps[w];
    }
    if (mine) {
      sort.places[i] = row;
      sort.routes[row] = static_cast<int32_t>(i);
      sort.token[row] = static_cast<int32_t>(i / sort.k);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) counts[group] = next - begin;
}

void SortRoutes(Stream& stream, const RouteSort& sort) {
  const std::span<int64_t> counts = ReadbackAs<int64_t>(stream);
  CHECK_LE(sort.groups, static_cast<int64_t>(counts.size()));
  Launch({GridFor(sort.groups + 1, 1), kThreads, 0, Handle(stream)},
         SortRoutesKernel, sort, counts.data());
  stream.Synchronize();
  std::copy_n(counts.begin(), sort.groups, sort.counts);
}

// A warp for each sample and group.
template <typename C>
__global__ void __launch_bounds__(kThreads)
    CountRoutesKernel(int64_t samples, int64_t routes, int64_t groups,
                      const int32_t* group, C* counts) {
  const int64_t at = WarpRow();
  if (at >= samples * groups) return;
  const int64_t sample = at / groups;
  const int64_t mine = at - sample * groups;
  int count = 0;
  for (int64_t i = WarpLane(); i < routes; i += kWarpThreads) {
    const int32_t of_route = group[sample * routes + i];
    if (of_route >= 0 && CheckedIndex(of_route, 0, groups, "group") == mine) {
      ++count;
    }
  }
  count = WarpSum(count);
  if (WarpLane() == 0) counts[at] = static_cast<C>(count);
}

void CountRoutes(Stream& stream, DType dtype, int64_t samples, int64_t routes,
                 int64_t groups, const int32_t* group, void* counts) {
  if (samples * groups == 0) return;
  DispatchElement(ComputeDType(dtype), [&]<typename T>(T) {
    using C = ComputeType<T>;
    Launch({GridFor(samples * groups, kWarps), kThreads, 0, Handle(stream)},
           CountRoutesKernel<C>, samples, routes, groups, group,
           static_cast<C*>(counts));
  });
}

// A thread for each pack of columns of each token.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SumRowsKernel(int64_t tokens, int64_t k, int64_t width,
                  const int32_t* places, const T* rows, T* y) {
  constexpr int kSize = kPackSize<T>;
  const int64_t packs = (width + kSize - 1) / kSize;
  const int64_t thread = GridThread();
  if (thread >= tokens * packs) return;
  const int64_t token = thread / packs;
  const int64_t column = (thread - token * packs) * kSize;
  Pack<ComputeType<T>, kSize> sums = {};
  for (int64_t j = 0; j < k; ++j) {
    const int64_t place = places[token * k + j];
    if (place < 0) continue;
    const auto row =
        LoadPack<kSize>(rows + place * width + column, width - column);
    UNROLL
    for (int i = 0; i < kSize; ++i) sums[i] += row[i];
  }
  StorePack(sums, y + token * width + column, width - column);
}

void SumRows(Stream& stream, DType dtype, int64_t tokens, int64_t k,
             int64_t width, const int32_t* places, const void* rows, void* y) {
  if (tokens * width == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    constexpr int kSize = kPackSize<T>;
    const int64_t packs = (width + kSize - 1) / kSize;
    Launch({GridFor(tokens * packs, kThreads), kThreads, 0, Handle(stream)},
           SumRowsKernel<T>, tokens, k, width, places,
           static_cast<const T*>(rows), static_cast<T*>(y));
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ScaleRowsKernel(int64_t rows, int64_t width, const ComputeType<T>* factors,
                    const T* x, T* y) {
  constexpr int kSize = kPackSize<T>;
  const int64_t packs = (width + kSize - 1) / kSize;
  const int64_t thread = GridThread();
  if (thread >= rows * packs) return;
  const int64_t row = thread / packs;
  const int64_t column = (thread - row * packs) * kSize;
  auto values = LoadPack<kSize>(x + row * width + column, width - column);
  UNROLL
  for (int i = 0; i < kSize; ++i) values[i] *= factors[row];
  StorePack(values, y + row * width + column, width - column);
}

void ScaleRows(Stream& stream, DType dtype, int64_t rows, int64_t width,
               const void* factors, const void* x, void* y) {
  if (rows * width == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    constexpr int kSize = kPackSize<T>;
    const int64_t packs = (width + kSize - 1) / kSize;
    Launch({GridFor(rows * packs, kThreads), kThreads, 0, Handle(stream)},
           ScaleRowsKernel<T>, rows, width,
           static_cast<const ComputeType<T>*>(factors),
           static_cast<const T*>(x), static_cast<T*>(y));
  });
}

// A warp for each row, in fp64.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RowDotsKernel(int64_t rows, int64_t width, const T* a, const T* b,
                  ComputeType<T>* dots) {
  constexpr int kSize = kPackSize<T>;
  const int64_t row = WarpRow();
  if (row >= rows) return;
  double sum = 0;
  for (int64_t at = WarpLane() * kSize; at < width;
       at += kWarpThreads * kSize) {
    const auto left = LoadPack<kSize>(a + row * width + at, width - at);
    const auto right = LoadPack<kSize>(b + row * width + at, width - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      sum = MultiplyAdd(static_cast<double>(left[i]),
                        static_cast<double>(right[i]), sum);
    }
  }
  sum = WarpSum(sum);
  if (WarpLane() == 0) dots[row] = static_cast<ComputeType<T>>(sum);
}

void RowDots(Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void* a, const void* b, void* dots) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, kWarps), kThreads, 0, Handle(stream)},
           RowDotsKernel<T>, rows, width, static_cast<const T*>(a),
           static_cast<const T*>(b), static_cast<ComputeType<T>*>(dots));
  });
}

// A warp for each row, in fp64.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    LogSumExpKernel(int64_t rows, int64_t width, const T* x, T* y) {
  const int64_t row = WarpRow();
  if (row >= rows) return;
  x += row * width;
  double highest = -static_cast<double>(INFINITY);
  for (int64_t i = WarpLane(); i < width; i += kWarpThreads) {
    highest = Higher()(highest, static_cast<double>(Widen(x[i])));
  }
  highest = CombineWarp(highest, Higher());
  double sum = 0;
  for (int64_t i = WarpLane(); i < width; i += kWarpThreads) {
    sum += exp(static_cast<double>(Widen(x[i])) - highest);
  }
  sum = WarpSum(sum);
  if (WarpLane() == 0) {
    Narrow(static_cast<ComputeType<T>>(highest + log(sum)), y[row]);
  }
}

void LogSumExp(Stream& stream, DType dtype, int64_t rows, int64_t width,
               const void* x, void* y) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, kWarps), kThreads, 0, Handle(stream)},
           LogSumExpKernel<T>, rows, width, static_cast<const T*>(x),
           static_cast<T*>(y));
  });
}

}  // namespace

RoutingKernels CudaRouting() {
  return {.top_k = TopK,
          .select_columns = SelectColumns,
          .place_columns = PlaceColumns,
          .sort_routes = SortRoutes,
          .count_routes = CountRoutes,
          .sum_rows = SumRows,
          .scale_rows = ScaleRows,
          .row_dots = RowDots,
          .log_sum_exp = LogSumExp};
}

}  // namespace trireme
