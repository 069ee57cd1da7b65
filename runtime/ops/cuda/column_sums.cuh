// Sums over rows, for each column: of tokens, of gradients of biases and gates.

#ifndef TRIREME_RUNTIME_OPS_CUDA_COLUMN_SUMS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_COLUMN_SUMS_CUH_

#include <cstdint>

#include "runtime/ops/cuda/elements.cuh"

namespace trireme {

// A block sums a few packs of columns: kRowThreads threads for each, which take
// rows by turns and are added in order at the end. Few columns, so that there
// are blocks enough where there is one sum of many rows; accesses of one row
// are still 64 bytes.
inline constexpr int kColumnPacks = 4;
inline constexpr int kRowThreads = 64;

// Terms::At<kSize>(group, row, column) gives the terms of a pack of columns;
// rows of the group begin at group·rows.
template <typename T, bool kAccumulate, typename Terms, typename Out>
__global__ void __launch_bounds__(kColumnPacks* kRowThreads)
    SumColumnsKernel(int64_t rows, int64_t width, const Terms terms, Out* out) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  using Sums = Pack<C, kSize>;
  KERNEL_SHARED(of_threads, Sums[kRowThreads][kColumnPacks]);
  const int pack = static_cast<int>(threadIdx.x) % kColumnPacks;
  const int thread = static_cast<int>(threadIdx.x) / kColumnPacks;
  const int64_t group = blockIdx.y;
  const int64_t column =
      (static_cast<int64_t>(blockIdx.x) * kColumnPacks + pack) * kSize;
  Sums sums = {};
  for (int64_t row = thread; column < width && row < rows; row += kRowThreads) {
    const Sums term =
        terms.template At<kSize>(group, group * rows + row, column);
    UNROLL
    for (int i = 0; i < kSize; ++i) sums[i] += term[i];
  }
  of_threads[thread][pack] = sums;
  __syncthreads();
  if (thread != 0 || column >= width) return;
  Out* const to = out + group * width + column;
  Sums total = {};
  if constexpr (kAccumulate) total = LoadPack<kSize>(to, width - column);
  for (int t = 0; t < kRowThreads; ++t) {
    const Sums part = of_threads[t][pack];
    UNROLL
    for (int i = 0; i < kSize; ++i) total[i] += part[i];
  }
  StorePack(total, to, width - column);
}

// out[groups, width] = (+=) Σ over each group's rows of terms.
template <typename T, bool kAccumulate, typename Terms, typename Out>
void SumColumns(Stream& stream, int64_t groups, int64_t rows, int64_t width,
                const Terms& terms, Out* out) {
  if (groups * width == 0) return;
  constexpr int64_t kColumns = kColumnPacks * kPackSize<T>;
  const dim3 grid(static_cast<unsigned>((width + kColumns - 1) / kColumns),
                  static_cast<unsigned>(groups));
  Launch({grid, kColumnPacks * kRowThreads, 0, Handle(stream)},
         SumColumnsKernel<T, kAccumulate, Terms, Out>, rows, width, terms, out);
}

// The elements themselves.
template <typename T>
struct ElementTerms {
  int64_t width;
  const T* x;

  template <int kSize>
  __device__ Pack<ComputeType<T>, kSize> At(int64_t, int64_t row,
                                            int64_t column) const {
    return LoadPack<kSize>(x + row * width + column, width - column);
  }
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_COLUMN_SUMS_CUH_
