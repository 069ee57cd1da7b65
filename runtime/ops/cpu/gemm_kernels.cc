#include "runtime/ops/cpu/gemm_kernels.h"

#include <algorithm>

#include "runtime/ops/cpu/gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/gemm_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

template <typename From, typename To>
void ConvertRow(const From* from, int64_t count, To* to) {
  ForLanes<float>(count, [&](auto d, int64_t i) HWY_ATTR {
    StoreAt(LoadAt(d, from + i), d, to + i);
  });
}

void WidenBFloat16(const BFloat16* from, int64_t count, float* to) {
  ConvertRow(from, count, to);
}

void WidenFloat16(const Float16* from, int64_t count, float* to) {
  ConvertRow(from, count, to);
}

void RoundToBFloat16(const float* from, int64_t count, BFloat16* to) {
  ConvertRow(from, count, to);
}

void RoundToFloat16(const float* from, int64_t count, Float16* to) {
  ConvertRow(from, count, to);
}

// Rows summed before they are added to the total: keeps the rounding error of
// long sums small.
inline constexpr int64_t kRowBlock = 64;
// At most kMaxSummedColumns columns. Rows are read in memory's order, four at a
// time so that the sums are loaded and stored seldom.
template <typename T>
void SumColumns(const T* x, int64_t rows, int64_t stride, int64_t columns,
                float* out) {
  using D = hn::ScalableTag<float>;
  const D d;
  constexpr int64_t kStep = 2 * hn::MaxLanes(D());
  const auto add = [](const auto& a, const auto& b) HWY_ATTR {
    return Two<D>{hn::Add(a.first, b.first), hn::Add(a.second, b.second)};
  };
  for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
    const int64_t end = std::min(rows, begin + kRowBlock);
    // In the order of LoadTwo's vectors of T.
    float sums[kMaxSummedColumns];
    std::fill_n(sums, (columns + kStep - 1) / kStep * kStep, 0.0f);
    int64_t row = begin;
    for (; row + 4 <= end; row += 4) {
      const T* from = x + row * stride;
      for (int64_t i = 0; i < columns; i += kStep) {
        const auto load = [&](int64_t k) HWY_ATTR {
          return LoadTwoUpTo(d, from + k * stride + i, columns - i);
        };
        const auto four = add(add(load(0), load(1)), add(load(2), load(3)));
        StoreTwo(add(LoadTwo(d, sums + i), four), d, sums + i);
      }
    }
    for (; row < end; ++row) {
      const T* from = x + row * stride;
      for (int64_t i = 0; i < columns; i += kStep) {
        const auto one = LoadTwoUpTo(d, from + i, columns - i);
        StoreTwo(add(LoadTwo(d, sums + i), one), d, sums + i);
      }
    }
    for (int64_t i = 0; i < columns; i += kStep) {
      const auto sum = LoadTwo(d, sums + i);
      if constexpr (kIsBFloat16<T>) {
        const auto total = LoadPairsUpTo(d, out + i, columns - i);
        StorePairsUpTo(add(total, sum), d, out + i, columns - i);
      } else {
        const auto total = LoadTwoUpTo(d, out + i, columns - i);
        StoreTwoUpTo(add(total, sum), d, out + i, columns - i);
      }
    }
  }
}

void SumColumnsFloat(const float* x, int64_t rows, int64_t stride,
                     int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

void SumColumnsFloat16(const Float16* x, int64_t rows, int64_t stride,
                       int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

void SumColumnsBFloat16(const BFloat16* x, int64_t rows, int64_t stride,
                        int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(WidenBFloat16);
HWY_EXPORT(WidenFloat16);
HWY_EXPORT(RoundToBFloat16);
HWY_EXPORT(RoundToFloat16);
HWY_EXPORT(SumColumnsFloat16);
HWY_EXPORT(SumColumnsFloat);
HWY_EXPORT(SumColumnsBFloat16);

namespace {

// Columns are split among threads, so that every sum has one order, into as
// wide blocks as possible: memory is read in long runs.
template <typename F>
void ForColumnBlocks(int64_t rows, int64_t columns, const F& f) {
  constexpr int64_t kGranule = 64;
  const int threads = rows * columns > 65536 ? AvailableThreads() : 1;
  const int64_t share = (columns + threads - 1) / threads;
  const int64_t width =
      std::min(kMaxSummedColumns, (share + kGranule - 1) / kGranule * kGranule);
  const int64_t blocks = (columns + width - 1) / width;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * width;
    f(begin, std::min(columns, begin + width));
  }
}

}  // namespace

void WidenRow(const BFloat16* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenBFloat16)(from, count, to);
}

void WidenRow(const Float16* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenFloat16)(from, count, to);
}

void RoundRow(const float* from, int64_t count, BFloat16* to) {
  HWY_DYNAMIC_DISPATCH(RoundToBFloat16)(from, count, to);
}

void RoundRow(const float* from, int64_t count, Float16* to) {
  HWY_DYNAMIC_DISPATCH(RoundToFloat16)(from, count, to);
}

void AddColumnSums(const BFloat16* x, int64_t rows, int64_t columns,
                   float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsBFloat16)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const Float16* x, int64_t rows, int64_t columns,
                   float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsFloat16)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const float* x, int64_t rows, int64_t columns, float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsFloat)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const double* x, int64_t rows, int64_t columns,
                   double* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = begin; i < end; ++i) out[i] += x[row * columns + i];
    }
  });
}

}  // namespace trireme
#endif  // HWY_ONCE
