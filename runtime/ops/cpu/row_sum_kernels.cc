#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/routing_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/row_sum_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// sums += successive elements from here.
template <class D, typename T>
HWY_INLINE void AddTwo(D d, const T* from, Two<D>& sums) {
  const auto x = LoadTwo(d, from);
  sums.first = hn::Add(sums.first, x.first);
  sums.second = hn::Add(sums.second, x.second);
}

// y[width] = Σ of the rows at k places, −1 for none. Several sums at a time
// hide the latency of loads and additions, and a place is looked up once for
// them.
template <typename T>
HWY_INLINE void SumOfToken(int64_t k, int64_t width, const int32_t* places,
                           const T* rows, T* y) {
  using D = hn::ScalableTag<ComputeType<T>>;
  constexpr int64_t kStep = 2 * hn::MaxLanes(D());
  const D d;
  const Two<D> zero = {hn::Zero(d), hn::Zero(d)};
  int64_t begin = 0;
  for (; begin + 4 * kStep <= width; begin += 4 * kStep) {
    Two<D> sums0 = zero, sums1 = zero, sums2 = zero, sums3 = zero;
    for (int64_t j = 0; j < k; ++j) {
      if (places[j] < 0) continue;
      const T* from = rows + places[j] * width + begin;
      AddTwo(d, from, sums0);
      AddTwo(d, from + kStep, sums1);
      AddTwo(d, from + 2 * kStep, sums2);
      AddTwo(d, from + 3 * kStep, sums3);
    }
    StoreTwo(sums0, d, y + begin);
    StoreTwo(sums1, d, y + begin + kStep);
    StoreTwo(sums2, d, y + begin + 2 * kStep);
    StoreTwo(sums3, d, y + begin + 3 * kStep);
  }
  for (; begin < width; begin += kStep) {
    Two<D> sums = zero;
    for (int64_t j = 0; j < k; ++j) {
      if (places[j] < 0) continue;
      const auto x =
          LoadTwoUpTo(d, rows + places[j] * width + begin, width - begin);
      sums.first = hn::Add(sums.first, x.first);
      sums.second = hn::Add(sums.second, x.second);
    }
    StoreTwoUpTo(sums, d, y + begin, width - begin);
  }
}

// Each element's terms in the order of the places, and rounded once: the bits
// are those of a loop over elements, but for what RoundedBFloat16 says.
void SumRows(DType dtype, int64_t tokens, int64_t k, int64_t width,
             const int32_t* places, const void* rows, void* y) {
  DispatchElement(dtype, [&]<typename T>(T) {
    ParallelRows(tokens, k * width, [&](int64_t token) HWY_ATTR {
      SumOfToken(k, width, places + token * k, static_cast<const T*>(rows),
                 static_cast<T*>(y) + token * width);
    });
  });
}

void ScaleRows(DType dtype, int64_t rows, int64_t width, const void* factors,
               const void* x, void* y) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const auto factor = static_cast<const ComputeType<T>*>(factors)[row];
      MapOperands(
          width,
          [&](auto d, auto v)
              HWY_ATTR { return hn::Mul(hn::Set(d, factor), v); },
          static_cast<T*>(y) + row * width,
          static_cast<const T*>(x) + row * width);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(SumRows);
HWY_EXPORT(ScaleRows);

void SumRowsKernel(DType dtype, int64_t tokens, int64_t k, int64_t width,
                   const int32_t* places, const void* rows, void* y) {
  HWY_DYNAMIC_DISPATCH(SumRows)(dtype, tokens, k, width, places, rows, y);
}

void ScaleRowsKernel(DType dtype, int64_t rows, int64_t width,
                     const void* factors, const void* x, void* y) {
  HWY_DYNAMIC_DISPATCH(ScaleRows)(dtype, rows, width, factors, x, y);
}

}  // namespace trireme
#endif  // HWY_ONCE
