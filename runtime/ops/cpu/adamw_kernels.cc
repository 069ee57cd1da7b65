#include "runtime/ops/cpu/adamw_kernels.h"

#include <algorithm>
#include <cstring>

#include "hwy/cache_control.h"
#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/adamw_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

#if !defined(TRIREME_RUNTIME_OPS_CPU_ADAMW_KERNELS_ONCE_)
#define TRIREME_RUNTIME_OPS_CPU_ADAMW_KERNELS_ONCE_
namespace trireme {
// From here on an update's own reads push a copy of the weights out of the
// caches: 16 MiB of each.
inline constexpr int64_t kStreamedElements = int64_t{1} << 20;
}  // namespace trireme
#endif

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// The processor's own prefetchers end at every page and fall behind where as
// many arrays are read as here.
template <typename T>
HWY_INLINE void PrefetchAfter(const T* from) {
  constexpr int64_t kBytesAhead = 1024;
  hwy::Prefetch(reinterpret_cast<const char*>(from) + kBytesAhead);
}

// Past the caches: whole lines that are written so need not be read before.
HWY_INLINE void StreamBytes(const char* from, int64_t bytes, char* to) {
  constexpr int64_t kLine = 64;
  const hn::ScalableTag<uint8_t> d;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const auto address = reinterpret_cast<uintptr_t>(to);
  int64_t i = std::min<int64_t>(bytes, (kLine - address % kLine) % kLine);
  std::memcpy(to, from, i);
  for (; i + kLine <= bytes; i += kLine) {
    for (int64_t at = i; at < i + kLine; at += step) {
      hn::Stream(hn::LoadU(d, reinterpret_cast<const uint8_t*>(from) + at), d,
                 reinterpret_cast<uint8_t*>(to) + at);
    }
  }
  std::memcpy(to + i, from + i, bytes - i);
}

template <typename T>
HWY_INLINE void EmaBlock(int64_t n, ComputeType<T> rest, const T* x,
                         T* average) {
  ForLanes<ComputeType<T>>(n, [=](auto d, int64_t i) HWY_ATTR {
    PrefetchAfter(x + i);
    PrefetchAfter(average + i);
    const auto old = LoadAt(d, average + i);
    StoreAt(hn::MulAdd(hn::Sub(LoadAt(d, x + i), old), hn::Set(d, rest), old),
            d, average + i);
  });
}

// Elements of a block.
template <typename C, typename Value>
struct AdamWBlock {
  const C* grad;
  C* master;
  C* m;
  C* v;
  Value* value;
};

template <typename C, typename Value>
HWY_INLINE void UpdateBlock(const AdamWArguments& a, int64_t n,
                            const AdamWBlock<C, Value>& block) {
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
  const auto [grad, master, m, v, value] = block;
  ForLanes<C>(n, [=](auto d, int64_t i) HWY_ATTR {
    PrefetchAfter(grad + i);
    PrefetchAfter(master + i);
    PrefetchAfter(m + i);
    PrefetchAfter(v + i);
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
}

template <typename C, typename Value>
void AdamWOf(const AdamWArguments& a, Value* value) {
  const C* grad = static_cast<const C*>(a.grad);
  C* master = static_cast<C*>(a.master);
  C* m = static_cast<C*>(a.m);
  C* v = static_cast<C*>(a.v);
  C* average = static_cast<C*>(a.average);
  const bool streams = sizeof(Value) < sizeof(C) && a.n >= kStreamedElements;
  ParallelBlocks(a.n, [=, &a](int64_t begin, int64_t end) HWY_ATTR {
    constexpr int64_t kPart = 512;
    alignas(64) Value part[kPart];
    for (int64_t i = begin; i < end; i += kPart) {
      const int64_t count = std::min(kPart, end - i);
      UpdateBlock<C, Value>(
          a, count,
          {grad + i, master + i, m + i, v + i, streams ? part : value + i});
      if (streams) {
        StreamBytes(reinterpret_cast<const char*>(part),
                    count * int64_t{sizeof(Value)},
                    reinterpret_cast<char*>(value + i));
      }
      if (a.averages) {
        EmaBlock<C>(count, static_cast<C>(1 - a.ema_decay), master + i,
                    average + i);
      }
    }
    // Whoever reads the copy waits for this thread, which orders no such
    // stores.
    if (streams) hwy::FlushStream();
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
    ParallelBlocks(n, [=](int64_t begin, int64_t end) HWY_ATTR {
      EmaBlock<T>(end - begin, static_cast<C>(1 - decay), in + begin,
                  out + begin);
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
