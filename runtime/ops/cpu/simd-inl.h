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

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "hwy/highway.h"
#include "runtime/core/dtype.h"

#if !defined(TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_ONCE_)
#define TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_ONCE_
namespace trireme {

// bf16 in memory that the processor itself rounds to (avx512_bf16), an eighth
// of the work of rounding by shifts and masks. Like those it rounds to nearest
// even and keeps NaN, but numbers below 2^-126 become zero. Kernels choose it
// by DispatchElement.
struct RoundedBFloat16 : BFloat16 {
  using BFloat16::BFloat16;
};

template <typename T>
inline constexpr bool kIsBFloat16 = std::is_base_of_v<BFloat16, T>;

}  // namespace trireme
#endif

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Highway 1.0.3 does not know the instructions that round to bf16: they are
// asked for by name. Its AVX-512 targets include processors without them.
#undef TRIREME_ROUNDS_BFLOAT16
#define TRIREME_ROUNDS_BFLOAT16 (HWY_ARCH_X86_64 && HWY_TARGET <= HWY_AVX3)

inline bool RoundsBFloat16() {
#if TRIREME_ROUNDS_BFLOAT16
  static const bool rounds = __builtin_cpu_supports("avx512bf16") != 0;
  return rounds;
#else
  return false;
#endif
}

// DispatchFloating for kernels that write: bf16 as RoundedBFloat16 where the
// processor has the instructions.
template <typename F>
HWY_INLINE auto DispatchElement(DType dtype, F&& f) {
#if TRIREME_ROUNDS_BFLOAT16
  if (dtype == DType::kBFloat16 && RoundsBFloat16()) {
    return f(RoundedBFloat16{});
  }
#endif
  return DispatchFloating(dtype, f);
}

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
// The bits of x rounded to bf16 in each upper half: to nearest even; NaN stays
// NaN.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> RoundedBits(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> bits;
  const auto wide = hn::BitCast(bits, x);
  const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
  const auto rounded = hn::Add(hn::Add(wide, hn::Set(bits, 0x7fff)), odd);
  const auto quiet = hn::Or(wide, hn::Set(bits, 0x400000));
  return hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(x)), quiet, rounded);
}
template <class D>
HWY_INLINE void StoreAt(hn::Vec<D> x, D d, BFloat16* to) {
  const hn::Rebind<uint16_t, D> half;
  const hn::RebindToSigned<D> bits;
  // Shifted as unsigned, so that DemoteTo does not saturate.
  const auto upper = hn::BitCast(bits, hn::ShiftRight<16>(RoundedBits(d, x)));
  hn::StoreU(hn::DemoteTo(half, upper), half, reinterpret_cast<uint16_t*>(to));
}

#if TRIREME_ROUNDS_BFLOAT16
HWY_INLINE __m256i RoundedWords(__m512 x) {
  __m256i words;
  asm("vcvtneps2bf16 %1, %0" : "=v"(words) : "v"(x));
  return words;
}
HWY_INLINE __m128i RoundedWords(__m256 x) {
  __m128i words;
  asm("vcvtneps2bf16 %1, %0" : "=v"(words) : "v"(x));
  return words;
}
HWY_INLINE __m128i RoundedWords(__m128 x) {
  __m128i words;
  asm("vcvtneps2bf16 %1, %0" : "=v"(words) : "v"(x));
  return words;
}
// The words of `low`, then those of `high`.
HWY_INLINE __m512i RoundedWords(__m512 low, __m512 high) {
  __m512i words;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(words) : "v"(high), "v"(low));
  return words;
}

template <class D>
HWY_INLINE void StoreAt(hn::Vec<D> x, D, RoundedBFloat16* to) {
  const hn::Rebind<uint16_t, D> half;
  hn::StoreU(hn::Vec<decltype(half)>{RoundedWords(x.raw)}, half,
             reinterpret_cast<uint16_t*>(to));
}
#endif

// fp16 memory, fp32 lanes.
template <class D>
HWY_INLINE hn::Vec<D> LoadAt(D d, const Float16* from) {
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(
      d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from)));
}
template <class D>
HWY_INLINE void StoreAt(hn::Vec<D> x, D, Float16* to) {
  const hn::Rebind<hwy::float16_t, D> half;
  hn::StoreU(hn::DemoteTo(half, x), half,
             reinterpret_cast<hwy::float16_t*>(to));
}

