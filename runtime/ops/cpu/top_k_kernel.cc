#include <algorithm>
#include <limits>

#include "absl/container/inlined_vector.h"
#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/routing_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/top_k_kernel.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// Insertion into the sorted choices of as many rows as there are lanes: rows
// are short, and branches on their values are not foreseen. A later column
// moves ahead of strictly smaller ones only.
template <typename T>
void ChooseInRows(const ColumnChoice& choice, int64_t rows, const T* x,
                  int32_t* indices) {
  using C = ComputeType<T>;
  using D = hn::ScalableTag<C>;
  using DI = hn::RebindToSigned<D>;
  using Index = hn::TFromD<DI>;
  const D d;
  const DI di;
  constexpr int64_t kLanes = hn::MaxLanes(D());
  constexpr int64_t kUsualChoices = 8;
  const auto lowest = hn::Set(d, -std::numeric_limits<C>::infinity());
  // [k, lanes], largest first.
  absl::InlinedVector<C, kUsualChoices * kLanes> best(choice.k * kLanes);
  absl::InlinedVector<Index, kUsualChoices * kLanes> chosen(choice.k * kLanes);
  C values[kLanes] = {};
  for (int64_t column = 0; column < choice.columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      values[row] = static_cast<C>(x[row * choice.columns + column]);
    }
    const auto loaded = hn::LoadU(d, values);
    const auto value = hn::IfThenElse(hn::IsNaN(loaded), lowest, loaded);
    const auto index = hn::Set(di, static_cast<Index>(column));
    int64_t i = std::min(column, choice.k - 1);
    C* to = best.data() + i * kLanes;
    Index* to_index = chosen.data() + i * kLanes;
    auto here = hn::LoadU(d, to);
    auto here_index = hn::LoadU(di, to_index);
    // Whether what is here moves on; of the first k columns each has a place.
    auto moves =
        column < choice.k ? hn::Eq(lowest, lowest) : hn::Gt(value, here);
    for (; i > 0; --i, to -= kLanes, to_index -= kLanes) {
      const auto before = hn::LoadU(d, to - kLanes);
      const auto before_index = hn::LoadU(di, to_index - kLanes);
      const auto above = hn::Gt(value, before);
      hn::StoreU(
          hn::IfThenElse(moves, hn::IfThenElse(above, before, value), here), d,
          to);
      hn::StoreU(hn::IfThenElse(hn::RebindMask(di, moves),
                                hn::IfThenElse(hn::RebindMask(di, above),
                                               before_index, index),
                                here_index),
                 di, to_index);
      here = before;
      here_index = before_index;
      moves = above;
    }
    hn::StoreU(hn::IfThenElse(moves, value, here), d, to);
    hn::StoreU(hn::IfThenElse(hn::RebindMask(di, moves), index, here_index), di,
               to_index);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < choice.k; ++i) {
      indices[row * choice.k + i] =
          static_cast<int32_t>(chosen[i * kLanes + row]);
    }
  }
}

void TopK(DType dtype, const ColumnChoice& choice, const void* x,
          int32_t* indices) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<C>());
    const int64_t blocks = (choice.rows + kLanes - 1) / kLanes;
    ParallelRows(blocks, kLanes * choice.columns * choice.k,
                 [&](int64_t block) HWY_ATTR {
                   const int64_t row = block * kLanes;
                   ChooseInRows(choice, std::min(kLanes, choice.rows - row),
                                static_cast<const T*>(x) + row * choice.columns,
                                indices + row * choice.k);
                 });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(TopK);

void TopKKernel(DType dtype, const ColumnChoice& choice, const void* x,
                int32_t* indices) {
  HWY_DYNAMIC_DISPATCH(TopK)(dtype, choice, x, indices);
}

}  // namespace trireme
#endif  // HWY_ONCE
