#include "runtime/ops/cpu/adamw_kernels.h"

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/adamw_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

template <typename C, typename Value>
void AdamWOf(const AdamWArguments& a, Value* value) {
  const C* grad = static_cast<const C*>(a.grad);
  C* master = static_cast<C*>(a.master);
  C* m = static_cast<C*>(a.m);
  C* v = static_cast<C*>(a.v);
  const C scale = static_cast<C>(a.gradient_scale);
  const C beta1 = static_cast<C>(a.beta1);
  const C rest1 = static_cast<C>(1 - a.beta1);
  const C beta2 = static_cast<C>(a.beta2);
  const C rest2 = static_cast<C>(1 - a.beta2);
  const C correction1 = static_cast<C>(a.correction1);
  const C correction2 = static_cast<C>(a.correction2);
  const C eps = static_cast<C>(a.eps);
  const C decay = static_cast<C>(a.weight_decay);
  const C rate = static_cast<C>(a.learning_rate);
  ParallelBlocks(a.n, [=](int64_t begin, int64_t end) HWY_ATTR {
    ForLanes<C>(end - begin, [=](auto d, int64_t offset) HWY_ATTR {
      const int64_t i = begin + offset;
      const auto g = hn::Mul(LoadAt(d, grad + i), hn::Set(d, scale));
      const auto m_new = hn::MulAdd(hn::Set(d, beta1), LoadAt(d, m + i),
                                    hn::Mul(hn::Set(d, rest1), g));
      const auto v_new = hn::MulAdd(hn::Set(d, beta2), LoadAt(d, v + i),
                                    hn::Mul(hn::Mul(hn::Set(d, rest2), g), g));
      const auto denominator = hn::Add(
          hn::Sqrt(hn::Mul(v_new, hn::Set(d, correction2))), hn::Set(d, eps));
      const auto old = LoadAt(d, master + i);
      const auto direction = hn::MulAdd(
          hn::Set(d, decay), old,
          hn::Div(hn::Mul(m_new, hn::Set(d, correction1)), denominator));
      const auto updated = hn::NegMulAdd(hn::Set(d, rate), direction, old);
      StoreAt(m_new, d, m + i);
      StoreAt(v_new, d, v + i);
      StoreAt(updated, d, master + i);
      StoreAt(updated, d, value + i);
    });
  });
}

void AdamW(const AdamWArguments& a) {
  DispatchElement(a.value_dtype, [&](auto element) {
    using Value = decltype(element);
    AdamWOf<ComputeType<Value>>(a, static_cast<Value*>(a.value));
  });
}

void Ema(DType dtype, int64_t n, double decay, const void* x, void* average) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const T* in = static_cast<const T*>(x);
    T* out = static_cast<T*>(average);
    ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
      ForLanes<C>(end - begin, [&](auto d, int64_t i) HWY_ATTR {
        const auto old = LoadAt(d, out + begin + i);
        StoreAt(hn::MulAdd(hn::Sub(LoadAt(d, in + begin + i), old),
                           hn::Set(d, static_cast<C>(1 - decay)), old),
                d, out + begin + i);
      });
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(AdamW);
HWY_EXPORT(Ema);

void AdamWKernel(const AdamWArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(AdamW)(arguments);
}

void EmaKernel(DType dtype, int64_t n, double decay, const void* x,
               void* average) {
  HWY_DYNAMIC_DISPATCH(Ema)(dtype, n, decay, x, average);
}

}  // namespace trireme
#endif  // HWY_ONCE
