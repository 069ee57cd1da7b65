#include "runtime/device/cuda/emulation/kernels_testing.h"
#include "runtime/device/cuda/kernel.cuh"

namespace trireme::cuda_emulation {
namespace {

constexpr int kThreads = 128;
constexpr unsigned kAllLanes = 0xFFFFFFFF;

template <RowSumFault kFault>
__global__ void __launch_bounds__(kThreads) RowSumKernel(float* x, int count) {
  KERNEL_SHARED(sums, float[kThreads / 32]);
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (kFault == RowSumFault::kSharedOverflow) {
    DynamicShared<float>()[1024 + thread] = 0;
  }
  if constexpr (kFault == RowSumFault::kBarrierAfterReturn) {
    if (thread == 5) return;
  }
  float sum = 0;
  for (int i = thread; i < count; i += kThreads) sum += x[i];
  if constexpr (kFault == RowSumFault::kShuffleInBranch) {
    if (thread % 32 < 16) sum += __shfl_xor_sync(kAllLanes, sum, 1);
  }
  if constexpr (kFault == RowSumFault::kShuffleWithoutItself) {
    sum += __shfl_xor_sync(0x0000FFFF, sum, 1);
  }
  UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  }
  if (thread % 32 == 0) sums[thread / 32] = sum;
  if constexpr (kFault == RowSumFault::kBarrierInBranch) {
    if (thread < 64) __syncthreads();
  } else if constexpr (kFault == RowSumFault::kBarrierAtTwoPlaces) {
    if (thread < 64) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if constexpr (kFault != RowSumFault::kNoBarrier) {
    __syncthreads();
  }
  if (thread == 0) x[0] = sums[0] + sums[1] + sums[2] + sums[3];
}

template <RowSumFault kFault>
void Run(cudaStream_t stream, float* x, int count) {
  Launch({.grid = 1, .block = kThreads, .shared_bytes = 4096, .stream = stream},
         RowSumKernel<kFault>, x, count);
}

}  // namespace

void RowSum(cudaStream_t stream, RowSumFault fault, float* x, int count) {
  switch (fault) {
    case RowSumFault::kNone:
      return Run<RowSumFault::kNone>(stream, x, count);
    case RowSumFault::kNoBarrier:
      return Run<RowSumFault::kNoBarrier>(stream, x, count);
    case RowSumFault::kBarrierInBranch:
      return Run<RowSumFault::kBarrierInBranch>(stream, x, count);
    case RowSumFault::kBarrierAtTwoPlaces:
      return Run<RowSumFault::kBarrierAtTwoPlaces>(stream, x, count);
    case RowSumFault::kBarrierAfterReturn:
      return Run<RowSumFault::kBarrierAfterReturn>(stream, x, count);
    case RowSumFault::kShuffleInBranch:
      return Run<RowSumFault::kShuffleInBranch>(stream, x, count);
    case RowSumFault::kShuffleWithoutItself:
      return Run<RowSumFault::kShuffleWithoutItself>(stream, x, count);
    case RowSumFault::kSharedOverflow:
      return Run<RowSumFault::kSharedOverflow>(stream, x, count);
  }
}

}  // namespace trireme::cuda_emulation
