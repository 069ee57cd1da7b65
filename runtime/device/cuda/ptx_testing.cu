#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/device/cuda/ptx.cuh"
#include "runtime/device/cuda/ptx_testing.h"

namespace trireme {
namespace {

constexpr int kLanes = 32;

// Fragments as ptx.cuh says who holds what.
template <typename T>
__global__ void __launch_bounds__(kLanes)
    MultiplyKernel(const T* a, const T* b, float* sums) {
  const int g = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  T left[4][2], right[2][2];
  uint32_t left_words[4], right_words[2];
  float own[4];
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 2; ++half) {
      left[i][half] = a[(g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8 + half];
      if (i < 2) right[i][half] = b[(2 * t + i * 8 + half) * 8 + g];
    }
    own[i] = sums[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  }
  memcpy(left_words, left, sizeof(left));
  memcpy(right_words, right, sizeof(right));
  MultiplyFragments<T>(left_words, right_words, own);
  for (int i = 0; i < 4; ++i) {
    sums[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = own[i];
  }
}

}  // namespace

void MultiplyByTensorCores(Stream& stream, DType dtype, const void* a,
                           const void* b, float* sums) {
  const LaunchConfig config = {dim3(1), kLanes, 0, Handle(stream)};
  if (dtype == DType::kBFloat16) {
    using T = __nv_bfloat16;
    Launch(config, MultiplyKernel<T>, static_cast<const T*>(a),
           static_cast<const T*>(b), sums);
  } else {
    Launch(config, MultiplyKernel<__half>, static_cast<const __half*>(a),
           static_cast<const __half*>(b), sums);
  }
}

}  // namespace trireme
