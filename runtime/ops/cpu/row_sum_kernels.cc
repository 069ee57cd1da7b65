#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/routing_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/row_sum_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// Each element's terms in the order of the places, and rounded once: the bits
// are those of a loop over elements, on every processor.
void SumRows(DType dtype, int64_t tokens, int64_t k, int64_t width,
             const int32_t* places, const void* rows, void* y) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(tokens, k * width, [&](int64_t token) HWY_ATTR {
      using D = hn::ScalableTag<ComputeType<T>>;
      constexpr int64_t kStep = 2 * hn::MaxLanes(D());
      const D d;
      T* to = static_cast<T*>(y) + token * width;
      for (int64_t begin = 0; begin < width; begin += kStep) {
        Two<D> sums = {hn::Zero(d), hn::Zero(d)};
        for (int64_t j = 0; j < k; ++j) {
          const int64_t place = places[token * k + j];
          if (place < 0) continue;
          const auto x = LoadTwoUpTo(
              d, static_cast<const T*>(rows) + place * width + begin,
              width - begin);
          sums.first = hn::Add(sums.first, x.first);
          sums.second = hn::Add(sums.second, x.second);
        }
        StoreTwoUpTo(sums, d, to + begin, width - begin);
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(SumRows);

void SumRowsKernel(DType dtype, int64_t tokens, int64_t k, int64_t width,
                   const int32_t* places, const void* rows, void* y) {
  HWY_DYNAMIC_DISPATCH(SumRows)(dtype, tokens, k, width, places, rows, y);
}

}  // namespace trireme
#endif  // HWY_ONCE
