#include "runtime/ops/cuda/activations.cuh"
#include "runtime/ops/cuda/column_sums.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

// Calls f(at) for the packs of n elements, one a thread.
template <int kSize, typename F>
__device__ void ForPack(int64_t n, F&& f) {
  const int64_t at = GridThread() * kSize;
  if (at < n) f(at);
}

template <int kSize>
dim3 PackGrid(int64_t n) {
  return GridFor((n + kSize - 1) / kSize, kThreads);
}

// y[i] = f(operands at i).
template <typename T, typename F, typename... In>
__global__ void __launch_bounds__(kThreads)
    MapKernel(int64_t n, const F f, T* y, const In*... in) {
  constexpr int kSize = kPackSize<T>;
  ForPack<kSize>(n, [&](int64_t at) {
    Pack<ComputeType<T>, kSize> out;
    [&](const auto&... packs) {
      UNROLL
      for (int i = 0; i < kSize; ++i) out[i] = f(packs[i]...);
    }(LoadPack<kSize>(in + at, n - at)...);
    StorePack(out, y + at, n - at);
  });
}

// T, for each of a list of parameters.
template <typename T, typename>
using ElementOf = T;

template <typename T, typename F, typename... In>
void Map(Stream& stream, int64_t n, const F& f, void* y, const In*... in) {
  if (n == 0) return;
  Launch({PackGrid<kPackSize<T>>(n), kThreads, 0, Handle(stream)},
         MapKernel<T, F, ElementOf<T, In>...>, n, f, static_cast<T*>(y),
         static_cast<const T*>(in)...);
}

// The functions that are mapped. C is the compute type.

struct Same {
  template <typename C>
  __device__ C operator()(C x) const {
    return x;
  }
  template <typename C>
  __device__ C operator()(C, C slope) const {
    return slope;
  }
};

template <typename F>
struct Derivative {
  template <typename C>
  __device__ C operator()(C x, C slope) const {
    return slope * F::Slope(x);
  }
};

struct Sum {
  template <typename C>
  __device__ C operator()(C a, C b) const {
    return a + b;
  }
};

struct Product {
  template <typename C>
  __device__ C operator()(C a, C b) const {
    return a * b;
  }
};

template <typename C>
struct Scaled {
  C factor;
  __device__ C operator()(C x) const { return x * factor; }
};

void ActivationForward(Stream& stream, DType dtype, Activation activation,
                       int64_t n, const void* x, void* y) {
  DispatchElement(dtype, [&]<typename T>(T) {
    switch (activation) {
      case Activation::kGeluTanh:
        return Map<T>(stream, n, GeluTanh(), y, x);
      case Activation::kSilu:
        return Map<T>(stream, n, Silu(), y, x);
      case Activation::kGelu:
        return Map<T>(stream, n, Gelu(), y, x);
      case Activation::kRelu:
        return Map<T>(stream, n, Relu(), y, x);
      case Activation::kNone:
        return Map<T>(stream, n, Same(), y, x);
    }
  });
}

void ActivationBackward(Stream& stream, DType dtype, Activation activation,
                        int64_t n, const void* x, const void* dy, void* dx) {
  DispatchElement(dtype, [&]<typename T>(T) {
    switch (activation) {
      case Activation::kGeluTanh:
        return Map<T>(stream, n, Derivative<GeluTanh>(), dx, x, dy);
      case Activation::kSilu:
        return Map<T>(stream, n, Derivative<Silu>(), dx, x, dy);
      case Activation::kGelu:
        return Map<T>(stream, n, Derivative<Gelu>(), dx, x, dy);
      case Activation::kRelu:
        return Map<T>(stream, n, Derivative<Relu>(), dx, x, dy);
      case Activation::kNone:
        return Map<T>(stream, n, Same(), dx, x, dy);
    }
  });
}

void Add(Stream& stream, DType dtype, int64_t n, const void* a, const void* b,
         void* y) {
  DispatchElement(dtype,
                  [&]<typename T>(T) { Map<T>(stream, n, Sum(), y, a, b); });
}