// Two vectors of successive elements in whatever order costs least: bf16
// elements of even and of odd index, since these are a shift and a mask away
// from their words.
template <class D>
struct Two {
  hn::Vec<D> first;
  hn::Vec<D> second;
};

template <class D>
HWY_INLINE Two<D> LoadTwo(D d, const hn::TFromD<D>* from) {
  return {hn::LoadU(d, from), hn::LoadU(d, from + hn::Lanes(d))};
}
template <class D>
HWY_INLINE void StoreTwo(const Two<D>& x, D d, hn::TFromD<D>* to) {
  hn::StoreU(x.first, d, to);
  hn::StoreU(x.second, d, to + hn::Lanes(d));
}
template <class D>
HWY_INLINE Two<D> LoadTwo(D d, const BFloat16* from) {
  const hn::RebindToUnsigned<D> bits;
  const hn::Repartition<uint16_t, D> halves;
  const auto words = hn::BitCast(
      bits, hn::LoadU(halves, reinterpret_cast<const uint16_t*>(from)));
  return {hn::BitCast(d, hn::ShiftLeft<16>(words)),
          hn::BitCast(d, hn::And(words, hn::Set(bits, 0xffff0000)))};
}
template <class D>
HWY_INLINE void StoreTwo(const Two<D>& x, D d, BFloat16* to) {
  const hn::RebindToUnsigned<D> bits;
  const hn::Repartition<uint16_t, D> halves;
  const auto words =
      hn::Or(hn::ShiftRight<16>(RoundedBits(d, x.first)),
             hn::And(RoundedBits(d, x.second), hn::Set(bits, 0xffff0000)));
  hn::StoreU(hn::BitCast(halves, words), halves,
             reinterpret_cast<uint16_t*>(to));
}

#if TRIREME_ROUNDS_BFLOAT16
template <class D>
HWY_INLINE void StoreTwo(const Two<D>& x, D, RoundedBFloat16* to) {
  static_assert(sizeof(x.first.raw) == sizeof(__m512));
  alignas(64) static constexpr std::array<uint16_t, 32> kAlternating = [] {
    std::array<uint16_t, 32> from{};
    for (uint16_t i = 0; i < 32; ++i) from[i] = i / 2 + i % 2 * 16;
    return from;
  }();
  _mm512_storeu_si512(
      to, _mm512_permutexvar_epi16(_mm512_load_si512(kAlternating.data()),
                                   RoundedWords(x.first.raw, x.second.raw)));
}
#endif

template <class D>
HWY_INLINE Two<D> LoadTwo(D d, const Float16* from) {
  return {LoadAt(d, from), LoadAt(d, from + hn::Lanes(d))};
}
template <class D>
HWY_INLINE void StoreTwo(const Two<D>& x, D d, Float16* to) {
  StoreAt(x.first, d, to);
  StoreAt(x.second, d, to + hn::Lanes(d));
}

// The elements of even and those of odd index of two vectors.
template <class D, typename T>
HWY_INLINE Two<D> LoadPairs(D d, const T* from) {
  if constexpr (kIsBFloat16<T>) {
    return LoadTwo(d, from);
  } else if constexpr (std::is_same_v<T, Float16>) {
    const auto x = LoadTwo(d, from);
    return {hn::ConcatEven(d, x.second, x.first),
            hn::ConcatOdd(d, x.second, x.first)};
  } else {
    Two<D> x;
    hn::LoadInterleaved2(d, from, x.first, x.second);
    return x;
  }
}
template <class D, typename T>
HWY_INLINE void StorePairs(const Two<D>& x, D d, T* to) {
  if constexpr (kIsBFloat16<T>) {
    StoreTwo(x, d, to);
  } else if constexpr (std::is_same_v<T, Float16>) {
    hn::TFromD<D> wide[2 * hn::MaxLanes(D())];
    hn::StoreInterleaved2(x.first, x.second, d, wide);
    StoreTwo(LoadTwo(d, wide), d, to);
  } else {
    hn::StoreInterleaved2(x.first, x.second, d, to);
  }
}

// A buffer for the first `count` elements of two vectors where there are not
// enough for both: further ones read as zero and are not written.
template <class D, typename T>
struct Rest {
  static constexpr int64_t kStep = 2 * hn::MaxLanes(D());
  T elements[kStep] = {};

