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

// The rotation of one token as two factors of a pair-swapped sum:
// y = x·cosines + swap(x)·sines, sines = (−s₀, s₀, −s₁, s₁, ..). `sign` −1
// gives the inverse rotation.
template <typename C>
HWY_INLINE void ExpandRotation(const C* cos, const C* sin, int64_t half, C sign,
                               C* cosines, C* sines) {
  // By 16 bytes: interleaving wider vectors would mix up their blocks.
  const hn::CappedTag<C, 16 / sizeof(C)> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    const auto c = hn::LoadU(d, cos + i);
    const auto s = hn::Mul(hn::LoadU(d, sin + i), hn::Set(d, sign));
    const auto minus = hn::Neg(s);
    hn::StoreU(hn::InterleaveLower(d, c, c), d, cosines + 2 * i);
    hn::StoreU(hn::InterleaveUpper(d, c, c), d, cosines + 2 * i + lanes);
    hn::StoreU(hn::InterleaveLower(d, minus, s), d, sines + 2 * i);
    hn::StoreU(hn::InterleaveUpper(d, minus, s), d, sines + 2 * i + lanes);
  }
  for (; i < half; ++i) {
    cosines[2 * i] = cosines[2 * i + 1] = cos[i];
    sines[2 * i] = -sign * sin[i];
    sines[2 * i + 1] = sign * sin[i];
  }
}

// The factors of one token's rotation, or none.
template <typename C>
struct Rotation {
  const C* cosines = nullptr;
  const C* sines = nullptr;
};

// Calls store(tag, i, value) with value(tag, i) rotated, for i < n: whole
// vectors, then pair by pair, or element by element without a rotation.
template <typename C, typename Value, typename Keep>
HWY_INLINE void ForRotated(int64_t n, const Rotation<C>& rotation,
                           Value&& value, Keep&& keep) {
  if (rotation.cosines == nullptr) {
    ForLanes<C>(n,
                [&](auto d, int64_t i) HWY_ATTR { keep(d, i, value(d, i)); });
    return;
  }
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = value(d, i);
    keep(d, i,
         hn::MulAdd(
             v, hn::LoadU(d, rotation.cosines + i),
             hn::Mul(hn::Reverse2(d, v), hn::LoadU(d, rotation.sines + i))));
  }
  const hn::CappedTag<C, 1> one;
  for (; i < n; i += 2) {
    const C even = hn::GetLane(value(one, i));
    const C odd = hn::GetLane(value(one, i + 1));
    keep(one, i,
         hn::Set(one, even * rotation.cosines[i] + odd * rotation.sines[i]));
    keep(one, i + 1,
         hn::Set(one,
                 odd * rotation.cosines[i + 1] + even * rotation.sines[i + 1]));
  }
}

template <typename T>
void HeadsForwardOf(const HeadsNormArguments& a, T* out,
                    const HeadsLayout& out_layout) {
  using C = ComputeType<T>;
  const int64_t n = a.head_dim;
  const C inverse_width = C(1) / static_cast<C>(n);
  const T* weight = static_cast<const T*>(a.weight);
  ParallelRows(a.batch * a.tokens, a.heads * n, [&](int64_t row) HWY_ATTR {
    C cosines[kMaxHeadDim], sines[kMaxHeadDim];
    Rotation<C> rotation;
    if (a.cos != nullptr) {
      const int64_t at = row % a.tokens * (n / 2);
      ExpandRotation(static_cast<const C*>(a.cos) + at,
                     static_cast<const C*>(a.sin) + at, n / 2, C(1), cosines,
                     sines);
      rotation = {cosines, sines};
    }
    const T* first = static_cast<const T*>(a.x) + a.x_layout.offset +
                     row * a.x_layout.row_stride;
    // All heads' statistics first: each is a chain of slow operations, and the
    // processor overlaps those of different heads.
    for (int64_t head = 0; weight != nullptr && head < a.heads; ++head) {
      const C sum = SumOperands<T>(
          n, [](auto, auto v) HWY_ATTR { return hn::Mul(v, v); },
          first + head * n);
      static_cast<C*>(a.rstd)[row * a.heads + head] =
          C(1) / std::sqrt(inverse_width * sum + static_cast<C>(a.eps));
    }
    for (int64_t head = 0; head < a.heads; ++head) {
      const T* x = first + head * n;
      T* y = out + out_layout.offset + row * out_layout.row_stride + head * n;
      const auto keep = [y](auto d, int64_t i, auto v)
                            HWY_ATTR { StoreAt(v, d, y + i); };
      if (weight == nullptr) {
        ForRotated<C>(
            n, rotation,
            [x](auto d, int64_t i) HWY_ATTR { return LoadAt(d, x + i); }, keep);
        continue;
      }
      const C rstd = static_cast<const C*>(a.rstd)[row * a.heads + head];
      ForRotated<C>(
          n, rotation,
          [x, weight, rstd](auto d, int64_t i) HWY_ATTR {
            return hn::Mul(hn::Mul(LoadAt(d, x + i), hn::Set(d, rstd)),
                           LoadAt(d, weight + i));
          },
          keep);
    }
  });
}

