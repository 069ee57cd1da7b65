#include "runtime/ops/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/attention_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;

template <typename T>
HWY_INLINE FloatVector LoadFloats(const T* from) {
  return LoadAt(Floats(), from);
}

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

inline int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

// Lanes of the columns from `column` on that come before `end`.
inline hn::Mask<Floats> LanesBefore(int64_t column, int64_t end) {
  return hn::FirstN(Floats(), static_cast<size_t>(std::clamp<int64_t>(
                                  end - column, 0, Lanes())));
}

// Lanes that lie in the range.
inline hn::Mask<Floats> ValidLanes(int64_t column, const KeyRange& range) {
  return hn::AndNot(LanesBefore(column, range.begin),
                    LanesBefore(column, range.end));
}

constexpr float kLog2E = 1.44269504f;

// 2^y, relative error about 1e-7; for y < -126 something below 2^-125. The
// integer part is read off the mantissa of y + 1.5·2^23, the fraction, in
// [-1/2, 1/2], goes through a polynomial (Cephes' exp2f).
inline FloatVector PowerOfTwo(FloatVector y) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> bits;
  const auto magic = hn::Set(d, 12582912.0f);
  y = hn::Max(hn::Set(d, -126.0f), y);  // y second: NaN stays
  const auto shifted = hn::Add(y, magic);
  const auto f = hn::Sub(y, hn::Sub(shifted, magic));
  auto p = hn::Set(d, 1.535336188319500e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.339887440266574e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618437357674640e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550332471162809e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402264791363012e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931472028550421e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(bits, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(bits, p), exponent));
}

// Scores have no reason to lie on ties: without the processor's own rounding
// to bf16, ties go away from zero, which saves a third of the work.
template <typename T>
HWY_INLINE void StoreScores(FloatVector x, T* to) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const hn::Rebind<uint16_t, Floats> half;
    const hn::RebindToUnsigned<Floats> bits;
    const hn::RebindToSigned<Floats> wide;
    const auto upper = hn::ShiftRight<16>(
        hn::Add(hn::BitCast(bits, x), hn::Set(bits, 0x8000)));
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(wide, upper)), half,
               reinterpret_cast<uint16_t*>(to));
  } else {
    StoreAt(x, Floats(), to);
  }
}

// Two successive vectors.
template <typename T>
HWY_INLINE void StoreScores(FloatVector first, FloatVector second, T* to) {
#if TRIREME_ROUNDS_BFLOAT16
  if constexpr (std::is_same_v<T, RoundedBFloat16>) {
    _mm512_storeu_si512(to, RoundedWords(first.raw, second.raw));
    return;
  }
#endif
  StoreScores(first, to);
  StoreScores(second, to + Lanes());
}

// Calls f with p as the element type to write: see DispatchElement.
template <typename T, typename F>
HWY_INLINE void ForWriting(T* p, F&& f) {
#if TRIREME_ROUNDS_BFLOAT16
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (RoundsBFloat16()) return f(static_cast<RoundedBFloat16*>(p));
  }
#endif
  f(p);
}

