// A kernel for tests of the emulated GPU, with one fault at a time.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_KERNELS_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_KERNELS_TESTING_H_

#include <cuda_runtime_api.h>

namespace trireme::cuda_emulation {

enum class RowSumFault {
  kNone,
  kNoBarrier,
  kBarrierInBranch,
  kBarrierAtTwoPlaces,
  kBarrierAfterReturn,
  kShuffleInBranch,
  kShuffleWithoutItself,
  kSharedOverflow,
};

// x[0] = Σ x[i] for i < count.
void RowSum(cudaStream_t stream, RowSumFault fault, float* x, int count);

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_KERNELS_TESTING_H_
