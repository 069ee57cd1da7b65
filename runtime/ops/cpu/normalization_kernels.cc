#include "runtime/ops/cpu/normalization_kernels.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/normalization_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

template <typename T>
void NormForwardOf(const NormArguments& a, T* y) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const C inverse_width = C(1) / static_cast<C>(h);
  ParallelRows(a.groups * a.rows_per_group, h, [&](int64_t row) HWY_ATTR {
    const T* x = static_cast<const T*>(a.x) + row * h;
    T* out = y + row * h;
    C mean = 0;
    if (a.subtract_mean) {
      mean = inverse_width * SumLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
               return LoadAt(d, x + i);
             });
      static_cast<C*>(a.mean)[row] = mean;
    }
    const C variance =
        inverse_width * SumLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
          const auto centred = hn::Sub(LoadAt(d, x + i), hn::Set(d, mean));
          return hn::Mul(centred, centred);
        });
    const C rstd = C(1) / std::sqrt(variance + static_cast<C>(a.eps));
    static_cast<C*>(a.rstd)[row] = rstd;
    const auto normed = [&](auto d, int64_t i) HWY_ATTR {
      return hn::Mul(hn::Sub(LoadAt(d, x + i), hn::Set(d, mean)),
                     hn::Set(d, rstd));
    };
    if (a.scale == nullptr) {
      ForLanes<C>(h, [&](auto d, int64_t i)
                         HWY_ATTR { StoreAt(normed(d, i), d, out + i); });
      return;
    }
    const int64_t group = row / a.rows_per_group;
    const C offset = static_cast<C>(a.scale_offset);
    const T* scale = static_cast<const T*>(a.scale) + group * h;
    const T* shift = a.shift == nullptr
                         ? nullptr
                         : static_cast<const T*>(a.shift) + group * h;
    ForLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
      const auto factor = hn::Add(hn::Set(d, offset), LoadAt(d, scale + i));
      auto value = hn::Mul(normed(d, i), factor);
      if (shift != nullptr) value = hn::Add(value, LoadAt(d, shift + i));
      StoreAt(value, d, out + i);
    });
  });
}

template <typename T>
void NormBackwardOf(const NormArguments& a, const T* dy, const T* add, T* dx,
                    ComputeType<T>* partial_sums) {
  using C = ComputeType<T>;
  const int64_t h = a.width;
  const C inverse_width = C(1) / static_cast<C>(h);
  const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
  ParallelRows(
      a.groups * blocks, kNormBlockRows * h, [&](int64_t work) HWY_ATTR {
        const int64_t group = work / blocks;
        const int64_t first = work % blocks * kNormBlockRows;
        const int64_t last = std::min(first + kNormBlockRows, a.rows_per_group);
        const C offset = static_cast<C>(a.scale_offset);
        const T* scale = a.scale == nullptr
                             ? nullptr
                             : static_cast<const T*>(a.scale) + group * h;
        C* dot_sums = nullptr;
        C* plain_sums = nullptr;
        if (partial_sums != nullptr) {
          dot_sums = partial_sums + work * 2 * h;
          plain_sums = dot_sums + h;
          std::fill(dot_sums, dot_sums + 2 * h, C(0));
        }
        for (int64_t r = first; r < last; ++r) {
          const int64_t row = group * a.rows_per_group + r;
          const T* x = static_cast<const T*>(a.x) + row * h;
          const T* g = dy + row * h;
          const C mean =
              a.subtract_mean ? static_cast<const C*>(a.mean)[row] : 0;
          const C rstd = static_cast<const C*>(a.rstd)[row];
          const auto normed = [&](auto d, int64_t i) HWY_ATTR {
            return hn::Mul(hn::Sub(LoadAt(d, x + i), hn::Set(d, mean)),
                           hn::Set(d, rstd));
          };
          const auto slope = [&](auto d, int64_t i) HWY_ATTR {
            const auto v = LoadAt(d, g + i);
            if (scale == nullptr) return v;
            return hn::Mul(v,
                           hn::Add(hn::Set(d, offset), LoadAt(d, scale + i)));
          };
          C slope_mean = 0;
          if (a.subtract_mean) {
            slope_mean = inverse_width * SumLanes<C>(h, slope);
          }
          const C dot_mean =
              inverse_width * SumLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
                return hn::Mul(slope(d, i), normed(d, i));
              });
          const T* plus = add == nullptr ? nullptr : add + row * h;
          T* out = dx + row * h;
          ForLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
            const auto n = normed(d, i);
            const auto centred =
                hn::NegMulAdd(n, hn::Set(d, dot_mean),
                              hn::Sub(slope(d, i), hn::Set(d, slope_mean)));
            auto value = hn::Mul(centred, hn::Set(d, rstd));
            if (plus != nullptr) value = hn::Add(value, LoadAt(d, plus + i));
            if (dot_sums != nullptr) {
              const auto v = LoadAt(d, g + i);
              StoreAt(hn::MulAdd(v, n, LoadAt(d, dot_sums + i)), d,
                      dot_sums + i);
              StoreAt(hn::Add(v, LoadAt(d, plain_sums + i)), d, plain_sums + i);
            }
            StoreAt(value, d, out + i);
          });
        }
      });
}

