#include "runtime/ops/cpu/normalization_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/normalization_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// The statistics of these rows are taken before their results: those of one
// row are a chain of slow operations, which the processor overlaps with those
// of other rows.
constexpr int64_t kRowsTogether = 4;

// Writes the mean and rstd of one row.
template <typename T>
HWY_INLINE void WriteStatistics(const NormArguments& a, int64_t row) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const C inverse_width = C(1) / static_cast<C>(h);
  const T* x = static_cast<const T*>(a.x) + row * h;
  C mean = 0;
  if (a.subtract_mean) {
    const C sum = SumOperands<T>(
        h, [](auto, auto v) HWY_ATTR { return v; }, x);
    mean = inverse_width * sum;
    static_cast<C*>(a.mean)[row] = mean;
  }
  const C squares = SumOperands<T>(
      h,
      [mean](auto d, auto v) HWY_ATTR {
        const auto centred = hn::Sub(v, hn::Set(d, mean));
        return hn::Mul(centred, centred);
      },
      x);
  static_cast<C*>(a.rstd)[row] =
      C(1) / std::sqrt(inverse_width * squares + static_cast<C>(a.eps));
}

// Writes one row by its statistics.
template <typename T>
HWY_INLINE void WriteNormed(const NormArguments& a, int64_t row, T* out) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const T* x = static_cast<const T*>(a.x) + row * h;
  const C mean = a.subtract_mean ? static_cast<const C*>(a.mean)[row] : C(0);
  const C rstd = static_cast<const C*>(a.rstd)[row];
  const C offset = static_cast<C>(a.scale_offset);
  const auto normed = [mean, rstd](auto d, auto v) HWY_ATTR {
    return hn::Mul(hn::Sub(v, hn::Set(d, mean)), hn::Set(d, rstd));
  };
  if (a.scale == nullptr) {
    MapOperands(h, normed, out, x);
    return;
  }
  const int64_t group = row / a.rows_per_group;
  const T* scale = static_cast<const T*>(a.scale) + group * h;
  const auto scaled = [offset, normed](auto d, auto v, auto factor) HWY_ATTR {
    return hn::Mul(normed(d, v), hn::Add(hn::Set(d, offset), factor));
  };
  if (a.shift == nullptr) {
    MapOperands(h, scaled, out, x, scale);
    return;
  }
  const T* shift = static_cast<const T*>(a.shift) + group * h;
  MapOperands(
      h,
      [scaled](auto d, auto v, auto factor, auto plus)
          HWY_ATTR { return hn::Add(scaled(d, v, factor), plus); },
      out, x, scale, shift);
}

template <typename T>
void NormForwardOf(const NormArguments& a, T* y) {
  const int64_t rows = a.groups * a.rows_per_group;
  ParallelRows((rows + kRowsTogether - 1) / kRowsTogether,
               kRowsTogether * a.width, [&](int64_t block) HWY_ATTR {
                 const int64_t first = block * kRowsTogether;
                 const int64_t last = std::min(first + kRowsTogether, rows);
                 for (int64_t row = first; row < last; ++row) {
                   WriteStatistics<T>(a, row);
                 }
                 for (int64_t row = first; row < last; ++row) {
                   WriteNormed<T>(a, row, y + row * a.width);
                 }
               });
}

// A row's sums of slope and of slope·(x − mean), where slope is the gradient of
// the normed row: dy times its factors.
template <typename T>
HWY_INLINE std::array<ComputeType<T>, 2> SlopeSums(const NormArguments& a,
                                                   int64_t row, const T* dy) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const T* x = static_cast<const T*>(a.x) + row * h;
  const C mean = a.subtract_mean ? static_cast<const C*>(a.mean)[row] : C(0);
  const C offset = static_cast<C>(a.scale_offset);
  const auto terms = [mean](auto d, auto slope, auto v) HWY_ATTR {
    return std::array{slope, hn::Mul(slope, hn::Sub(v, hn::Set(d, mean)))};
  };
  if (a.scale == nullptr) return SumsOfOperands<T, 2>(h, terms, dy, x);
  const T* scale = static_cast<const T*>(a.scale) + row / a.rows_per_group * h;
  return SumsOfOperands<T, 2>(
      h,
      [terms, offset](auto d, auto g, auto factor, auto v) HWY_ATTR {
        return terms(d, hn::Mul(g, hn::Add(hn::Set(d, offset), factor)), v);
      },
      dy, scale, x);
}

