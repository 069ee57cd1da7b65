#include <algorithm>

#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// A block computes a tile of one group's product, a thread kOwn × kOwn elements
// of it. Sums run along the depth in order, so that a row's bits depend on
// nothing else.
constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kOwn = 4;
constexpr int kSide = kTile / kOwn;
constexpr int kThreads = kSide * kSide;

// Groups of one launch, small enough to be its parameter.
constexpr int kLaunchGroups = 128;
struct Groups {
  int64_t first_row[kLaunchGroups];
  int64_t rows[kLaunchGroups];
  int32_t
      first_tile[kLaunchGroups + 1];  // of rows, where they are the result's
  int count = 0;
};

// An operand of a tile: element (i, along the depth) is at i·stride + depth, or
// at depth·stride + i.
template <typename T, bool kAlongDepth>
struct TileOperand {
  const T* first;
  int64_t stride;
  int count;  // of i

  __device__ ComputeType<T> At(int64_t i, int64_t depth) const {
    return Widen(kAlongDepth ? first[i * stride + depth]
                             : first[depth * stride + i]);
  }
};

template <typename C>
using StoredTile = C[kDepth][kTile + 4];

// Elements [depth, depth + kDepth) of an operand; zeros beyond its ends.
template <typename T, bool kAlongDepth>
__device__ void LoadTile(const TileOperand<T, kAlongDepth>& operand,
                         int64_t depth, int64_t end,
                         StoredTile<ComputeType<T>>& to) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth;
       at += kThreads) {
    const int i = kAlongDepth ? at / kDepth : at % kTile;
    const int d = kAlongDepth ? at % kDepth : at / kTile;
    to[d][i] = i < operand.count && depth + d < end ? operand.At(i, depth + d)
                                                    : ComputeType<T>(0);
  }
}

