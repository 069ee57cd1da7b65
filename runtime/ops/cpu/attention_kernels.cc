#include "runtime/ops/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/attention_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"
#include "runtime/ops/cpu/gemm_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

inline int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

// Lanes of `valid` columns from `column` on.
inline hn::Mask<Floats> ValidLanes(int64_t column, int64_t valid) {
  return hn::FirstN(Floats(), static_cast<size_t>(std::clamp<int64_t>(
                                  valid - column, 0, Lanes())));
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

inline void StoreNearest(FloatVector x, float* to) { StoreFloats(x, to); }
inline void StoreNearest(FloatVector x, Float16* to) { StoreFloats(x, to); }

// Ties away from zero, which saves a third of the rounding; scores have no
// reason to lie on ties.
inline void StoreNearest(FloatVector x, BFloat16* to) {
  const hn::Rebind<uint16_t, Floats> half;
  const hn::RebindToUnsigned<Floats> bits;
  const hn::RebindToSigned<Floats> wide;
  const auto upper =
      hn::ShiftRight<16>(hn::Add(hn::BitCast(bits, x), hn::Set(bits, 0x8000)));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(wide, upper)), half,
             reinterpret_cast<uint16_t*>(to));
}

// The largest of row[valid].
inline float RowMaximum(const float* row, int64_t valid) {
  const Floats d;
  const int64_t lanes = Lanes();
  auto m0 = hn::Set(d, kMinusInfinity);
  auto m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  for (; i + 4 * lanes <= valid; i += 4 * lanes) {
    m0 = hn::Max(m0, LoadFloats(row + i));
    m1 = hn::Max(m1, LoadFloats(row + i + lanes));
    m2 = hn::Max(m2, LoadFloats(row + i + 2 * lanes));
    m3 = hn::Max(m3, LoadFloats(row + i + 3 * lanes));
  }
  for (; i < valid; i += lanes) {
    m0 = hn::Max(m0, hn::IfThenElse(ValidLanes(i, valid), LoadFloats(row + i),
                                    hn::Set(d, kMinusInfinity)));
  }
  return hn::GetLane(
      hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

template <typename T>
void OnlineSoftmaxRows(const OnlineSoftmaxBlock<T>& block) {
  const Floats d;
  const int64_t lanes = Lanes();
  const int64_t full = block.valid / lanes * lanes;
  const auto scale = hn::Set(d, block.scale * kLog2E);
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* scores = block.scores + row * block.pitch;
    const float before = block.maxima[row];
    const float maximum =
        std::max(before, RowMaximum(scores, block.valid) * block.scale);

    T* p = block.p + row * block.pitch;
    const auto shift = hn::Set(d, -maximum * kLog2E);
    auto sums = hn::Zero(d);
    auto more_sums = hn::Zero(d);
    int64_t i = 0;
    for (; i + 2 * lanes <= full; i += 2 * lanes) {
      const auto a =
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i), scale, shift));
      const auto b =
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i + lanes), scale, shift));
      sums = hn::Add(sums, a);
      more_sums = hn::Add(more_sums, b);
      StoreNearest(a, p + i);
      StoreNearest(b, p + i + lanes);
    }
    for (; i < block.pitch; i += lanes) {
      const auto e = hn::IfThenElseZero(
          ValidLanes(i, block.valid),
          PowerOfTwo(hn::MulAdd(LoadFloats(scores + i), scale, shift)));
      sums = hn::Add(sums, e);
      StoreNearest(e, p + i);
    }
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
        StoreFloats(hn::Mul(LoadFloats(out + j), factor), out + j);
      }
    }
  }
}

void OnlineSoftmaxBFloat16(const OnlineSoftmaxBlock<BFloat16>& block) {
  OnlineSoftmaxRows(block);
}

void OnlineSoftmaxFloat16(const OnlineSoftmaxBlock<Float16>& block) {
  OnlineSoftmaxRows(block);
}

void OnlineSoftmaxFloat(const OnlineSoftmaxBlock<float>& block) {
  OnlineSoftmaxRows(block);
}

template <typename T>
void SoftmaxGradientRows(const SoftmaxGradientBlock<T>& block) {
  const Floats d;
  const int64_t lanes = Lanes();
  const int64_t full = block.valid / lanes * lanes;
  const auto power_scale = hn::Set(d, block.scale * kLog2E);
  const auto scale = hn::Set(d, block.scale);
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t at = row * block.pitch;
    const auto shift = hn::Set(d, -block.log_sum_exp[row] * kLog2E);
    // scale·(dp − delta) = scale·dp + offset.
    const auto offset = hn::Set(d, -block.scale * block.delta[row]);
    int64_t i = 0;
    for (; i < full; i += lanes) {
      const auto score = LoadFloats(block.scores + at + i);
      const auto dp = LoadFloats(block.dp + at + i);
      const auto p = PowerOfTwo(hn::MulAdd(score, power_scale, shift));
      StoreNearest(p, block.p + at + i);
      StoreNearest(hn::Mul(p, hn::MulAdd(dp, scale, offset)),
                   block.ds + at + i);
    }
    for (; i < block.pitch; i += lanes) {
      const auto valid = ValidLanes(i, block.valid);
      const auto score = LoadFloats(block.scores + at + i);
      const auto dp = LoadFloats(block.dp + at + i);
      const auto p = PowerOfTwo(hn::MulAdd(score, power_scale, shift));
      const auto ds = hn::Mul(p, hn::MulAdd(dp, scale, offset));
      StoreNearest(hn::IfThenElseZero(valid, p), block.p + at + i);
      StoreNearest(hn::IfThenElseZero(valid, ds), block.ds + at + i);
    }
  }
}

