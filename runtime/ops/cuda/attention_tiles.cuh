// Tiles of heads in shared memory and the fragments of tensor cores, for
// attention on these.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ATTENTION_TILES_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_ATTENTION_TILES_CUH_

#include <cstdint>

#include "runtime/device/cuda/ptx.cuh"
#include "runtime/ops/cuda/attention_arguments.cuh"
#include "runtime/ops/cuda/blocks.cuh"

namespace trireme {

// Four warps, each with 16 rows of the block's tile.
inline constexpr int kTileWarps = 4;
inline constexpr int kTileThreads = kTileWarps * kWarpThreads;
inline constexpr int kFragmentRows = 16;
inline constexpr int kTileRows = kTileWarps * kFragmentRows;

// Rows of a head; those beyond kDim keep rows in different banks.
template <typename T, int kRows, int kDim>
using Tile = T[kRows][kDim + 8];

// See MultiplyFragments.
__device__ inline int FragmentRow() {
  return static_cast<int>(threadIdx.x) % kWarpThreads / 4;
}
__device__ inline int FragmentColumn() {
  return static_cast<int>(threadIdx.x) % 4 * 2;
}
__device__ inline int WarpFirstRow() {
  return static_cast<int>(threadIdx.x) / kWarpThreads * kFragmentRows;
}

// `count` rows of a head from `from` on; zeros beyond them and beyond the head.
// Called by all threads.
template <int kRows, int kDim, typename T>
__device__ void LoadTile(const T* from, int64_t stride, int64_t count,
                         int64_t head_dim, Tile<T, kRows, kDim>& tile) {
  constexpr int kSize = kPackSize<T>;
  constexpr int kPacks = kDim / kSize;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks;
       i += kTileThreads) {
    const int row = i / kPacks;
    const int column = i % kPacks * kSize;
    const T* const at = from + row * stride + column;
    StoredPack<T, kSize> pack;
    if (row < count && column + kSize <= head_dim && IsAlignedPack<kSize>(at)) {
      pack = *reinterpret_cast<const StoredPack<T, kSize>*>(at);
    } else {
      UNROLL
      for (int k = 0; k < kSize; ++k) {
        if (row < count && column + k < head_dim) {
          pack.elements[k] = at[k];
        } else {
          Narrow(0.0f, pack.elements[k]);
        }
      }
    }
    *reinterpret_cast<StoredPack<T, kSize>*>(&tile[row][column]) = pack;
  }
}

template <typename T>
__device__ uint32_t WordAt(const T* at) {
  return *reinterpret_cast<const uint32_t*>(at);
}

template <typename T>
__device__ uint32_t WordOf(T low, T high) {
  const StoredPack<T, 2> pair = {{low, high}};
  return *reinterpret_cast<const uint32_t*>(&pair);
}

