#include <cuda_fp8.h>

#include <cstdint>

#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;
constexpr uint8_t kNan = 0x7f;

// As the host's: the least power of two s, at least 2^-126, with largest <=
// 448 s; infinite where the largest is no number.
__device__ inline float ScaleFor(float largest) {
  if (largest == 0) return 0;
  const unsigned bits = __float_as_uint(largest);
  constexpr unsigned kExponents = 0x7f800000u;
  if (bits >= kExponents) return __uint_as_float(kExponents);
  // 448 is 1.75·2^8.
  const int exponent = static_cast<int>(bits >> 23);
  const bool above = (bits & 0x7fffffu) > 0x600000u;
  const int of_scale = exponent - 8 + (above ? 1 : 0);
  return __uint_as_float(static_cast<unsigned>(of_scale < 1 ? 1 : of_scale)
                         << 23);
}

__device__ inline uint8_t CodeOf(float x, float scale) {
  if (scale == 0) return 0;
  const unsigned bits = __float_as_uint(scale);
  if (bits >= 0x7f800000u) return kNan;
  // Of a power of two, with the opposite exponent: exact.
  const float inverse = __uint_as_float((254u << 23) - bits);
  return __nv_cvt_float_to_fp8(x * inverse, __NV_SATFINITE, __NV_E4M3);
}

// By a scale that need not reach.
__device__ inline uint8_t CodeWithin(float x, float scale) {
  return (__float_as_uint(x) & 0x7f800000u) == 0x7f800000u ? kNan
                                                           : CodeOf(x, scale);
}

// Of the block's threads. The larger of two scales does not depend on which
// comes first, so that an atomic keeps the bits.
__device__ inline void RaiseNeeded(float highest, float* needed) {
  highest = CombineBlock<kThreads>(highest, Higher());
  // Numbers that are not negative have the order of their bits.
  if (threadIdx.x == 0) {
    atomicMax(reinterpret_cast<unsigned*>(needed),
              __float_as_uint(ScaleFor(highest)));
  }
}

template <typename C, int kSize>
__device__ inline float HighestOf(const Pack<C, kSize>& pack, float highest) {
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    highest = Higher()(highest, fabsf(static_cast<float>(pack[i])));
  }
  return highest;
}

// A block for each row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RowScalesKernel(int64_t columns, const T* matrix, float* scales) {
  constexpr int kSize = kPackSize<T>;
  const T* const row = matrix + static_cast<int64_t>(blockIdx.x) * columns;
  float highest = 0;
  for (int64_t column = static_cast<int64_t>(threadIdx.x) * kSize;
       column < columns; column += kThreads * kSize) {
    highest =
        HighestOf(LoadPack<kSize>(row + column, columns - column), highest);
  }
  highest = CombineBlock<kThreads>(highest, Higher());
  if (threadIdx.x == 0) scales[blockIdx.x] = ScaleFor(highest);
}

// A block for a few packs of columns, whose threads take rows by turns.
constexpr int kColumnPacks = 4;
constexpr int kRowThreads = kThreads / kColumnPacks;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ColumnScalesKernel(int64_t rows, int64_t columns, const T* matrix,
                       float* scales) {
  constexpr int kSize = kPackSize<T>;
  using Most = Pack<float, kSize>;
  KERNEL_SHARED(of_threads, Most[kRowThreads][kColumnPacks]);
  const int pack = static_cast<int>(threadIdx.x) % kColumnPacks;
  const int thread = static_cast<int>(threadIdx.x) / kColumnPacks;
  const int64_t column =
      (static_cast<int64_t>(blockIdx.x) * kColumnPacks + pack) * kSize;
  Most most = {};
  for (int64_t row = thread; column < columns && row < rows;
       row += kRowThreads) {
    const auto x =
        LoadPack<kSize>(matrix + row * columns + column, columns - column);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      most[i] = Higher()(most[i], fabsf(static_cast<float>(x[i])));
    }
  }
  of_threads[thread][pack] = most;
  __syncthreads();
  if (thread != 0) return;
  for (int t = 1; t < kRowThreads; ++t) {
    const Most part = of_threads[t][pack];
    UNROLL
    for (int i = 0; i < kSize; ++i) most[i] = Higher()(most[i], part[i]);
  }
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    if (column + i < columns) scales[column + i] = ScaleFor(most[i]);
  }
}

// The first `count` codes.
template <int kSize>
__device__ inline void StoreCodes(const StoredPack<uint8_t, kSize>& codes,
                                  uint8_t* to, int64_t count) {
  if (count >= kSize && IsAlignedPack<kSize>(to)) {
    *reinterpret_cast<StoredPack<uint8_t, kSize>*>(to) = codes;
    return;
  }
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    if (i < count) to[i] = codes.elements[i];
  }
}

// A thread for each pack of a row. kWhole: one scale, and `needed` is raised;
// codes may be null.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    RowCodesKernel(int64_t rows, int64_t columns, const T* matrix,
                   const float* scales, float* needed, uint8_t* codes) {
  constexpr int kSize = kPackSize<T>;
  const int64_t packs = (columns + kSize - 1) / kSize;
  const int64_t thread = GridThread();
  [[maybe_unused]] float highest = 0;
  if (thread < rows * packs) {
    const int64_t row = thread / packs;
    const int64_t column = (thread - row * packs) * kSize;
    const int64_t at = row * columns + column;
    const auto x = LoadPack<kSize>(matrix + at, columns - column);
    if constexpr (kWhole) highest = HighestOf(x, highest);
    if (codes != nullptr) {
      const float scale = scales[kWhole ? 0 : row];
      StoredPack<uint8_t, kSize> of_pack;
      UNROLL
      for (int i = 0; i < kSize; ++i) {
        const auto element = static_cast<float>(x[i]);
        of_pack.elements[i] =
            kWhole ? CodeWithin(element, scale) : CodeOf(element, scale);
      }
      StoreCodes<kSize>(of_pack, codes + at, columns - column);
    }
  }
  if constexpr (kWhole) RaiseNeeded(highest, needed);
}