  Rest() = default;
  Rest(const T* from, int64_t count) { std::copy_n(from, count, elements); }
  void CopyTo(T* to, int64_t count) const { std::copy_n(elements, count, to); }
};

template <class D, typename T>
HWY_INLINE Two<D> LoadTwoUpTo(D d, const T* from, int64_t count) {
  if (count >= Rest<D, T>::kStep) return LoadTwo(d, from);
  return LoadTwo(d, Rest<D, T>(from, count).elements);
}
template <class D, typename T>
HWY_INLINE void StoreTwoUpTo(const Two<D>& x, D d, T* to, int64_t count) {
  if (count >= Rest<D, T>::kStep) return StoreTwo(x, d, to);
  Rest<D, T> rest;
  StoreTwo(x, d, rest.elements);
  rest.CopyTo(to, count);
}
template <class D, typename T>
HWY_INLINE Two<D> LoadPairsUpTo(D d, const T* from, int64_t count) {
  if (count >= Rest<D, T>::kStep) return LoadPairs(d, from);
  return LoadPairs(d, Rest<D, T>(from, count).elements);
}
template <class D, typename T>
HWY_INLINE void StorePairsUpTo(const Two<D>& x, D d, T* to, int64_t count) {
  if (count >= Rest<D, T>::kStep) return StorePairs(x, d, to);
  Rest<D, T> rest;
  StorePairs(x, d, rest.elements);
  rest.CopyTo(to, count);
}

// out[i] = f(tag, operands at i) for i < n. The last elements pass through
// buffers, so that an element's result does not depend on where it stands.
template <typename T, typename F, typename... In>
HWY_INLINE void MapOperands(int64_t n, F&& f, T* out, const In*... in) {
  const hn::ScalableTag<ComputeType<T>> d;
  constexpr int64_t kStep = 2 * hn::MaxLanes(decltype(d)());
  const auto map = [&](T* to, const auto*... from) HWY_ATTR {
    [&](const auto&... x) HWY_ATTR {
      StoreTwo({f(d, x.first...), f(d, x.second...)}, d, to);
    }(LoadTwo(d, from)...);
  };
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) map(out + i, in + i...);
  if (i == n) return;
  T rest[kStep];
  std::tuple<std::array<In, kStep>...> operands{};
  std::apply(
      [&](auto&... buffer) HWY_ATTR {
        (std::copy(in + i, in + n, buffer.begin()), ...);
        map(rest, buffer.data()...);
      },
      operands);
  std::copy(rest, rest + (n - i), out + i);
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

// The sums over i < n of the vectors in f(tag, operands at i), an array. Four
// parts of each hide the latency of addition; their order is fixed by n alone.
template <typename T, size_t kSums, typename F, typename... In>
HWY_INLINE std::array<ComputeType<T>, kSums> SumsOfOperands(int64_t n, F&& f,
                                                            const In*... in) {
  using C = ComputeType<T>;
  const hn::ScalableTag<C> d;
  using Vectors = std::array<hn::Vec<decltype(d)>, kSums>;
  constexpr int64_t kStep = 2 * hn::MaxLanes(decltype(d)());
  Vectors parts[4];
  for (Vectors& part : parts) part.fill(hn::Zero(d));
  const auto add = [](Vectors& part, const Vectors& x) HWY_ATTR {
    for (size_t k = 0; k < kSums; ++k) part[k] = hn::Add(part[k], x[k]);
  };
  const auto add_two = [&](Vectors& first, Vectors& second, const auto&... x)
                           HWY_ATTR {
                             add(first, f(d, x.first...));
                             add(second, f(d, x.second...));
                           };
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    add_two(parts[0], parts[1], LoadTwo(d, in + i)...);
    add_two(parts[2], parts[3], LoadTwo(d, in + i + kStep)...);
  }
  if (i + kStep <= n) {
    add_two(parts[0], parts[1], LoadTwo(d, in + i)...);
    i += kStep;
  }
  std::array<C, kSums> sums;
  for (size_t k = 0; k < kSums; ++k) {
    sums[k] = hn::GetLane(
        hn::SumOfLanes(d, hn::Add(hn::Add(parts[0][k], parts[1][k]),
                                  hn::Add(parts[2][k], parts[3][k]))));
  }
  const hn::CappedTag<C, 1> one;
  for (; i < n; ++i) {
    const auto x = f(one, LoadAt(one, in + i)...);
    for (size_t k = 0; k < kSums; ++k) sums[k] += hn::GetLane(x[k]);
  }
  return sums;
}

