#include "runtime/ops/cpu/heads_norm_kernels.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/heads_norm_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// A head's channels are rotated in pairs (2i, 2i + 1), so that kernels work on
// two vectors: the even channels and the odd ones.

// The angles of one token, or none.
template <typename C>
struct Rotation {
  const C* cos = nullptr;
  const C* sin = nullptr;

  Rotation(const HeadsNormArguments& a, int64_t row) {
    if (a.cos == nullptr) return;
    const int64_t at = row % a.tokens * (a.head_dim / 2);
    cos = static_cast<const C*>(a.cos) + at;
    sin = static_cast<const C*>(a.sin) + at;
  }
};

template <class D>
HWY_INLINE hn::Vec<D> LoadUpTo(D d, const hn::TFromD<D>* from, int64_t count) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  if (count >= kLanes) return hn::LoadU(d, from);
  hn::TFromD<D> rest[kLanes] = {};
  std::copy_n(from, count, rest);
  return hn::LoadU(d, rest);
}

// x turned by the angles of the pairs from channel `channel` of n on;
// kInverse: turned back.
template <bool kInverse, class D>
HWY_INLINE Two<D> Rotated(D d, const Two<D>& x,
                          const Rotation<hn::TFromD<D>>& rotation,
                          int64_t channel, int64_t n) {
  if (rotation.cos == nullptr) return x;
  const int64_t pair = channel / 2;
  const auto cos = LoadUpTo(d, rotation.cos + pair, n / 2 - pair);
  const auto sin = LoadUpTo(d, rotation.sin + pair, n / 2 - pair);
  const auto even = hn::Mul(x.second, sin);
  const auto odd = hn::Mul(x.first, sin);
  if constexpr (kInverse) {
    return {hn::MulAdd(x.first, cos, even), hn::MulSub(x.second, cos, odd)};
  } else {
    return {hn::MulSub(x.first, cos, even), hn::MulAdd(x.second, cos, odd)};
  }
}

template <class D>
HWY_INLINE Two<D> Product(const Two<D>& x, const Two<D>& y) {
  return {hn::Mul(x.first, y.first), hn::Mul(x.second, y.second)};
}
template <class D>
HWY_INLINE Two<D> Product(const Two<D>& x, hn::Vec<D> factor) {
  return {hn::Mul(x.first, factor), hn::Mul(x.second, factor)};
}

constexpr int64_t kRowsAhead = 2;

// Asks for n elements that will be read (or written) soon. The heads of queries
// or keys are runs of some hundred bytes within longer rows: too short for the
// processor to see what comes next. (The gradient has enough else to do.)
template <bool kWrite, typename T>
HWY_INLINE void PrefetchRow(const T* row, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) {
    __builtin_prefetch(row + i, kWrite ? 1 : 0);
  }
}

template <typename T>
void HeadsForwardOf(const HeadsNormArguments& a, T* out,
                    const HeadsLayout& out_layout) {
  using C = ComputeType<T>;
  const hn::ScalableTag<C> d;
  using D = hn::ScalableTag<C>;
  constexpr int64_t kStep = 2 * hn::MaxLanes(D());
  const int64_t n = a.head_dim;
  const C inverse_width = C(1) / static_cast<C>(n);
  const T* weight = static_cast<const T*>(a.weight);
  ParallelRows(a.batch * a.tokens, a.heads * n, [&](int64_t row) HWY_ATTR {
    const Rotation<C> rotation(a, row);
    const T* first = static_cast<const T*>(a.x) + a.x_layout.offset +
                     row * a.x_layout.row_stride;
    T* first_out = out + out_layout.offset + row * out_layout.row_stride;
    PrefetchRow<false>(first + kRowsAhead * a.x_layout.row_stride, a.heads * n);
    PrefetchRow<true>(first_out + kRowsAhead * out_layout.row_stride,
                      a.heads * n);
    C* rstds =
        weight == nullptr ? nullptr : static_cast<C*>(a.rstd) + row * a.heads;
    // All heads' statistics first: each is a chain of slow operations, and the
    // processor overlaps those of different heads.
    for (int64_t head = 0; weight != nullptr && head < a.heads; ++head) {
      const C sum = SumOperands<T>(
          n, [](auto, auto v) HWY_ATTR { return hn::Mul(v, v); },
          first + head * n);
      rstds[head] =
          C(1) / std::sqrt(inverse_width * sum + static_cast<C>(a.eps));
    }
    for (int64_t head = 0; head < a.heads; ++head) {
      const T* x = first + head * n;
      T* y = first_out + head * n;
      for (int64_t i = 0; i < n; i += kStep) {
        Two<D> v = LoadPairsUpTo(d, x + i, n - i);
        if (weight != nullptr) {
          v = Product<D>(Product<D>(v, hn::Set(d, rstds[head])),
                         LoadPairsUpTo(d, weight + i, n - i));
        }
        StorePairsUpTo(Rotated<false>(d, v, rotation, i, n), d, y + i, n - i);
      }
    }
  });
}