void SoftmaxGradientBFloat16(const SoftmaxGradientBlock<BFloat16>& block) {
  SoftmaxGradientRows(block);
}

void SoftmaxGradientFloat16(const SoftmaxGradientBlock<Float16>& block) {
  SoftmaxGradientRows(block);
}

void SoftmaxGradientFloat(const SoftmaxGradientBlock<float>& block) {
  SoftmaxGradientRows(block);
}

template <typename T>
void ScaleOneRow(const float* from, int64_t count, float factor, T* to) {
  const int64_t lanes = Lanes();
  const auto factors = hn::Set(Floats(), factor);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreFloats(hn::Mul(LoadFloats(from + i), factors), to + i);
  }
  for (; i < count; ++i) to[i] = T(from[i] * factor);
}

void ScaleRowBFloat16(const float* from, int64_t count, float factor,
                      BFloat16* to) {
  ScaleOneRow(from, count, factor, to);
}

void ScaleRowFloat16(const float* from, int64_t count, float factor,
                     Float16* to) {
  ScaleOneRow(from, count, factor, to);
}

void ScaleRowFloat(const float* from, int64_t count, float factor, float* to) {
  ScaleOneRow(from, count, factor, to);
}

template <typename T>
float DotOneRow(const T* a, const T* b, int64_t count) {
  const Floats d;
  const int64_t lanes = Lanes();
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    sums = hn::MulAdd(LoadFloats(a + i), LoadFloats(b + i), sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += LoadFloat(a + i) * LoadFloat(b + i);
  return sum;
}

float RowDotBFloat16(const BFloat16* a, const BFloat16* b, int64_t count) {
  return DotOneRow(a, b, count);
}

float RowDotFloat16(const Float16* a, const Float16* b, int64_t count) {
  return DotOneRow(a, b, count);
}

float RowDotFloat(const float* a, const float* b, int64_t count) {
  return DotOneRow(a, b, count);
}

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
HWY_EXPORT(ScaleRowBFloat16);
HWY_EXPORT(ScaleRowFloat16);
HWY_EXPORT(ScaleRowFloat);
HWY_EXPORT(RowDotBFloat16);
HWY_EXPORT(RowDotFloat16);
HWY_EXPORT(RowDotFloat);

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
    double maximum = before;
    for (int64_t i = 0; i < block.valid; ++i) {
      maximum = std::max(maximum, scores[i] * block.scale);
    }
    const double rescale = std::exp(before - maximum);
    double sum = before == -std::numeric_limits<double>::infinity()
                     ? 0
                     : block.sums[row] * rescale;
    double* p = block.p + row * block.pitch;
    for (int64_t i = 0; i < block.pitch; ++i) {
      p[i] =
          i < block.valid ? std::exp(scores[i] * block.scale - maximum) : 0.0;
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
    for (int64_t i = 0; i < block.pitch; ++i) {
      const int64_t at = row * block.pitch + i;
      const double dp = block.dp[at];
      const double p = i < block.valid
                           ? std::exp(block.scale * block.scores[at] -
                                      block.log_sum_exp[row])
                           : 0.0;
      block.p[at] = p;
      block.ds[at] =
          i < block.valid ? block.scale * p * (dp - block.delta[row]) : 0.0;
    }
  }
}

void ScaleRow(const float* from, int64_t count, float factor, BFloat16* to) {
  HWY_DYNAMIC_DISPATCH(ScaleRowBFloat16)(from, count, factor, to);
}

void ScaleRow(const float* from, int64_t count, float factor, Float16* to) {
  HWY_DYNAMIC_DISPATCH(ScaleRowFloat16)(from, count, factor, to);
}

void ScaleRow(const float* from, int64_t count, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(ScaleRowFloat)(from, count, factor, to);
}

void ScaleRow(const double* from, int64_t count, double factor, double* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * factor;
}

float RowDot(const BFloat16* a, const BFloat16* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowDotBFloat16)(a, b, count);
}

float RowDot(const Float16* a, const Float16* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowDotFloat16)(a, b, count);
}

float RowDot(const float* a, const float* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowDotFloat)(a, b, count);
}

double RowDot(const double* a, const double* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace trireme
#endif  // HWY_ONCE