// out(i, j) = (+=) Σ over the depth of a(i)·b(j), plus bias[j] unless it is
// null.
template <bool kAccumulate, typename T, bool kA, bool kB, typename Out>
__device__ void MultiplyTile(const TileOperand<T, kA>& a,
                             const TileOperand<T, kB>& b, int64_t depth,
                             int64_t stride, const T* bias, Out* out) {
  using C = ComputeType<T>;
  KERNEL_SHARED(a_tile, StoredTile<C>);
  KERNEL_SHARED(b_tile, StoredTile<C>);
  const int row = static_cast<int>(threadIdx.x) / kSide * kOwn;
  const int column = static_cast<int>(threadIdx.x) % kSide * kOwn;
  C sums[kOwn][kOwn] = {};
  for (int64_t begin = 0; begin < depth; begin += kDepth) {
    LoadTile(a, begin, depth, a_tile);
    LoadTile(b, begin, depth, b_tile);
    __syncthreads();
    UNROLL
    for (int d = 0; d < kDepth; ++d) {
      UNROLL
      for (int i = 0; i < kOwn; ++i) {
        UNROLL
        for (int j = 0; j < kOwn; ++j) {
          sums[i][j] = MultiplyAdd(a_tile[d][row + i], b_tile[d][column + j],
                                   sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kOwn && row + i < a.count; ++i) {
    for (int j = 0; j < kOwn && column + j < b.count; ++j) {
      Out& to = out[(row + i) * stride + column + j];
      const C sum =
          bias == nullptr ? sums[i][j] : sums[i][j] + Widen(bias[column + j]);
      Narrow(kAccumulate ? Widen(to) + sum : sum, to);
    }
  }
}

__device__ int AtMostTile(int64_t count) {
  return count < kTile ? static_cast<int>(count) : kTile;
}

// out[rows, n] of each group = x·W (+ bias[groups, n]); a block for each tile
// of the groups' rows.
template <typename T, bool kTransposed>
__global__ void __launch_bounds__(kThreads)
    ProductsKernel(const __grid_constant__ Groups groups, int64_t n, int64_t k,
                   const T* x, const T* weights, const T* bias, T* out) {
  const int tile = static_cast<int>(blockIdx.x);
  int group = 0;
  while (groups.first_tile[group + 1] <= tile) ++group;
  const int64_t row =
      static_cast<int64_t>(tile - groups.first_tile[group]) * kTile;
  const int64_t first = groups.first_row[group] + row;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kTile;
  const T* weight = weights + group * n * k;
  const TileOperand<T, true> a = {x + first * k, k,
                                  AtMostTile(groups.rows[group] - row)};
  const TileOperand<T, kTransposed> b = {
      weight + (kTransposed ? column * k : column), kTransposed ? k : n,
      AtMostTile(n - column)};
  MultiplyTile<false>(a, b, k, n,
                      bias == nullptr ? nullptr : bias + group * n + column,
                      out + first * n + column);
}

// out[n, k] of each group += yᵀ·x.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SumsKernel(const __grid_constant__ Groups groups, int64_t n, int64_t k,
               const T* x, const T* y, ComputeType<T>* out) {
  const int group = static_cast<int>(blockIdx.z);
  const int64_t first = groups.first_row[group];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kTile;
  const TileOperand<T, false> a = {y + first * n + row, n, AtMostTile(n - row)};
  const TileOperand<T, false> b = {x + first * k + column, k,
                                   AtMostTile(k - column)};
  MultiplyTile<true>(a, b, groups.rows[group], k,
                     static_cast<const T*>(nullptr),
                     out + (group * n + row) * k + column);
}

unsigned Tiles(int64_t count) {
  return static_cast<unsigned>((count + kTile - 1) / kTile);
}

template <typename T>
void RunGroups(Stream& stream, const GroupedGemmSpec& spec,
               const GroupedGemmOperands& o, const Groups& groups,
               int64_t first_group) {
  const T* x = static_cast<const T*>(o.x);
  const int64_t matrix = first_group * spec.n * spec.k;
  if (spec.accumulate) {
    const dim3 grid(Tiles(spec.n), Tiles(spec.k),
                    static_cast<unsigned>(groups.count));
    Launch({grid, kThreads, 0, Handle(stream)}, SumsKernel<T>, groups, spec.n,
           spec.k, x, static_cast<const T*>(o.y),
           static_cast<ComputeType<T>*>(o.out) + matrix);
    return;
  }
  const int32_t tiles = groups.first_tile[groups.count];
  if (tiles == 0) return;
  const LaunchConfig config = {
      dim3(static_cast<unsigned>(tiles), Tiles(spec.n)), kThreads, 0,
      Handle(stream)};
  const T* weights = static_cast<const T*>(o.weights) + matrix;
  const T* const bias =
      spec.bias ? static_cast<const T*>(o.bias) + first_group * spec.n
                : nullptr;
  T* const out = static_cast<T*>(o.out);
  if (spec.transpose) {
    Launch(config, ProductsKernel<T, true>, groups, spec.n, spec.k, x, weights,
           bias, out);
  } else {
    Launch(config, ProductsKernel<T, false>, groups, spec.n, spec.k, x, weights,
           bias, out);
  }
}

int64_t WorkspaceBytes(const GroupedGemmSpec&) { return 0; }

void Run(Stream& stream, std::span<const int64_t> counts,
         const GroupedGemmSpec& spec, const GroupedGemmOperands& operands) {
  if (spec.n * spec.k == 0) return;
  int64_t row = 0;
  for (size_t first = 0; first < counts.size(); first += kLaunchGroups) {
    const auto some = counts.subspan(
        first, std::min<size_t>(counts.size() - first, kLaunchGroups));
    Groups groups = {};
    for (const int64_t rows : some) {
      const int at = groups.count++;
      groups.first_row[at] = row;
      groups.rows[at] = rows;
      groups.first_tile[at + 1] =
          groups.first_tile[at] + static_cast<int32_t>(Tiles(rows));
      row += rows;
    }
    DispatchElement(spec.dtype, [&]<typename T>(T) {
      RunGroups<T>(stream, spec, operands, groups, static_cast<int64_t>(first));
    });
  }
}

}  // namespace

GroupedGemmKernels CudaGroupedGemm() {
  return {.workspace_bytes = WorkspaceBytes, .run = Run};
}

}  // namespace trireme