// One sum: of f(tag, operands at i).
template <typename T, typename F, typename... In>
HWY_INLINE ComputeType<T> SumOperands(int64_t n, F&& f, const In*... in) {
  return SumsOfOperands<T, 1>(
      n,
      [&](auto d, auto... x)
          HWY_ATTR { return std::array<hn::Vec<decltype(d)>, 1>{f(d, x...)}; },
      in...)[0];
}

// The coefficients of a polynomial for eʳ, |r| ≤ ln 2 / 2, as good as results
// of type T need: for bf16 and others in fp32 of least relative error (1e-4
// and 1.05e-7), for fp64 the Taylor series (1e-17).
template <typename T>
constexpr auto ExpPolynomial() {
  if constexpr (kIsBFloat16<T>) {
    return std::array<float, 4>{1.0f, 1.00019592f, 0.504131201f, 0.165179465f};
  } else if constexpr (!std::is_same_v<T, double>) {
    return std::array<float, 6>{1.0f,         1.0f,          0.499992315f,
                                0.166671146f, 0.0418901579f, 0.00831252088f};
  } else {
    std::array<double, 14> inverse_factorials = {1.0};
    for (size_t i = 1; i < inverse_factorials.size(); ++i) {
      inverse_factorials[i] =
          inverse_factorials[i - 1] / static_cast<double>(i);
    }
    return inverse_factorials;
  }
}

// eˣ by 2ⁿ·p(r) with r = x − n·ln 2, for results of type T in lanes of its
// compute type. Arguments are clamped to the range of finite, normal results;
// NaN stays NaN.
template <typename T, class D>
HWY_INLINE hn::Vec<D> FastExp(D d, hn::Vec<D> x) {
  using C = hn::TFromD<D>;
  constexpr bool kSingle = sizeof(C) == 4;
  // x86's minimum and maximum give their second operand where one is NaN.
  x = hn::Max(hn::Set(d, kSingle ? C(-87) : C(-708)), x);
  x = hn::Min(hn::Set(d, kSingle ? C(88) : C(709)), x);
  // Adding 1.5·2²³ (2⁵²) rounds to an integer and leaves it in the lowest bits;
  // with the exponent's bias on top these bits become those of 2ⁿ.
  const auto shifter =
      hn::Set(d, kSingle ? C(12582912 + 127) : C(6755399441055744.0 + 1023.0));
  const auto shifted =
      hn::MulAdd(x, hn::Set(d, C(1.4426950408889634)), shifter);
  const auto scale = hn::BitCast(
      d, hn::ShiftLeft < kSingle
             ? 23
             : 52 > (hn::BitCast(hn::RebindToUnsigned<D>(), shifted)));
  const auto n = hn::Sub(shifted, shifter);
  auto r = hn::NegMulAdd(n, hn::Set(d, C(0.6931471805599453)), x);
  // What rounding took from ln 2.
  constexpr C kLowLn2 = kSingle ? C(-1.90465432e-9) : C(2.3190468138462996e-17);
  if constexpr (!kIsBFloat16<T>) r = hn::NegMulAdd(n, hn::Set(d, kLowLn2), r);
  constexpr auto kPolynomial = ExpPolynomial<T>();
  auto p = hn::Set(d, kPolynomial.back());
#pragma GCC unroll 16
  for (size_t i = kPolynomial.size() - 1; i > 0; --i) {
    p = hn::MulAdd(p, r, hn::Set(d, kPolynomial[i - 1]));
  }
  return hn::Mul(p, scale);
}

// σ(x) = 1/(1 + e⁻ˣ), and 1 − σ(x) without cancellation.
template <class D>
struct SigmoidPair {
  hn::Vec<D> value;
  hn::Vec<D> rest;
};

template <typename T, class D>
HWY_INLINE SigmoidPair<D> Sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>(1));
  const auto e = FastExp<T>(d, hn::Neg(x));
  const auto sum = hn::Add(one, e);
  if constexpr (kIsBFloat16<T>) {
    // At least 11 right bits; bf16 has 8.
    const auto value = hn::ApproximateReciprocal(sum);
    return {value, hn::Mul(e, value)};
  } else {
    const auto value = hn::Div(one, sum);
    return {value, hn::Mul(e, value)};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#endif  // TRIREME_RUNTIME_OPS_CPU_SIMD_INL_H_
