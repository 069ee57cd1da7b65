// What CUDA C++ predefines in kernels and the toolkit's headers do not declare
// to a host's compiler: barriers, shuffles, votes, atomics and intrinsics, for
// kernels that run on the emulated GPU. Included by kernel.cuh alone.
//
// Not here, hence an error of the compiler: what no kernel of ours uses.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_FUNCTIONS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_FUNCTIONS_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "runtime/device/cuda/emulation/device_variables.h"
#include "runtime/device/cuda/emulation/grid.h"

// Shared memory is declared by KERNEL_SHARED: as a plain variable it would
// belong to one thread.
#undef __shared__
#define __shared__ use_KERNEL_SHARED_instead
#define __launch_bounds__(...)

namespace trireme::cuda_emulation {

// What lanes hand over in collectives is in their registers, though here they
// reach into one another's stacks: ThreadSanitizer does not look at it.

template <typename T>
struct Shuffled {
  T value;
  int source_lane;  // -1: none
};

template <typename T>
[[gnu::no_sanitize("thread")]] void ShuffleLanes(
    const void* const (&ins)[kWarpSize], void* const (&outs)[kWarpSize]) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (outs[lane] == nullptr) continue;
    const int from = static_cast<const Shuffled<T>*>(ins[lane])->source_lane;
    if (from < 0 || ins[from] == nullptr) {
      std::memset(outs[lane], 0xFF, sizeof(T));
    } else {
      std::memcpy(outs[lane],
                  &static_cast<const Shuffled<T>*>(ins[from])->value,
                  sizeof(T));
    }
  }
}

// Each lane of the mask receives what its source lane holds; bits of NaN where
// the source does not take part.
template <typename T>
[[gnu::no_sanitize("thread")]] T Shuffle(const char* kind,
                                         const std::source_location& place,
                                         uint32_t mask, T value,
                                         int source_lane) {
  static_assert(std::is_trivially_copyable_v<T>);
  const Shuffled<T> in = {value, source_lane};
  T out;
  WarpCollective(kind, place, mask, &in, &out, ShuffleLanes<T>);
  return out;
}

[[gnu::no_sanitize("thread")]] inline void CountVotes(
    const void* const (&ins)[kWarpSize], void* const (&outs)[kWarpSize]) {
  uint32_t votes = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (ins[lane] != nullptr && *static_cast<const bool*>(ins[lane])) {
      votes |= uint32_t{1} << lane;
    }
  }
  for (void* const out : outs) {
    if (out != nullptr) *static_cast<uint32_t*>(out) = votes;
  }
}

// The lanes of the mask whose predicate holds.
[[gnu::no_sanitize("thread")]] inline uint32_t Vote(
    const char* kind, const std::source_location& place, uint32_t mask,
    bool predicate) {
  uint32_t out = 0;
  WarpCollective(kind, place, mask, &predicate, &out, CountVotes);
  return out;
}

}  // namespace trireme::cuda_emulation

// Barriers.

inline void __syncthreads(
    std::source_location place = std::source_location::current()) {
  trireme::cuda_emulation::BlockBarrier(place, 0);
}
inline int __syncthreads_count(
    int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::BlockBarrier(place, predicate != 0);
}
inline int __syncthreads_or(
    int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::BlockBarrier(place, predicate != 0) != 0;
}
inline int __syncthreads_and(
    int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::BlockBarrier(place, predicate == 0) == 0;
}
inline void __syncwarp(
    unsigned mask = 0xFFFFFFFF,
    std::source_location place = std::source_location::current()) {
  trireme::cuda_emulation::WarpCollective(
      "__syncwarp", place, mask, nullptr, nullptr,
      [](const void* const(&)[32], void* const(&)[32]) {});
}
// The emulated GPU works in program order.
inline void __threadfence() {}
inline void __threadfence_block() {}