template <typename C, typename Out>
void SumBlocksOf(const NormArguments& a, const C* partial_sums, int which,
                 bool accumulate, Out* out) {
  const int64_t h = a.width;
  const int64_t blocks = NormBlocksPerGroup(a.rows_per_group);
  ParallelRows(a.groups, blocks * h, [&](int64_t group) HWY_ATTR {
    const C* sums = partial_sums + (group * blocks * 2 + which) * h;
    Out* to = out + group * h;
    ForLanes<C>(h, [&](auto d, int64_t i) HWY_ATTR {
      auto total = accumulate ? LoadAt(d, to + i) : hn::Zero(d);
      for (int64_t block = 0; block < blocks; ++block) {
        total = hn::Add(total, LoadAt(d, sums + block * 2 * h + i));
      }
      StoreAt(total, d, to + i);
    });
  });
}

void NormForward(const NormArguments& a, void* y) {
  DispatchFloating(a.dtype, [&](auto element) {
    using T = decltype(element);
    NormForwardOf<T>(a, static_cast<T*>(y));
  });
}

void NormBackward(const NormArguments& a, const void* dy, const void* add,
                  void* dx, void* partial_sums) {
  DispatchFloating(a.dtype, [&](auto element) {
    using T = decltype(element);
    NormBackwardOf<T>(a, static_cast<const T*>(dy), static_cast<const T*>(add),
                      static_cast<T*>(dx),
                      static_cast<ComputeType<T>*>(partial_sums));
  });
}

void NormSumBlocks(const NormArguments& a, const void* partial_sums, int which,
                   bool accumulate, void* out) {
  DispatchFloating(a.dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const C* sums = static_cast<const C*>(partial_sums);
    if (accumulate) {
      SumBlocksOf<C, C>(a, sums, which, true, static_cast<C*>(out));
    } else {
      SumBlocksOf<C, T>(a, sums, which, false, static_cast<T*>(out));
    }
  });
}

// The rotation of one token as two factors of a pair-swapped sum:
// y = x·cosines + swap(x)·sines, sines = (−s₀, s₀, −s₁, s₁, ..). `sign` −1
// gives the inverse rotation.
template <typename C>
void ExpandRotation(const C* cos, const C* sin, int64_t half, C sign,
                    C* cosines, C* sines) {
  for (int64_t i = 0; i < half; ++i) {
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
    for (int64_t head = 0; head < a.heads; ++head) {
      const T* x = static_cast<const T*>(a.x) + a.x_layout.offset +
                   row * a.x_layout.row_stride + head * n;
      T* y = out + out_layout.offset + row * out_layout.row_stride + head * n;
      const auto keep = [y](auto d, int64_t i, auto v)
                            HWY_ATTR { StoreAt(v, d, y + i); };
      if (weight == nullptr) {
        ForRotated<C>(
            n, rotation,
            [x](auto d, int64_t i) HWY_ATTR { return LoadAt(d, x + i); }, keep);
        continue;
      }
      const C sum = SumLanes<C>(n, [x](auto d, int64_t i) HWY_ATTR {
        const auto v = LoadAt(d, x + i);
        return hn::Mul(v, v);
      });
      const C rstd =
          C(1) / std::sqrt(sum / static_cast<C>(n) + static_cast<C>(a.eps));
      static_cast<C*>(a.rstd)[row * a.heads + head] = rstd;
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

HWY_EXPORT(NormForward);
HWY_EXPORT(NormBackward);
HWY_EXPORT(NormSumBlocks);
HWY_EXPORT(HeadsNormRopeForward);
HWY_EXPORT(HeadsNormRopeBackward);

void NormForwardKernel(const NormArguments& arguments, void* y) {
  HWY_DYNAMIC_DISPATCH(NormForward)(arguments, y);
}

void NormBackwardKernel(const NormArguments& arguments, const void* dy,
                        const void* add_to_x, void* dx, void* partial_sums) {
  HWY_DYNAMIC_DISPATCH(NormBackward)
  (arguments, dy, add_to_x, dx, partial_sums);
}

void NormSumBlocksKernel(const NormArguments& arguments,
                         const void* partial_sums, int which, bool accumulate,
                         void* out) {
  HWY_DYNAMIC_DISPATCH(NormSumBlocks)
  (arguments, partial_sums, which, accumulate, out);
}

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