template <typename T>
void HeadsBackwardOf(const HeadsNormArguments& a, const T* dy,
                     const HeadsLayout& dy_layout, T* dx,
                     const HeadsLayout& dx_layout,
                     ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  const int64_t n = a.head_dim;
  const T* weight = static_cast<const T*>(a.weight);
  const int64_t rows = a.batch * a.tokens;
  const int64_t blocks = NormBlocksPerGroup(rows);
  ParallelRows(
      blocks, kNormBlockRows * a.heads * n, [&](int64_t block) HWY_ATTR {
        C cosines[kMaxHeadDim], sines[kMaxHeadDim], slope[kMaxHeadDim];
        // The weight's gradient: partial sums, or a place to throw them away.
        C unwanted[kMaxHeadDim];
        C* sums = partial_sums == nullptr ? unwanted : partial_sums + block * n;
        std::fill(sums, sums + n, C(0));
        Rotation<C> rotation;
        const int64_t last = std::min((block + 1) * kNormBlockRows, rows);
        for (int64_t row = block * kNormBlockRows; row < last; ++row) {
          if (a.cos != nullptr) {
            const int64_t at = row % a.tokens * (n / 2);
            ExpandRotation(static_cast<const C*>(a.cos) + at,
                           static_cast<const C*>(a.sin) + at, n / 2, C(-1),
                           cosines, sines);
            rotation = {cosines, sines};
          }
          for (int64_t head = 0; head < a.heads; ++head) {
            const T* g =
                dy + dy_layout.offset + row * dy_layout.row_stride + head * n;
            T* out =
                dx + dx_layout.offset + row * dx_layout.row_stride + head * n;
            const auto gradient = [g](auto d, int64_t i)
                                      HWY_ATTR { return LoadAt(d, g + i); };
            if (weight == nullptr) {
              ForRotated<C>(n, rotation, gradient,
                            [out](auto d, int64_t i, auto v)
                                HWY_ATTR { StoreAt(v, d, out + i); });
              continue;
            }
            const T* x = static_cast<const T*>(a.x) + a.x_layout.offset +
                         row * a.x_layout.row_stride + head * n;
            const C rstd = static_cast<const C*>(a.rstd)[row * a.heads + head];
            ForRotated<C>(
                n, rotation, gradient,
                [=, &slope](auto d, int64_t i, auto v) HWY_ATTR {
                  const auto normed =
                      hn::Mul(LoadAt(d, x + i), hn::Set(d, rstd));
                  hn::StoreU(hn::MulAdd(v, normed, hn::LoadU(d, sums + i)), d,
                             sums + i);
                  hn::StoreU(hn::Mul(v, LoadAt(d, weight + i)), d, slope + i);
                });
            const C dot_mean =
                rstd / static_cast<C>(n) *
                SumLanes<C>(n, [x, &slope](auto d, int64_t i) HWY_ATTR {
                  return hn::Mul(hn::LoadU(d, slope + i), LoadAt(d, x + i));
                });
            ForLanes<C>(n, [=, &slope](auto d, int64_t i) HWY_ATTR {
              const auto normed = hn::Mul(LoadAt(d, x + i), hn::Set(d, rstd));
              StoreAt(hn::Mul(hn::NegMulAdd(normed, hn::Set(d, dot_mean),
                                            hn::LoadU(d, slope + i)),
                              hn::Set(d, rstd)),
                      d, out + i);
            });
          }
        }
      });
}

void HeadsNormRopeForward(const HeadsNormArguments& a, void* out,
                          const HeadsLayout& out_layout) {
  DispatchFloating(a.dtype, [&](auto element) {
    using T = decltype(element);
    HeadsForwardOf<T>(a, static_cast<T*>(out), out_layout);
  });
}

void HeadsNormRopeBackward(const HeadsNormArguments& a, const void* dy,
                           const HeadsLayout& dy_layout, void* dx,
                           const HeadsLayout& dx_layout, void* partial_sums) {
  DispatchFloating(a.dtype, [&](auto element) {
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