template <typename T>
void HeadsBackwardOf(const HeadsNormArguments& a, const T* dy,
                     const HeadsLayout& dy_layout, T* dx,
                     const HeadsLayout& dx_layout,
                     ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  const hn::ScalableTag<C> d;
  using D = hn::ScalableTag<C>;
  constexpr int64_t kStep = 2 * hn::MaxLanes(D());
  const int64_t n = a.head_dim;
  const T* weight = static_cast<const T*>(a.weight);
  const int64_t rows = a.batch * a.tokens;
  const int64_t blocks = NormBlocksPerGroup(rows);
  ParallelRows(
      blocks, kNormBlockRows * a.heads * n, [&](int64_t block) HWY_ATTR {
        // Vectors of even channels and of odd ones by turns; `sums` is the
        // gradient of the weight.
        C slope[kMaxHeadDim + kStep], sums[kMaxHeadDim + kStep];
        std::fill_n(sums, n + kStep, C(0));
        const int64_t last = std::min((block + 1) * kNormBlockRows, rows);
        for (int64_t row = block * kNormBlockRows; row < last; ++row) {
          const Rotation<C> rotation(a, row);
          const T* first_gradient =
              dy + dy_layout.offset + row * dy_layout.row_stride;
          T* first_out = dx + dx_layout.offset + row * dx_layout.row_stride;
          for (int64_t head = 0; head < a.heads; ++head) {
            const T* g = first_gradient + head * n;
            T* out = first_out + head * n;
            const auto gradient = [&](int64_t i) HWY_ATTR {
              return Rotated<true>(d, LoadPairsUpTo(d, g + i, n - i), rotation,
                                   i, n);
            };
            if (weight == nullptr) {
              for (int64_t i = 0; i < n; i += kStep) {
                StorePairsUpTo(gradient(i), d, out + i, n - i);
              }
              continue;
            }
            const T* x = static_cast<const T*>(a.x) + a.x_layout.offset +
                         row * a.x_layout.row_stride + head * n;
            const auto rstd =
                hn::Set(d, static_cast<const C*>(a.rstd)[row * a.heads + head]);
            auto dot_even = hn::Zero(d);
            auto dot_odd = hn::Zero(d);
            for (int64_t i = 0; i < n; i += kStep) {
              const Two<D> v = LoadPairsUpTo(d, x + i, n - i);
              const Two<D> grad = gradient(i);
              const Two<D> normed = Product<D>(v, rstd);
              const Two<D> s =
                  Product<D>(grad, LoadPairsUpTo(d, weight + i, n - i));
              const Two<D> sum = LoadTwo(d, sums + i);
              StoreTwo<D>({hn::MulAdd(grad.first, normed.first, sum.first),
                           hn::MulAdd(grad.second, normed.second, sum.second)},
                          d, sums + i);
              StoreTwo(s, d, slope + i);
              dot_even = hn::MulAdd(s.first, v.first, dot_even);
              dot_odd = hn::MulAdd(s.second, v.second, dot_odd);
            }
            const auto dot_mean =
                hn::Mul(hn::Mul(rstd, hn::Set(d, C(1) / static_cast<C>(n))),
                        hn::SumOfLanes(d, hn::Add(dot_even, dot_odd)));
            for (int64_t i = 0; i < n; i += kStep) {
              const Two<D> normed =
                  Product<D>(LoadPairsUpTo(d, x + i, n - i), rstd);
              const Two<D> s = LoadTwo(d, slope + i);
              const Two<D> centred = {
                  hn::NegMulAdd(normed.first, dot_mean, s.first),
                  hn::NegMulAdd(normed.second, dot_mean, s.second)};
              StorePairsUpTo(Product<D>(centred, rstd), d, out + i, n - i);
            }
          }
        }
        if (partial_sums == nullptr) return;
        for (int64_t i = 0; i < n; i += kStep) {
          StorePairsUpTo(LoadTwo(d, sums + i), d, partial_sums + block * n + i,
                         n - i);
        }
      });
}

void HeadsNormRopeForward(const HeadsNormArguments& a, void* out,
                          const HeadsLayout& out_layout) {
  DispatchElement(a.dtype, [&](auto element) {
    using T = decltype(element);
    HeadsForwardOf<T>(a, static_cast<T*>(out), out_layout);
  });
}

void HeadsNormRopeBackward(const HeadsNormArguments& a, const void* dy,
                           const HeadsLayout& dy_layout, void* dx,
                           const HeadsLayout& dx_layout, void* partial_sums) {
  DispatchElement(a.dtype, [&](auto element) {
    using T = decltype(element);
    HeadsBackwardOf<T>(a, static_cast<const T*>(dy), dy_layout,
                       static_cast<T*>(dx), dx_layout,
                       static_cast<ComputeType<T>*>(partial_sums));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(HeadsNormRopeForward);
HWY_EXPORT(HeadsNormRopeBackward);

void HeadsNormRopeForwardKernel(const HeadsNormArguments& arguments, void* out,
                                const HeadsLayout& out_layout) {
  HWY_DYNAMIC_DISPATCH(HeadsNormRopeForward)(arguments, out, out_layout);
}

void HeadsNormRopeBackwardKernel(const HeadsNormArguments& arguments,
                                 const void* dy, const HeadsLayout& dy_layout,
                                 void* dx, const HeadsLayout& dx_layout,
                                 void* partial_sums) {
  HWY_DYNAMIC_DISPATCH(HeadsNormRopeBackward)
  (arguments, dy, dy_layout, dx, dx_layout, partial_sums);
}

}  // namespace trireme
#endif  // HWY_ONCE