// The largest of row's range.
inline float RowMaximum(const float* row, const KeyRange& range) {
  const Floats d;
  const int64_t lanes = Lanes();
  auto m0 = hn::Set(d, kMinusInfinity);
  auto m1 = m0, m2 = m0, m3 = m0;
  const auto masked = [&](int64_t i) HWY_ATTR {
    return hn::IfThenElse(ValidLanes(i, range), LoadFloats(row + i),
                          hn::Set(d, kMinusInfinity));
  };
  int64_t i = range.begin / lanes * lanes;
  if (i < range.begin) {
    m0 = masked(i);
    i += lanes;
  }
  for (; i + 4 * lanes <= range.end; i += 4 * lanes) {
    m0 = hn::Max(m0, LoadFloats(row + i));
    m1 = hn::Max(m1, LoadFloats(row + i + lanes));
    m2 = hn::Max(m2, LoadFloats(row + i + 2 * lanes));
    m3 = hn::Max(m3, LoadFloats(row + i + 3 * lanes));
  }
  for (; i < range.end; i += lanes) m0 = hn::Max(m0, masked(i));
  return hn::GetLane(
      hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

template <typename T, typename Written>
void OnlineSoftmaxRows(const OnlineSoftmaxBlock<T>& block, Written* written) {
  const Floats d;
  const int64_t lanes = Lanes();
  const auto scale = hn::Set(d, block.scale * kLog2E);
  for (int64_t row = 0; row < block.rows; ++row) {
    const KeyRange range = RowRange(block, row);
    const float* scores = block.scores + row * block.pitch;
    Written* p = written + row * block.pitch;
    if (range.end <= range.begin) {
      for (int64_t i = 0; i < block.pitch; i += lanes) {
        StoreScores(hn::Zero(d), p + i);
      }
      continue;
    }
    const float before = block.maxima[row];
    const float maximum =
        std::max(before, RowMaximum(scores, range) * block.scale);

    const auto shift = hn::Set(d, -maximum * kLog2E);
    auto sums = hn::Zero(d);
    auto more_sums = hn::Zero(d);
    const auto masked = [&](int64_t i) HWY_ATTR {
      const auto e = hn::IfThenElseZero(
          ValidLanes(i, range),
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i), scale, shift)));
      sums = hn::Add(sums, e);
      StoreScores(e, p + i);
    };
    int64_t i = 0;
    for (; i < range.begin; i += lanes) masked(i);
    for (; i + 2 * lanes <= range.end; i += 2 * lanes) {
      const auto a =
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i), scale, shift));
      const auto b =
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i + lanes), scale, shift));
      sums = hn::Add(sums, a);
      more_sums = hn::Add(more_sums, b);
      StoreScores(a, b, p + i);
    }
    for (; i < block.pitch; i += lanes) masked(i);
    const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sums, more_sums)));

    block.maxima[row] = maximum;
    if (before == kMinusInfinity) {
      block.sums[row] = sum;
    } else {
      const float rescale = std::exp(before - maximum);
      block.sums[row] = block.sums[row] * rescale + sum;
      float* out = block.out + row * block.out_pitch;
      const auto factor = hn::Set(d, rescale);
      for (int64_t j = 0; j < block.out_pitch; j += lanes) {
        StoreAt(hn::Mul(LoadFloats(out + j), factor), d, out + j);
      }
    }
  }
}

void OnlineSoftmaxBFloat16(const OnlineSoftmaxBlock<BFloat16>& block) {
  ForWriting(block.p, [&](auto* p) { OnlineSoftmaxRows(block, p); });
}

void OnlineSoftmaxFloat16(const OnlineSoftmaxBlock<Float16>& block) {
  ForWriting(block.p, [&](auto* p) { OnlineSoftmaxRows(block, p); });
}

void OnlineSoftmaxFloat(const OnlineSoftmaxBlock<float>& block) {
  OnlineSoftmaxRows(block, block.p);
}

template <typename T, typename Written>
void SoftmaxGradientRows(const SoftmaxGradientBlock<T>& block, Written* p) {
  const Floats d;
  const int64_t lanes = Lanes();
  auto* ds = static_cast<Written*>(block.ds);
  const auto power_scale = hn::Set(d, block.scale * kLog2E);
  const auto scale = hn::Set(d, block.scale);
  for (int64_t row = 0; row < block.rows; ++row) {
    const KeyRange range = RowRange(block, row);
    const int64_t at = row * block.pitch;
    const auto shift = hn::Set(d, -block.log_sum_exp[row] * kLog2E);
    // scale·(dp − delta) = scale·dp + offset.
    const auto offset = hn::Set(d, -block.scale * block.delta[row]);
    const auto probability = [&](int64_t i) HWY_ATTR {
      return PowerOfTwo(
          hn::MulAdd(LoadFloats(block.scores + at + i), power_scale, shift));
    };
    const auto gradient = [&](FloatVector probability, int64_t i) HWY_ATTR {
      return hn::Mul(probability,
                     hn::MulAdd(LoadFloats(block.dp + at + i), scale, offset));
    };
    const auto masked = [&](int64_t i) HWY_ATTR {
      const auto valid = ValidLanes(i, range);
      const auto a = probability(i);
      const auto da = gradient(a, i);
      StoreScores(hn::IfThenElseZero(valid, a), p + at + i);
      StoreScores(hn::IfThenElseZero(valid, da), ds + at + i);
    };
    int64_t i = 0;
    for (; i < std::min(range.begin, block.pitch); i += lanes) masked(i);
    for (; i + 2 * lanes <= range.end; i += 2 * lanes) {
      const auto a = probability(i);
      const auto b = probability(i + lanes);
      const auto da = gradient(a, i);
      const auto db = gradient(b, i + lanes);
      StoreScores(a, b, p + at + i);
      StoreScores(da, db, ds + at + i);
    }
    for (; i < block.pitch; i += lanes) masked(i);
  }
}