// Shuffles, in segments of `width` lanes.

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              std::source_location place = std::source_location::current()) {
  const int lane = trireme::cuda_emulation::LaneIndex();
  return trireme::cuda_emulation::Shuffle(
      "__shfl_sync", place, mask, value,
      lane / width * width + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(
    unsigned mask, T value, int lanes, int width = 32,
    std::source_location place = std::source_location::current()) {
  const int lane = trireme::cuda_emulation::LaneIndex();
  const int source = lane ^ lanes;
  return trireme::cuda_emulation::Shuffle(
      "__shfl_xor_sync", place, mask, value,
      source < lane / width * width + width ? source : lane);
}
template <typename T>
T __shfl_down_sync(
    unsigned mask, T value, unsigned delta, int width = 32,
    std::source_location place = std::source_location::current()) {
  const int lane = trireme::cuda_emulation::LaneIndex();
  const int source = lane + static_cast<int>(delta);
  return trireme::cuda_emulation::Shuffle(
      "__shfl_down_sync", place, mask, value,
      source < lane / width * width + width ? source : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 std::source_location place = std::source_location::current()) {
  const int lane = trireme::cuda_emulation::LaneIndex();
  const int source = lane - static_cast<int>(delta);
  return trireme::cuda_emulation::Shuffle(
      "__shfl_up_sync", place, mask, value,
      source >= lane / width * width ? source : lane);
}

// Votes.

inline unsigned __ballot_sync(
    unsigned mask, int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::Vote("__ballot_sync", place, mask,
                                       predicate != 0);
}
inline int __any_sync(
    unsigned mask, int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::Vote("__any_sync", place, mask,
                                       predicate != 0) != 0;
}
inline int __all_sync(
    unsigned mask, int predicate,
    std::source_location place = std::source_location::current()) {
  return trireme::cuda_emulation::Vote("__all_sync", place, mask,
                                       predicate != 0) == mask;
}

// Atomics. Those of floats are left out: their sums depend on the order. One
// thread runs at a time; that they are the compiler's own, which order nothing
// else, is for ThreadSanitizer.

template <typename T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  T before;
  __atomic_exchange(address, &value, &before, __ATOMIC_RELAXED);
  return before;
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> compare,
            std::type_identity_t<T> value) {
  __atomic_compare_exchange(address, &compare, &value, /*weak=*/false,
                            __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return compare;
}
template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  if (value > before) before = atomicExch(address, value);
  return before;
}
template <typename T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  if (value < before) before = atomicExch(address, value);
  return before;
}

// Loads and stores with hints.

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// Bits.

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}

// Arithmetic with a stated rounding, which no compiler may contract. Volatile,
// since g++ contracts across inlined functions.

inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
inline float __fadd_rn(float a, float b) {
  volatile float sum = a + b;
  return sum;
}
inline float __fsub_rn(float a, float b) {
  volatile float difference = a - b;
  return difference;
}
inline double __dmul_rn(double a, double b) {
  volatile double product = a * b;
  return product;
}
inline double __dadd_rn(double a, double b) {
  volatile double sum = a + b;
  return sum;
}
inline double __dsub_rn(double a, double b) {
  volatile double difference = a - b;
  return difference;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline int __float2int_rn(float a) {
  return static_cast<int>(std::nearbyint(a));
}

// Approximations. Macros: the host's C library declares some of the names.

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
#define __expf(x) std::exp(static_cast<float>(x))
#define __logf(x) std::log(static_cast<float>(x))
#define __log2f(x) std::log2(static_cast<float>(x))
#define __cosf(x) std::cos(static_cast<float>(x))
#define __sinf(x) std::sin(static_cast<float>(x))
#define __powf(x, y) std::pow(static_cast<float>(x), static_cast<float>(y))

template <typename T>
requires std::is_arithmetic_v<T>
constexpr T min(T a, std::type_identity_t<T> b) { return b < a ? b : a; }
template <typename T>
requires std::is_arithmetic_v<T>
constexpr T max(T a, std::type_identity_t<T> b) { return a < b ? b : a; }

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_DEVICE_FUNCTIONS_H_