// A block for a square of the matrix, which it turns in shared memory so that
// rows are read and columns written in runs. The last four bytes of a line keep
// its threads in other banks.
constexpr int kSide = 64;
constexpr int kLine = kSide + 4;
constexpr int kStoredCodes = 4;

template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    ColumnCodesKernel(int64_t rows, int64_t columns, const T* matrix,
                      const float* scales, float* needed, uint8_t* codes) {
  constexpr int kSize = kPackSize<T>;
  constexpr int kPacks = kSide / kSize;
  KERNEL_SHARED(turned, uint8_t[kSide * kLine]);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kSide;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kSide;
  // A thread's packs lie below one another.
  static_assert(kThreads % kPacks == 0);
  const int inside = static_cast<int>(threadIdx.x) % kPacks * kSize;
  const int64_t column = first_column + inside;
  Pack<float, kSize> scale = {};
  if constexpr (kWhole) {
    UNROLL
    for (int j = 0; j < kSize; ++j) scale[j] = scales[0];
  } else {
    scale = LoadPack<kSize>(scales + column, columns - column);
  }
  [[maybe_unused]] float highest = 0;
  for (int row = static_cast<int>(threadIdx.x) / kPacks;
       row < kSide && first_row + row < rows && column < columns;
       row += kThreads / kPacks) {
    const auto x = LoadPack<kSize>(
        matrix + (first_row + row) * columns + column, columns - column);
    if constexpr (kWhole) highest = HighestOf(x, highest);
    UNROLL
    for (int j = 0; j < kSize; ++j) {
      const auto element = static_cast<float>(x[j]);
      turned[(inside + j) * kLine + row] =
          kWhole ? CodeWithin(element, scale[j]) : CodeOf(element, scale[j]);
    }
  }
  if constexpr (kWhole) RaiseNeeded(highest, needed);
  __syncthreads();
  constexpr int kRuns = kSide / kStoredCodes;
  for (int i = static_cast<int>(threadIdx.x); i < kSide * kRuns;
       i += kThreads) {
    const int column = i / kRuns;
    const int row = i % kRuns * kStoredCodes;
    if (first_column + column >= columns || first_row + row >= rows) continue;
    StoredPack<uint8_t, kStoredCodes> of_run;
    UNROLL
    for (int j = 0; j < kStoredCodes; ++j) {
      of_run.elements[j] = turned[column * kLine + row + j];
    }
    StoreCodes<kStoredCodes>(
        of_run, codes + (first_column + column) * rows + first_row + row,
        rows - first_row - row);
  }
}

void Scales(Stream& stream, const Float8Vectors& vectors, const void* matrix,
            void* scales) {
  if (vectors.rows * vectors.columns == 0) return;
  DispatchElement(vectors.dtype, [&]<typename T>(T) {
    const auto* const x = static_cast<const T*>(matrix);
    auto* const to = static_cast<float*>(scales);
    if (vectors.of_columns) {
      constexpr int kColumns = kColumnPacks * kPackSize<T>;
      Launch({GridFor(vectors.columns, kColumns), kThreads, 0, Handle(stream)},
             ColumnScalesKernel<T>, vectors.rows, vectors.columns, x, to);
    } else {
      Launch({dim3(static_cast<unsigned>(vectors.rows)), kThreads, 0,
              Handle(stream)},
             RowScalesKernel<T>, vectors.columns, x, to);
    }
  });
}

// `needed` is of kWhole.
template <bool kWhole>
void LaunchCodes(Stream& stream, const Float8Vectors& vectors,
                 const void* matrix, const void* scales, void* needed,
                 void* codes) {
  if (vectors.rows * vectors.columns == 0) return;
  DispatchElement(vectors.dtype, [&]<typename T>(T) {
    const auto* const x = static_cast<const T*>(matrix);
    const auto* const of_vectors = static_cast<const float*>(scales);
    auto* const raised = static_cast<float*>(needed);
    auto* const to = static_cast<uint8_t*>(codes);
    if (vectors.of_columns) {
      dim3 grid = GridFor(vectors.columns, kSide);
      grid.y = GridFor(vectors.rows, kSide).x;
      Launch({grid, kThreads, 0, Handle(stream)}, ColumnCodesKernel<T, kWhole>,
             vectors.rows, vectors.columns, x, of_vectors, raised, to);
    } else {
      const int64_t packs = (vectors.columns + kPackSize<T> - 1) / kPackSize<T>;
      Launch({GridFor(vectors.rows * packs, kThreads), kThreads, 0,
              Handle(stream)},
             RowCodesKernel<T, kWhole>, vectors.rows, vectors.columns, x,
             of_vectors, raised, to);
    }
  });
}

void Quantize(Stream& stream, const Float8Vectors& vectors, const void* matrix,
              const void* scales, void* codes) {
  LaunchCodes<false>(stream, vectors, matrix, scales, nullptr, codes);
}

void QuantizeWhole(Stream& stream, const Float8Vectors& vectors,
                   const void* matrix, const void* scale, void* needed,
                   void* codes) {
  LaunchCodes<true>(stream, vectors, matrix, scale, needed, codes);
}

}  // namespace

Float8Kernels CudaFloat8() {
  return {
      .scales = Scales, .quantize = Quantize, .quantize_whole = QuantizeWhole};
}

}  // namespace trireme
