// Highway pieces shared by the kernels around matrix products: fp32 lanes from
// and to memory of fp32 or of a 16-bit type. Included once per target (see
// foreach_target.h).

#if defined(TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#undef TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#else
#define TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
#endif

#include "hwy/highway.h"
#include "runtime/core/dtype.h"
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

template <typename T>
HWY_INLINE void StoreFloats(FloatVector x, T* to) {
  StoreAt(x, Floats(), to);
}

template <typename T>
HWY_INLINE float LoadFloat(const T* from) {
  return static_cast<float>(*from);
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_VECTOR_INL_H_