void Multiply(Stream& stream, DType dtype, int64_t n, const void* a,
              const void* b, void* y) {
  DispatchElement(
      dtype, [&]<typename T>(T) { Map<T>(stream, n, Product(), y, a, b); });
}

void Scale(Stream& stream, DType dtype, int64_t n, double factor, const void* x,
           void* y) {
  DispatchElement(dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    Map<T>(stream, n, Scaled<C>{static_cast<C>(factor)}, y, x);
  });
}

// y[i] = x[i], or y[i] += factor·x[i].
template <typename From, typename To, bool kAdd>
__global__ void __launch_bounds__(kThreads)
    ConvertKernel(int64_t n, ComputeType<To> factor, const From* x, To* y) {
  using C = ComputeType<To>;
  constexpr int kSize = kPackSize<From, To>;
  ForPack<kSize>(n, [&](int64_t at) {
    const auto from = LoadPack<kSize>(x + at, n - at);
    Pack<C, kSize> to = {};
    if constexpr (kAdd) to = LoadPack<kSize>(y + at, n - at);
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      const C value = static_cast<C>(from[i]);
      to[i] = kAdd ? MultiplyAdd(value, factor, to[i]) : value;
    }
    StorePack(to, y + at, n - at);
  });
}

template <bool kAdd>
void Convert(Stream& stream, DType from_dtype, DType to_dtype, int64_t n,
             double factor, const void* x, void* y) {
  if (n == 0) return;
  DispatchElement(from_dtype, [&]<typename From>(From) {
    DispatchElement(to_dtype, [&]<typename To>(To) {
      constexpr int kSize = kPackSize<From, To>;
      Launch({PackGrid<kSize>(n), kThreads, 0, Handle(stream)},
             ConvertKernel<From, To, kAdd>, n,
             static_cast<ComputeType<To>>(factor), static_cast<const From*>(x),
             static_cast<To*>(y));
    });
  });
}

void AddInPlace(Stream& stream, DType source_dtype, DType target_dtype,
                int64_t n, double factor, const void* source, void* target) {
  Convert<true>(stream, source_dtype, target_dtype, n, factor, source, target);
}

void Cast(Stream& stream, DType from, DType to, int64_t n, const void* x,
          void* y) {
  Convert<false>(stream, from, to, n, 1, x, y);
}

// Kernels of rows: one block of threads goes along the packs of one row.
template <int kSize, typename F>
__device__ void ForRowPacks(int64_t width, F&& f) {
  for (int64_t at = static_cast<int64_t>(threadIdx.x) * kSize; at < width;
       at += static_cast<int64_t>(kThreads) * kSize) {
    f(at);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SwiGluForwardKernel(int64_t width, const T* x, T* y) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  const T* gate = x + 2 * row * width;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto g = LoadPack<kSize>(gate + at, width - at);
    const auto u = LoadPack<kSize>(gate + width + at, width - at);
    Pack<C, kSize> out;
    UNROLL
    for (int i = 0; i < kSize; ++i) out[i] = Silu()(g[i]) * u[i];
    StorePack(out, y + row * width + at, width - at);
  });
}

void SwiGluForward(Stream& stream, DType dtype, int64_t rows, int64_t width,
                   const void* x, void* y) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)},
           SwiGluForwardKernel<T>, width, static_cast<const T*>(x),
           static_cast<T*>(y));
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SwiGluBackwardKernel(int64_t width, const T* x, const T* dy, T* dx) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  const T* gate = x + 2 * row * width;
  T* dgate = dx + 2 * row * width;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const auto g = LoadPack<kSize>(gate + at, width - at);
    const auto u = LoadPack<kSize>(gate + width + at, width - at);
    const auto slope = LoadPack<kSize>(dy + row * width + at, width - at);
    Pack<C, kSize> of_gate, of_up;
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      of_gate[i] = slope[i] * u[i] * Silu::Slope(g[i]);
      of_up[i] = slope[i] * Silu()(g[i]);
    }
    StorePack(of_gate, dgate + at, width - at);
    StorePack(of_up, dgate + width + at, width - at);
  });
}

void SwiGluBackward(Stream& stream, DType dtype, int64_t rows, int64_t width,
                    const void* x, const void* dy, void* dx) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)},
           SwiGluBackwardKernel<T>, width, static_cast<const T*>(x),
           static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

