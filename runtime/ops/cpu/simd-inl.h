// Vector pieces shared by the fused kernels: lanes of the compute type from
// and to memory of any floating type, loops with tails, sums, and fast
// exponentials. Included once per target (see Highway's foreach_target.h).
//
// A kernel body is written once, as a generic lambda of (tag, index): it runs
// with full vectors, then element by element for the tail.

#if defined(TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_
#undef TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_
#else
#define TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "runtime/core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Calls f(tag, i) for i = 0, N, 2N, .. with N lanes of C, then for each element
// of the rest with one lane.
template <typename C, typename F>
HWY_INLINE void ForLanes(int64_t n, F&& f) {
  const hn::ScalableTag<C> full;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(full));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(full, i);
  const hn::CappedTag<C, 1> one;
  for (; i < n; ++i) f(one, i);
}

// LoadAt and StoreAt take any address (hn::Load and hn::Store want aligned
// ones, and would be found by their arguments under a shared name).

// Memory of the compute type itself.
template <class D>
HWY_INLINE hn::Vec<D> LoadAt(D d, const hn::TFromD<D>* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE void StoreAt(hn::Vec<D> x, D d, hn::TFromD<D>* to) {
  hn::StoreU(x, d, to);
}

// bf16 memory, fp32 lanes.
template <class D>
HWY_INLINE hn::Vec<D> LoadAt(D d, const BFloat16* from) {
  const hn::Rebind<uint16_t, D> half;
  const hn::RebindToUnsigned<D> bits;
  const auto words = hn::LoadU(half, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, words)));
}
// Rounds to nearest even; NaN stays NaN.
template <class D>
HWY_INLINE void StoreAt(hn::Vec<D> x, D, BFloat16* to) {
  const hn::Rebind<uint16_t, D> half;
  const hn::RebindToSigned<D> bits;
  const auto wide = hn::BitCast(bits, x);
  const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
  const auto rounded = hn::Add(hn::Add(wide, hn::Set(bits, 0x7fff)), odd);
  const auto quiet = hn::Or(wide, hn::Set(bits, 0x400000));
  const auto chosen =
      hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(x)), quiet, rounded);
  // Shifted as unsigned, so that DemoteTo does not saturate.
  const auto upper = hn::BitCast(
      bits, hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<D>(), chosen)));
  hn::StoreU(hn::DemoteTo(half, upper), half, reinterpret_cast<uint16_t*>(to));
}

// Σ f(tag, i) over i < n. Four sums hide the latency of addition; their order
// is fixed by n alone.
template <typename C, typename F>
HWY_INLINE C SumLanes(int64_t n, F&& f) {
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, f(d, i));
    s1 = hn::Add(s1, f(d, i + lanes));
    s2 = hn::Add(s2, f(d, i + 2 * lanes));
    s3 = hn::Add(s3, f(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, f(d, i));
  C sum =
      hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  const hn::CappedTag<C, 1> one;
  for (; i < n; ++i) sum += hn::GetLane(f(one, i));
  return sum;
}

// eˣ by 2ⁿ·p(r) with r = x − n·ln 2 in two parts; a Taylor polynomial of
// degree 6 (fp32, relative error < 3e-7) or 13 (fp64, < 1e-15). Arguments
// are clamped to the range of finite, normal results; NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<D> FastExp(D d, hn::Vec<D> x) {
  using C = hn::TFromD<D>;
  constexpr bool kSingle = sizeof(C) == 4;
  using Int = hn::TFromD<hn::RebindToSigned<D>>;
  const hn::RebindToSigned<D> di;
  // By comparisons that are false for NaN: Min and Max might drop it.
  const auto lowest = hn::Set(d, kSingle ? C(-87.0) : C(-708.0));
  const auto highest = hn::Set(d, kSingle ? C(88.0) : C(709.0));
  x = hn::IfThenElse(hn::Lt(x, lowest), lowest, x);
  x = hn::IfThenElse(hn::Gt(x, highest), highest, x);
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, C(1.4426950408889634))));
  auto r = hn::NegMulAdd(
      n, hn::Set(d, kSingle ? C(0.693359375) : C(0.69314718036912382)), x);
  r = hn::NegMulAdd(
      n, hn::Set(d, kSingle ? C(-2.12194440e-4) : C(1.9082149292705877e-10)),
      r);
  constexpr int kDegree = kSingle ? 6 : 13;
  constexpr C kInverseFactorial[] = {C(1.0),
                                     C(1.0),
                                     C(1.0 / 2),
                                     C(1.0 / 6),
                                     C(1.0 / 24),
                                     C(1.0 / 120),
                                     C(1.0 / 720),
                                     C(1.0 / 5040),
                                     C(1.0 / 40320),
                                     C(1.0 / 362880),
                                     C(1.0 / 3628800),
                                     C(1.0 / 39916800),
                                     C(1.0 / 479001600),
                                     C(1.0 / 6227020800.0)};
  auto p = hn::Set(d, kInverseFactorial[kDegree]);
  for (int i = kDegree - 1; i >= 0; --i) {
    p = hn::MulAdd(p, r, hn::Set(d, kInverseFactorial[i]));
  }
  // 2ⁿ by its exponent field, in two halves so that n = ±extreme stays finite.
  const auto ni = hn::ConvertTo(di, n);
  const auto bias = hn::Set(di, Int(kSingle ? 127 : 1023));
  const auto scale =
      hn::BitCast(d, hn::ShiftLeft < kSingle ? 23 : 52 > (hn::Add(ni, bias)));
  return hn::Mul(p, scale);
}

// 1/(1 + e⁻ˣ), by a true division: derivatives use 1 − σ(x), which must vanish
// exactly where σ(x) rounds to 1.
template <class D>
HWY_INLINE hn::Vec<D> Sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>(1));
  return hn::Div(one, hn::Add(one, FastExp(d, hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#endif  // TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_
