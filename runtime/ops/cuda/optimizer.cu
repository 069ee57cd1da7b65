#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

template <typename C>
struct AdamWFactors {
  C gradient_scale, beta1, rest1, beta2, rest2, correction1, correction2, eps,
      decay, rate;

  explicit AdamWFactors(const AdamWArguments& a)
      : gradient_scale(static_cast<C>(a.gradient_scale)),
        beta1(static_cast<C>(a.beta1)),
        rest1(static_cast<C>(1 - a.beta1)),
        beta2(static_cast<C>(a.beta2)),
        rest2(static_cast<C>(1 - a.beta2)),
        correction1(static_cast<C>(a.correction1)),
        correction2(static_cast<C>(a.correction2)),
        eps(static_cast<C>(a.eps)),
        decay(static_cast<C>(a.weight_decay)),
        rate(static_cast<C>(a.learning_rate)) {}
};

// The same operations as the host's kernel, each correctly rounded: no sum of a
// product is left for a compiler to fuse, so the bits are the same.
template <typename C, typename Value>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(int64_t n, const AdamWFactors<C> f, const C* grad, C* master,
                C* m, C* v, Value* value) {
  constexpr int kSize = kPackSize<C, Value>;
  const int64_t at = GridThread() * kSize;
  if (at >= n) return;
  const int64_t rest = n - at;
  const auto gradients = LoadPack<kSize>(grad + at, rest);
  auto masters = LoadPack<kSize>(master + at, rest);
  auto first = LoadPack<kSize>(m + at, rest);
  auto second = LoadPack<kSize>(v + at, rest);
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    const C g = gradients[i] * f.gradient_scale;
    first[i] = MultiplyAdd(f.beta1, first[i], f.rest1 * g);
    second[i] = MultiplyAdd(f.beta2, second[i], f.rest2 * g * g);
    const C denominator = SquareRoot(second[i] * f.correction2) + f.eps;
    const C direction = MultiplyAdd(f.decay, masters[i],
                                    first[i] * f.correction1 / denominator);
    masters[i] = MultiplyAdd(-f.rate, direction, masters[i]);
  }
  StorePack(first, m + at, rest);
  StorePack(second, v + at, rest);
  StorePack(masters, master + at, rest);
  StorePack(masters, value + at, rest);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    EmaKernel(int64_t n, ComputeType<T> step, const T* x, T* average) {
  constexpr int kSize = kPackSize<T>;
  const int64_t at = GridThread() * kSize;
  if (at >= n) return;
  const auto values = LoadPack<kSize>(x + at, n - at);
  auto averages = LoadPack<kSize>(average + at, n - at);
  UNROLL
  for (int i = 0; i < kSize; ++i) {
    averages[i] = MultiplyAdd(values[i] - averages[i], step, averages[i]);
  }
  StorePack(averages, average + at, n - at);
}

void Ema(Stream& stream, DType dtype, int64_t n, double decay, const void* x,
         void* average) {
  if (n == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    constexpr int kSize = kPackSize<T>;
    Launch({GridFor((n + kSize - 1) / kSize, kThreads), kThreads, 0,
            Handle(stream)},
           EmaKernel<T>, n, static_cast<ComputeType<T>>(1 - decay),
           static_cast<const T*>(x), static_cast<T*>(average));
  });
}

void AdamW(Stream& stream, const AdamWArguments& a) {
  if (a.n == 0) return;
  DispatchElement(a.value_dtype, [&]<typename Value>(Value) {
    using C = ComputeType<Value>;
    constexpr int kSize = kPackSize<C, Value>;
    Launch({GridFor((a.n + kSize - 1) / kSize, kThreads), kThreads, 0,
            Handle(stream)},
           AdamWKernel<C, Value>, a.n, AdamWFactors<C>(a),
           static_cast<const C*>(a.grad), static_cast<C*>(a.master),
           static_cast<C*>(a.m), static_cast<C*>(a.v),
           static_cast<Value*>(a.value));
  });
  if (a.averages) Ema(stream, a.dtype, a.n, a.ema_decay, a.master, a.average);
}

}  // namespace

OptimizerKernels CudaOptimizers() { return {.adamw = AdamW, .ema = Ema}; }

}  // namespace trireme