void SoftmaxGradientBFloat16(const SoftmaxGradientBlock<BFloat16>& block) {
  ForWriting(block.p, [&](auto* p) { SoftmaxGradientRows(block, p); });
}

void SoftmaxGradientFloat16(const SoftmaxGradientBlock<Float16>& block) {
  ForWriting(block.p, [&](auto* p) { SoftmaxGradientRows(block, p); });
}

void SoftmaxGradientFloat(const SoftmaxGradientBlock<float>& block) {
  SoftmaxGradientRows(block, block.p);
}

template <typename T>
void ScaleRowsOf(const ScaledRows<T>& x) {
  ForWriting(x.to, [&](auto* to) HWY_ATTR {
    for (int64_t row = 0; row < x.rows; ++row) {
      const float factor = x.factors == nullptr ? 1.0f : x.factors[row];
      auto* to_row = to + row * x.to_pitch;
      const float* from = x.from + row * x.from_pitch;
      ForLanes<float>(x.columns, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(hn::Mul(LoadAt(d, from + i), hn::Set(d, factor)), d,
                to_row + i);
      });
    }
  });
}

void ScaleRowsBFloat16(const ScaledRows<BFloat16>& x) { ScaleRowsOf(x); }
void ScaleRowsFloat16(const ScaledRows<Float16>& x) { ScaleRowsOf(x); }
void ScaleRowsFloat(const ScaledRows<float>& x) { ScaleRowsOf(x); }

template <typename T>
void RowDotsOf(const RowPairs<T>& x, float* dots) {
  for (int64_t row = 0; row < x.rows; ++row) {
    dots[row] = SumOperands<T>(
        x.columns, [](auto, auto u, auto v) HWY_ATTR { return hn::Mul(u, v); },
        x.a + row * x.a_pitch, x.b + row * x.b_pitch);
  }
}

void RowDotsBFloat16(const RowPairs<BFloat16>& x, float* dots) {
  RowDotsOf(x, dots);
}
void RowDotsFloat16(const RowPairs<Float16>& x, float* dots) {
  RowDotsOf(x, dots);
}
void RowDotsFloat(const RowPairs<float>& x, float* dots) { RowDotsOf(x, dots); }

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(OnlineSoftmaxBFloat16);
HWY_EXPORT(OnlineSoftmaxFloat16);
HWY_EXPORT(OnlineSoftmaxFloat);
HWY_EXPORT(SoftmaxGradientBFloat16);
HWY_EXPORT(SoftmaxGradientFloat16);
HWY_EXPORT(SoftmaxGradientFloat);
HWY_EXPORT(ScaleRowsBFloat16);
HWY_EXPORT(ScaleRowsFloat16);
HWY_EXPORT(ScaleRowsFloat);
HWY_EXPORT(RowDotsBFloat16);
HWY_EXPORT(RowDotsFloat16);
HWY_EXPORT(RowDotsFloat);

void OnlineSoftmax(const OnlineSoftmaxBlock<BFloat16>& block) {
  HWY_DYNAMIC_DISPATCH(OnlineSoftmaxBFloat16)(block);
}

void OnlineSoftmax(const OnlineSoftmaxBlock<Float16>& block) {
  HWY_DYNAMIC_DISPATCH(OnlineSoftmaxFloat16)(block);
}

