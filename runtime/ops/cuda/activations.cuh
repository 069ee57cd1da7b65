// The activation functions and their derivatives, in the compute type.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ACTIVATIONS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_ACTIVATIONS_CUH_

#include "runtime/ops/cuda/elements.cuh"

namespace trireme {

// σ(x) = 1/(1 + e⁻ˣ), and 1 − σ(x) without cancellation.
template <typename C>
struct Sigmoid {
  C value;
  C rest;

  __device__ explicit Sigmoid(C x) {
    // Bounded, so that the product below is never 0·∞.
    const C e = Exp(-(x < C(-80) ? C(-80) : x));
    value = C(1) / (C(1) + e);
    rest = e * value;
  }
};

struct Relu {
  template <typename C>
  __device__ C operator()(C x) const {
    return x > C(0) ? x : C(0);
  }
  template <typename C>
  __device__ static C Slope(C x) {
    return x > C(0) ? C(1) : C(0);
  }
};

struct Silu {
  template <typename C>
  __device__ C operator()(C x) const {
    return x * Sigmoid<C>(x).value;
  }
  template <typename C>
  __device__ static C Slope(C x) {
    const Sigmoid<C> s(x);
    return x * s.value * s.rest + s.value;
  }
};

// x·Φ(x).
struct Gelu {
  // Without cancellation where x is far below 0.
  template <typename C>
  __device__ static C Distribution(C x) {
    return C(0.5) * Erfc(x * C(-0.70710678118654752));
  }
  template <typename C>
  __device__ C operator()(C x) const {
    return x * Distribution(x);
  }
  template <typename C>
  __device__ static C Slope(C x) {
    return Distribution(x) + x * C(0.39894228040143268) * Exp(C(-0.5) * x * x);
  }
};

// GELU(x) = x·σ(2u), u = √(2/π)(x + 0.044715x³): the tanh form with one
// exponential.
struct GeluTanh {
  static constexpr double kLinear = 1.5957691216057308;  // 2√(2/π)
  static constexpr double kCubic = 0.07135481627260025;

  template <typename C>
  __device__ static Sigmoid<C> Gate(C x) {
    return Sigmoid<C>(x * (x * x * C(kCubic) + C(kLinear)));
  }
  template <typename C>
  __device__ C operator()(C x) const {
    return x * Gate(x).value;
  }
  template <typename C>
  __device__ static C Slope(C x) {
    const Sigmoid<C> s = Gate(x);
    const C slope = x * x * C(3 * kCubic) + C(kLinear);
    return x * s.value * s.rest * slope + s.value;
  }
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ACTIVATIONS_CUH_
