// Instructions of GPUs that CUDA C++ has no function for, each with the same on
// the emulated GPU.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_PTX_CUH_
#define TRIREME_RUNTIME_DEVICE_CUDA_PTX_CUH_

#include <cstdint>
#include <cstring>
#include <source_location>

#include "runtime/device/cuda/kernel.cuh"

namespace trireme {

// Tensor cores, mma.sync.m16n8k16: a warp adds the product of a [16, 16] and
// b [16, 8] to sums [16, 8]. With g = lane/4 and t = lane%4, a lane holds
//   a: rows g and g+8 by turns, of columns 2t, 2t+1, then of 2t+8, 2t+9;
//   b: rows 2t, 2t+1, then 2t+8, 2t+9, of column g;
//   sums: columns 2t, 2t+1 of row g, then of row g+8.
// (PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".)
// Pairs of elements of type T in a word, the lower index in the lower half.

#if defined(__CUDACC__)

template <typename T>
__device__ inline void MultiplyFragments(const uint32_t (&a)[4],
                                         const uint32_t (&b)[2],
                                         float (&sums)[4]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(std::is_same_v<T, __half>);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

#else

namespace cuda_emulation {

struct Fragments {
  uint32_t a[4];
  uint32_t b[2];
  float sums[4];
};

inline float HalfOf(uint32_t word, int half, __nv_bfloat16) {
  const uint32_t bits = (half == 0 ? word << 16 : word) & 0xffff0000u;
  return std::bit_cast<float>(bits);
}
inline float HalfOf(uint32_t word, int half, __half) {
  const auto bits = static_cast<uint16_t>(half == 0 ? word : word >> 16);
  return __half2float(std::bit_cast<__half>(bits));
}

// See device_functions.h of what ThreadSanitizer does not look at.
template <typename T>
[[gnu::no_sanitize("thread")]] void MultiplyWarpFragments(
    const void* const (&ins)[kWarpSize], void* const (&outs)[kWarpSize]) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& in = *static_cast<const Fragments*>(ins[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      for (int half = 0; half < 2; ++half) {
        a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = HalfOf(in.a[i], half, T());
        if (i < 2) b[2 * t + i * 8 + half][g] = HalfOf(in.b[i], half, T());
      }
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& in = *static_cast<const Fragments*>(ins[lane]);
    auto& out = *static_cast<Fragments*>(outs[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int column = lane % 4 * 2 + i % 2;
      float sum = in.sums[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      out.sums[i] = sum;
    }
  }
}

}  // namespace cuda_emulation

template <typename T>
[[gnu::no_sanitize("thread")]] void MultiplyFragments(
    const uint32_t (&a)[4], const uint32_t (&b)[2], float (&sums)[4],
    std::source_location place = std::source_location::current()) {
  cuda_emulation::Fragments in, out;
  std::memcpy(in.a, a, sizeof(a));
  std::memcpy(in.b, b, sizeof(b));
  std::memcpy(in.sums, sums, sizeof(sums));
  cuda_emulation::WarpCollective("mma.sync", place, 0xFFFFFFFF, &in, &out,
                                 cuda_emulation::MultiplyWarpFragments<T>);
  std::memcpy(sums, out.sums, sizeof(sums));
}

#endif

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_PTX_CUH_