void OnlineSoftmax(const OnlineSoftmaxBlock<float>& block) {
  HWY_DYNAMIC_DISPATCH(OnlineSoftmaxFloat)(block);
}

void OnlineSoftmax(const OnlineSoftmaxBlock<double>& block) {
  for (int64_t row = 0; row < block.rows; ++row) {
    const double* scores = block.scores + row * block.pitch;
    const double before = block.maxima[row];
    const KeyRange range = RowRange(block, row);
    double* p = block.p + row * block.pitch;
    if (range.end <= range.begin) {
      std::fill_n(p, block.pitch, 0.0);
      continue;
    }
    double maximum = before;
    for (int64_t i = range.begin; i < range.end; ++i) {
      maximum = std::max(maximum, scores[i] * block.scale);
    }
    const double rescale = std::exp(before - maximum);
    double sum = before == -std::numeric_limits<double>::infinity()
                     ? 0
                     : block.sums[row] * rescale;
    for (int64_t i = 0; i < block.pitch; ++i) {
      p[i] = i >= range.begin && i < range.end
                 ? std::exp(scores[i] * block.scale - maximum)
                 : 0.0;
      sum += p[i];
    }
    block.maxima[row] = maximum;
    block.sums[row] = sum;
    if (rescale == 0) continue;
    for (int64_t j = 0; j < block.out_pitch; ++j) {
      block.out[row * block.out_pitch + j] *= rescale;
    }
  }
}

void SoftmaxGradient(const SoftmaxGradientBlock<BFloat16>& block) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientBFloat16)(block);
}

void SoftmaxGradient(const SoftmaxGradientBlock<Float16>& block) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientFloat16)(block);
}

void SoftmaxGradient(const SoftmaxGradientBlock<float>& block) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientFloat)(block);
}

void SoftmaxGradient(const SoftmaxGradientBlock<double>& block) {
  for (int64_t row = 0; row < block.rows; ++row) {
    const KeyRange range = RowRange(block, row);
    for (int64_t i = 0; i < block.pitch; ++i) {
      const int64_t at = row * block.pitch + i;
      const bool valid = i >= range.begin && i < range.end;
      const double dp = block.dp[at];
      const double p = valid ? std::exp(block.scale * block.scores[at] -
                                        block.log_sum_exp[row])
                             : 0.0;
      block.p[at] = p;
      block.ds[at] = valid ? block.scale * p * (dp - block.delta[row]) : 0.0;
    }
  }
}

void ScaleRows(const ScaledRows<BFloat16>& x) {
  HWY_DYNAMIC_DISPATCH(ScaleRowsBFloat16)(x);
}

void ScaleRows(const ScaledRows<Float16>& x) {
  HWY_DYNAMIC_DISPATCH(ScaleRowsFloat16)(x);
}

void ScaleRows(const ScaledRows<float>& x) {
  HWY_DYNAMIC_DISPATCH(ScaleRowsFloat)(x);
}

void ScaleRows(const ScaledRows<double>& x) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const double factor = x.factors == nullptr ? 1.0 : x.factors[row];
    for (int64_t i = 0; i < x.columns; ++i) {
      x.to[row * x.to_pitch + i] = x.from[row * x.from_pitch + i] * factor;
    }
  }
}

void RowDots(const RowPairs<BFloat16>& x, float* dots) {
  HWY_DYNAMIC_DISPATCH(RowDotsBFloat16)(x, dots);
}

void RowDots(const RowPairs<Float16>& x, float* dots) {
  HWY_DYNAMIC_DISPATCH(RowDotsFloat16)(x, dots);
}

void RowDots(const RowPairs<float>& x, float* dots) {
  HWY_DYNAMIC_DISPATCH(RowDotsFloat)(x, dots);
}

void RowDots(const RowPairs<double>& x, double* dots) {
  for (int64_t row = 0; row < x.rows; ++row) {
    dots[row] = 0;
    for (int64_t i = 0; i < x.columns; ++i) {
      dots[row] += x.a[row * x.a_pitch + i] * x.b[row * x.b_pitch + i];
    }
  }
}

}  // namespace trireme
#endif  // HWY_ONCE