// Writes one row's gradient; adds dy·n to dot_sums and dy to plain_sums, which
// may be null.
template <typename T>
HWY_INLINE void WriteGradient(const NormArguments& a, int64_t row,
                              const std::array<ComputeType<T>, 2>& slope_sums,
                              const T* dy, const T* add, T* dx,
                              ComputeType<T>* dot_sums,
                              ComputeType<T>* plain_sums) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const T* x = static_cast<const T*>(a.x) + row * h;
  const T* scale = a.scale == nullptr ? nullptr
                                      : static_cast<const T*>(a.scale) +
                                            row / a.rows_per_group * h;
  const C offset = static_cast<C>(a.scale_offset);
  const C mean = a.subtract_mean ? static_cast<const C*>(a.mean)[row] : C(0);
  const C rstd = static_cast<const C*>(a.rstd)[row];
  const C inverse_width = C(1) / static_cast<C>(h);
  const C slope_mean = a.subtract_mean ? inverse_width * slope_sums[0] : C(0);
  const C dot_mean = inverse_width * rstd * slope_sums[1];
  ForLanes<C>(h, [=](auto d, int64_t i) HWY_ATTR {
    const auto n =
        hn::Mul(hn::Sub(LoadAt(d, x + i), hn::Set(d, mean)), hn::Set(d, rstd));
    const auto g = LoadAt(d, dy + i);
    auto slope = g;
    if (scale != nullptr) {
      slope = hn::Mul(g, hn::Add(hn::Set(d, offset), LoadAt(d, scale + i)));
    }
    const auto centred = hn::NegMulAdd(n, hn::Set(d, dot_mean),
                                       hn::Sub(slope, hn::Set(d, slope_mean)));
    auto value = hn::Mul(centred, hn::Set(d, rstd));
    if (add != nullptr) value = hn::Add(value, LoadAt(d, add + i));
    if (dot_sums != nullptr) {
      StoreAt(hn::MulAdd(g, n, LoadAt(d, dot_sums + i)), d, dot_sums + i);
      StoreAt(hn::Add(g, LoadAt(d, plain_sums + i)), d, plain_sums + i);
    }
    StoreAt(value, d, dx + i);
  });
}

template <typename T>
void NormBackwardOf(const NormArguments& a, const T* dy, const T* add, T* dx,
                    ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
  ParallelRows(
      a.groups * blocks, kNormBlockRows * h, [&](int64_t work) HWY_ATTR {
        C* dot_sums = nullptr;
        C* plain_sums = nullptr;
        if (partial_sums != nullptr) {
          dot_sums = partial_sums + work * 2 * h;
          plain_sums = dot_sums + h;
          std::fill(dot_sums, dot_sums + 2 * h, C(0));
        }
        const int64_t group = work / blocks * a.rows_per_group;
        const int64_t begin = work % blocks * kNormBlockRows;
        const int64_t end = std::min(begin + kNormBlockRows, a.rows_per_group);
        for (int64_t r = begin; r < end; r += kRowsTogether) {
          const int64_t first = group + r;
          const int64_t last = group + std::min(r + kRowsTogether, end);
          std::array<std::array<C, 2>, kRowsTogether> slope_sums;
          for (int64_t row = first; row < last; ++row) {
            slope_sums[row - first] = SlopeSums<T>(a, row, dy + row * h);
          }
          for (int64_t row = first; row < last; ++row) {
            WriteGradient<T>(a, row, slope_sums[row - first], dy + row * h,
                             add == nullptr ? nullptr : add + row * h,
                             dx + row * h, dot_sums, plain_sums);
          }
        }
      });
}

template <typename C, typename Out>
void SumBlocksOf(const NormArguments& a, const C* partial_sums, int which,
                 int sums, bool accumulate, Out* out) {
  const int64_t h = a.width;
  const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
  ParallelRows(a.groups, blocks * h, [&](int64_t group) HWY_ATTR {
    const C* from = partial_sums + (group * blocks * sums + which) * h;
    Out* to = out + group * h;
    ForLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
      auto total = accumulate ? LoadAt(d, to + i) : hn::Zero(d);
      for (int64_t block = 0; block < blocks; ++block) {
        total = hn::Add(total, LoadAt(d, from + block * sums * h + i));
      }
      StoreAt(total, d, to + i);
    });
  });
}

void NormForward(const NormArguments& a, void* y) {
  DispatchElement(a.dtype, [&](auto element) {
    using T = decltype(element);
    NormForwardOf<T>(a, static_cast<T*>(y));
  });
}

void NormBackward(const NormArguments& a, const void* dy, const void* add,
                  void* dx, void* partial_sums) {
  DispatchElement(a.dtype, [&](auto element) {
    using T = decltype(element);
    NormBackwardOf<T>(a, static_cast<const T*>(dy), static_cast<const T*>(add),
                      static_cast<T*>(dx),
                      static_cast<ComputeType<T>*>(partial_sums));
  });
}

void NormSumBlocks(const NormArguments& a, const void* partial_sums, int which,
                   int sums, bool accumulate, void* out) {
  DispatchElement(a.dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const C* from = static_cast<const C*>(partial_sums);
    if (accumulate) {
      SumBlocksOf<C, C>(a, from, which, sums, true, static_cast<C*>(out));
    } else {
      SumBlocksOf<C, T>(a, from, which, sums, false, static_cast<T*>(out));
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(NormForward);
HWY_EXPORT(NormBackward);
HWY_EXPORT(NormSumBlocks);

void NormForwardKernel(const NormArguments& arguments, void* y) {
  HWY_DYNAMIC_DISPATCH(NormForward)(arguments, y);
}

void NormBackwardKernel(const NormArguments& arguments, const void* dy,
                        const void* add_to_x, void* dx, void* partial_sums) {
  HWY_DYNAMIC_DISPATCH(NormBackward)
  (arguments, dy, add_to_x, dx, partial_sums);
}

void NormSumBlocksKernel(const NormArguments& arguments,
                         const void* partial_sums, int which, int sums,
                         bool accumulate, void* out) {
  HWY_DYNAMIC_DISPATCH(NormSumBlocks)
  (arguments, partial_sums, which, sums, accumulate, out);
}

}  // namespace trireme
#endif  // HWY_ONCE