// out = x + gate·y with a gate for each `tokens` rows, or, without a gate, out
// = x + y with y one row for all.
template <typename T, bool kGated>
__global__ void __launch_bounds__(kThreads)
    AddRowsKernel(int64_t tokens, int64_t width, const T* x, const T* gate,
                  const T* y, T* out) {
  using C = ComputeType<T>;
  constexpr int kSize = kPackSize<T>;
  const int64_t row = blockIdx.x;
  ForRowPacks<kSize>(width, [&](int64_t at) {
    const int64_t rest = width - at;
    auto sum = LoadPack<kSize>(x + row * width + at, rest);
    const auto addend =
        LoadPack<kSize>(y + (kGated ? row * width : 0) + at, rest);
    Pack<C, kSize> factor = {};
    if constexpr (kGated) {
      factor = LoadPack<kSize>(gate + row / tokens * width + at, rest);
    }
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      sum[i] = kGated ? MultiplyAdd(addend[i], factor[i], sum[i])
                      : sum[i] + addend[i];
    }
    StorePack(sum, out + row * width + at, rest);
  });
}

void AddBroadcast(Stream& stream, DType dtype, int64_t rows, int64_t width,
                  const void* x, const void* b, void* y) {
  if (rows == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(rows, 1), kThreads, 0, Handle(stream)},
           AddRowsKernel<T, false>, rows, width, static_cast<const T*>(x),
           nullptr, static_cast<const T*>(b), static_cast<T*>(y));
  });
}

void GatedResidualForward(Stream& stream, DType dtype, int64_t batch,
                          int64_t tokens, int64_t width, const void* x,
                          const void* gate, const void* y, void* out) {
  if (batch * tokens == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(batch * tokens, 1), kThreads, 0, Handle(stream)},
           AddRowsKernel<T, true>, tokens, width, static_cast<const T*>(x),
           static_cast<const T*>(gate), static_cast<const T*>(y),
           static_cast<T*>(out));
  });
}

// dgate = Σ over tokens of dout·y, and dy = dout·gate on the way.
template <typename T>
struct GatedTerms {
  int64_t width;
  const T* gate;
  const T* y;
  const T* dout;
  T* dy;

  template <int kSize>
  __device__ Pack<ComputeType<T>, kSize> At(int64_t sample, int64_t row,
                                            int64_t column) const {
    const int64_t rest = width - column;
    const int64_t at = row * width + column;
    const auto slope = LoadPack<kSize>(dout + at, rest);
    const auto factor = LoadPack<kSize>(gate + sample * width + column, rest);
    auto terms = LoadPack<kSize>(y + at, rest);
    Pack<ComputeType<T>, kSize> product;
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      product[i] = slope[i] * factor[i];
      terms[i] = slope[i] * terms[i];
    }
    StorePack(product, dy + at, rest);
    return terms;
  }
};

void GatedResidualBackward(Stream& stream, DType dtype, int64_t batch,
                           int64_t tokens, int64_t width, const void* gate,
                           const void* y, const void* dout, void* dgate,
                           void* dy) {
  DispatchElement(dtype, [&]<typename T>(T) {
    SumColumns<T, /*kAccumulate=*/false>(
        stream, batch, tokens, width,
        GatedTerms<T>{width, static_cast<const T*>(gate),
                      static_cast<const T*>(y), static_cast<const T*>(dout),
                      static_cast<T*>(dy)},
        static_cast<T*>(dgate));
  });
}

}  // namespace

PointwiseKernels CudaPointwise() {
  return {.activation_forward = ActivationForward,
          .activation_backward = ActivationBackward,
          .swiglu_forward = SwiGluForward,
          .swiglu_backward = SwiGluBackward,
          .add = Add,
          .multiply = Multiply,
          .scale = Scale,
          .add_in_place = AddInPlace,
          .cast = Cast,
          .add_broadcast = AddBroadcast,
          .gated_residual_forward = GatedResidualForward,
          .gated_residual_backward = GatedResidualBackward};
}

}  // namespace trireme
