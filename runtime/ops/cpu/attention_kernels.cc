#include "runtime/ops/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/attention_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/contrib/math/math-inl.h"
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

template <typename T>
void OnlineSoftmaxRows(const OnlineSoftmaxBlock<T>& block) {
  const Floats d;
  const int64_t lanes = Lanes();
  const int64_t full = block.valid / lanes * lanes;
  const auto scale = hn::Set(d, block.scale);
  const auto lowest = hn::Set(d, kMinusInfinity);
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* scores = block.scores + row * block.pitch;
    auto maxima = lowest;
    for (int64_t i = 0; i < full; i += lanes) {
      maxima = hn::Max(maxima, hn::Mul(LoadFloats(scores + i), scale));
    }
    if (full < block.valid) {
      const auto last = hn::Mul(LoadFloats(scores + full), scale);
      maxima = hn::Max(
          maxima, hn::IfThenElse(ValidLanes(full, block.valid), last, lowest));
    }
    const float before = block.maxima[row];
    const float maximum =
        std::max(before, hn::GetLane(hn::MaxOfLanes(d, maxima)));

    T* p = block.p + row * block.pitch;
    const auto shift = hn::Set(d, -maximum);
    auto sums = hn::Zero(d);
    int64_t i = 0;
    for (; i < full; i += lanes) {
      const auto e =
          hn::Exp(d, hn::MulAdd(LoadFloats(scores + i), scale, shift));
      sums = hn::Add(sums, e);
      StoreFloats(e, p + i);
    }
    for (; i < block.pitch; i += lanes) {
      const auto e = hn::IfThenElseZero(
          ValidLanes(i, block.valid),
          hn::Exp(d, hn::MulAdd(LoadFloats(scores + i), scale, shift)));
      sums = hn::Add(sums, e);
      StoreFloats(e, p + i);
    }
    const float sum = hn::GetLane(hn::SumOfLanes(d, sums));

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

void OnlineSoftmaxFloat(const OnlineSoftmaxBlock<float>& block) {
  OnlineSoftmaxRows(block);
}

template <typename T>
void SoftmaxGradientRows(const SoftmaxGradientBlock<T>& block) {
  const Floats d;
  const int64_t lanes = Lanes();
  const int64_t full = block.valid / lanes * lanes;
  const auto scale = hn::Set(d, block.scale);
  for (int64_t row = 0; row < block.rows; ++row) {
    const int64_t at = row * block.pitch;
    const auto shift = hn::Set(d, -block.log_sum_exp[row]);
    const auto delta = hn::Set(d, block.delta[row]);
    int64_t i = 0;
    for (; i < full; i += lanes) {
      const auto score = LoadFloats(block.scores + at + i);
      const auto dp = LoadFloats(block.dp + at + i);
      const auto p = hn::Exp(d, hn::MulAdd(score, scale, shift));
      StoreFloats(p, block.p + at + i);
      StoreFloats(hn::Mul(hn::Mul(p, scale), hn::Sub(dp, delta)),
                  block.ds + at + i);
    }
    for (; i < block.pitch; i += lanes) {
      const auto valid = ValidLanes(i, block.valid);
      const auto score = LoadFloats(block.scores + at + i);
      const auto dp = LoadFloats(block.dp + at + i);
      const auto p = hn::Exp(d, hn::MulAdd(score, scale, shift));
      StoreFloats(hn::IfThenElseZero(valid, p), block.p + at + i);
      StoreFloats(hn::IfThenElseZero(
                      valid, hn::Mul(hn::Mul(p, scale), hn::Sub(dp, delta))),
                  block.ds + at + i);
    }
  }
}

void SoftmaxGradientBFloat16(const SoftmaxGradientBlock<BFloat16>& block) {
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

float RowDotFloat(const float* a, const float* b, int64_t count) {
  return DotOneRow(a, b, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(OnlineSoftmaxBFloat16);
HWY_EXPORT(OnlineSoftmaxFloat);
HWY_EXPORT(SoftmaxGradientBFloat16);
HWY_EXPORT(SoftmaxGradientFloat);
HWY_EXPORT(ScaleRowBFloat16);
HWY_EXPORT(ScaleRowFloat);
HWY_EXPORT(RowDotBFloat16);
HWY_EXPORT(RowDotFloat);

void OnlineSoftmax(const OnlineSoftmaxBlock<BFloat16>& block) {
  HWY_DYNAMIC_DISPATCH(OnlineSoftmaxBFloat16)(block);
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

void ScaleRow(const float* from, int64_t count, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(ScaleRowFloat)(from, count, factor, to);
}

void ScaleRow(const double* from, int64_t count, double factor, double* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * factor;
}

float RowDot(const BFloat16* a, const BFloat16* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowDotBFloat16)(a, b, count);
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