template <typename T>
__device__ uint32_t RoundedWord(float low, float high) {
  StoredPack<T, 2> pair;
  Narrow(low, pair.elements[0]);
  Narrow(high, pair.elements[1]);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// a = rows [row, row + 16), columns [column, column + 16).
template <typename T, int kRows, int kStride>
__device__ void LoadLeft(const T (&tile)[kRows][kStride], int row, int column,
                         uint32_t (&a)[4]) {
  UNROLL
  for (int i = 0; i < 4; ++i) {
    a[i] = WordAt(&tile[row + FragmentRow() + i % 2 * 8]
                       [column + FragmentColumn() + i / 2 * 8]);
  }
}

// b = the transpose of rows [row, row + 8), columns [column, column + 16).
template <typename T, int kRows, int kStride>
__device__ void LoadTransposed(const T (&tile)[kRows][kStride], int row,
                               int column, uint32_t (&b)[2]) {
  UNROLL
  for (int i = 0; i < 2; ++i) {
    b[i] =
        WordAt(&tile[row + FragmentRow()][column + FragmentColumn() + i * 8]);
  }
}

// b = rows [row, row + 16), columns [column, column + 8).
template <typename T, int kRows, int kStride>
__device__ void LoadRight(const T (&tile)[kRows][kStride], int row, int column,
                          uint32_t (&b)[2]) {
  UNROLL
  for (int i = 0; i < 2; ++i) {
    const int at = row + FragmentColumn() + i * 8;
    b[i] = WordOf(tile[at][column + FragmentRow()],
                  tile[at + 1][column + FragmentRow()]);
  }
}

// Sums of 16 rows and kColumns columns, as MultiplyFragments has them.
template <int kColumns>
struct FragmentSums {
  float values[kColumns / 8][4] = {};

  // The columns [16·step, 16·step + 16), rounded, as the left operand.
  template <typename T>
  __device__ void Round(int step, uint32_t (&a)[4]) const {
    UNROLL
    for (int i = 0; i < 4; ++i) {
      const float(&from)[4] = values[2 * step + i / 2];
      a[i] = RoundedWord<T>(from[i % 2 * 2], from[i % 2 * 2 + 1]);
    }
  }
  // Each of the thread's two rows by its factor.
  __device__ void ScaleRows(const float (&factors)[2]) {
    UNROLL
    for (int n = 0; n < kColumns / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) values[n][i] *= factors[i / 2];
    }
  }
  // Row of element i of a fragment, in the warp's rows; column in the sums.
  __device__ static int Row(int i) { return FragmentRow() + i / 2 * 8; }
  __device__ static int Column(int n, int i) {
    return n * 8 + FragmentColumn() + i % 2;
  }

  // Writes the rows before `count` of the head that begins at `row`.
  template <typename T>
  __device__ void Store(const AttentionArguments& a, const HeadsPointer& to,
                        int64_t row, int64_t count, int64_t head) const {
    UNROLL
    for (int n = 0; n < kColumns / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const int64_t channel = Column(n, i);
        if (Row(i) >= count || channel >= a.head_dim) continue;
        if (a.unrounded) {
          HeadRow<float>(a, to, row + Row(i), head)[channel] = values[n][i];
        } else {
          Narrow(values[n][i], HeadRow<T>(a, to, row + Row(i), head)[channel]);
        }
      }
    }
  }
};

// sums += the warp's rows of `left`, times the transpose of `right`.
template <int kDim, typename T, int kRows, int kColumns>
__device__ void MultiplyTransposed(const T (&left)[kRows][kDim + 8],
                                   const T (&right)[kColumns][kDim + 8],
                                   FragmentSums<kColumns>& sums) {
  UNROLL
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[4];
    LoadLeft(left, WarpFirstRow(), 16 * step, a);
    UNROLL
    for (int n = 0; n < kColumns / 8; ++n) {
      uint32_t b[2];
      LoadTransposed(right, 8 * n, 16 * step, b);
      MultiplyFragments<T>(a, b, sums.values[n]);
    }
  }
}

// sums += `left`, rounded to T, times `right`.
template <typename T, int kColumns, int kDim>
__device__ void MultiplyRounded(const FragmentSums<kColumns>& left,
                                const T (&right)[kColumns][kDim + 8],
                                FragmentSums<kDim>& sums) {
  UNROLL
  for (int step = 0; step < kColumns / 16; ++step) {
    uint32_t a[4];
    left.template Round<T>(step, a);
    UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      uint32_t b[2];
      LoadRight(right, 16 * step, 8 * n, b);
      MultiplyFragments<T>(a, b, sums.values[n]);
    }
  }
}

// A tile of rows of one head of one sample: which of them a block has.
struct TilePlace {
  int64_t sample;
  int64_t head;
  int64_t first;  // token
  int64_t count;  // of tokens from `first` on

  // Of a grid of tiles, heads and samples.
  __device__ explicit TilePlace(int64_t tokens)
      : sample(blockIdx.z),
        head(blockIdx.y),
        first(static_cast<int64_t>(blockIdx.x) * kTileRows),
        count(tokens - first) {}
  // Of its first token, in an array [samples, heads, tokens].
  __device__ int64_t At(int64_t heads, int64_t tokens) const {
    return (sample * heads + head) * tokens + first;
  }
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ATTENTION_TILES_CUH_
