// Elements of tensors in kernels: the CUDA type of each dtype, conversion to
// and from the compute type, and packs, the elements that one access of 16
// bytes moves.

#ifndef TRIREME_RUNTIME_OPS_CUDA_ELEMENTS_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_ELEMENTS_CUH_

#include <cstdint>
#include <utility>

#include "runtime/core/dtype.h"
#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/device/cuda/kernel.cuh"

namespace trireme {

// Calls f(T{}) with the kernels' type of a floating dtype.
template <typename F>
void DispatchElement(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kBFloat16:
      return std::forward<F>(f)(__nv_bfloat16{});
    case DType::kFloat16:
      return std::forward<F>(f)(__half{});
    case DType::kFloat64:
      return std::forward<F>(f)(double{});
    default:
      CHECK(dtype == DType::kFloat32) << "not a floating type: " << dtype;
      return std::forward<F>(f)(float{});
  }
}

__device__ inline float Widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float Widen(__half x) { return __half2float(x); }
__device__ inline float Widen(float x) { return x; }
__device__ inline double Widen(double x) { return x; }

// To nearest even; `to` says the type.
__device__ inline void Narrow(float x, __nv_bfloat16& to) {
  to = __float2bfloat16_rn(x);
}
__device__ inline void Narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ inline void Narrow(float x, float& to) { to = x; }
__device__ inline void Narrow(double x, double& to) { to = x; }

// Elements in one access; of two types, the most that either has.
template <typename T, typename Other = T>
inline constexpr int kPackSize = 16 / static_cast<int>(sizeof(T) < sizeof(Other)
                                                           ? sizeof(T)
                                                           : sizeof(Other));

// Values of the compute type.
template <typename C, int kSize>
struct Pack {
  C values[kSize];

  __device__ C& operator[](int i) { return values[i]; }
  __device__ const C& operator[](int i) const { return values[i]; }
};

template <typename T, int kSize>
struct alignas(sizeof(T) * kSize < 16 ? sizeof(T) * kSize : 16) StoredPack {
  T elements[kSize];
};

template <int kSize, typename T>
__device__ inline bool IsAlignedPack(const T* at) {
  return reinterpret_cast<uintptr_t>(at) % alignof(StoredPack<T, kSize>) == 0;
}

// The first `count` of kSize elements, then zeros. Elements meet the same
// thread whether or not the address allows one access.
template <int kSize, typename T>
__device__ inline Pack<ComputeType<T>, kSize> LoadPack(const T* from,
                                                       int64_t count) {
  Pack<ComputeType<T>, kSize> pack;
  if (count >= kSize && IsAlignedPack<kSize>(from)) {
    const auto stored = *reinterpret_cast<const StoredPack<T, kSize>*>(from);
    UNROLL
    for (int i = 0; i < kSize; ++i) pack[i] = Widen(stored.elements[i]);
  } else {
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      pack[i] = i < count ? Widen(from[i]) : ComputeType<T>(0);
    }
  }
  return pack;
}

// The first `count` elements only.
template <int kSize, typename T>
__device__ inline void StorePack(const Pack<ComputeType<T>, kSize>& pack, T* to,
                                 int64_t count) {
  if (count >= kSize && IsAlignedPack<kSize>(to)) {
    StoredPack<T, kSize> stored;
    UNROLL
    for (int i = 0; i < kSize; ++i) Narrow(pack[i], stored.elements[i]);
    *reinterpret_cast<StoredPack<T, kSize>*>(to) = stored;
  } else {
    UNROLL
    for (int i = 0; i < kSize; ++i) {
      if (i < count) Narrow(pack[i], to[i]);
    }
  }
}

// By type: the host's compiler may know sqrt and exp of double alone.
__device__ inline float SquareRoot(float x) { return sqrtf(x); }
__device__ inline double SquareRoot(double x) { return sqrt(x); }
__device__ inline float Exp(float x) { return expf(x); }
__device__ inline double Exp(double x) { return exp(x); }
__device__ inline float Erfc(float x) { return erfcf(x); }
__device__ inline double Erfc(double x) { return erfc(x); }
__device__ inline float Log(float x) { return logf(x); }
__device__ inline double Log(double x) { return log(x); }

// a·b + c, rounded once.
__device__ inline float MultiplyAdd(float a, float b, float c) {
  return fmaf(a, b, c);
}
__device__ inline double MultiplyAdd(double a, double b, double c) {
  return fma(a, b, c);
}

// Blocks of `threads` that give each of n items a thread.
inline dim3 GridFor(int64_t n, int threads) {
  return dim3(static_cast<unsigned>((n + threads - 1) / threads));
}

// The index among all threads of a one-dimensional grid.
__device__ inline int64_t GridThread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_ELEMENTS_CUH_
