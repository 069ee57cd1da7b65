// Highway pieces shared by the kernels around matrix products: fp32 lanes from
// and to fp32 or bf16 memory. Included once per target (see foreach_target.h).

#if defined(TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#undef TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#else
#define TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#endif

#include "hwy/highway.h"
#include "runtime/core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;

inline FloatVector LoadFloats(const float* from) {
  return hn::LoadU(Floats(), from);
}

inline FloatVector LoadFloats(const BFloat16* from) {
  const hn::Rebind<uint16_t, Floats> half;
  const hn::RebindToUnsigned<Floats> bits;
  const auto words = hn::LoadU(half, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(bits, words)));
}

inline void StoreFloats(FloatVector x, float* to) {
  hn::StoreU(x, Floats(), to);
}

// Rounds to nearest even; NaN stays NaN.
inline void StoreFloats(FloatVector x, BFloat16* to) {
  const hn::Rebind<uint16_t, Floats> half;
  const hn::RebindToSigned<Floats> bits;
  const auto wide = hn::BitCast(bits, x);
  const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
  const auto rounded = hn::Add(hn::Add(wide, hn::Set(bits, 0x7fff)), odd);
  const auto quiet = hn::Or(wide, hn::Set(bits, 0x400000));
  const auto chosen =
      hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(x)), quiet, rounded);
  // Unsigned, so that DemoteTo does not saturate.
  const auto upper = hn::BitCast(
      bits,
      hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<Floats>(), chosen)));
  hn::StoreU(hn::DemoteTo(half, upper), half, reinterpret_cast<uint16_t*>(to));
}

inline float LoadFloat(const float* from) { return *from; }
inline float LoadFloat(const BFloat16* from) {
  return static_cast<float>(*from);
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
