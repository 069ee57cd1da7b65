#include "runtime/ops/cuda/cuda_kernels.h"

#include "runtime/ops/cuda/families.h"

namespace trireme {

const Kernels& CudaKernels() {
  static const Kernels kernels = {
      .attention = CudaAttention(),
      .convolution = CudaConvolutions(),
      .copy = CudaCopies(),
      .embedding = CudaEmbeddings(),
      .gemm = CudaGemm(),
      .group_norm = CudaGroupNorms(),
      .grouped_gemm = CudaGroupedGemm(),
      .norm = CudaNorms(),
      .optimizer = CudaOptimizers(),
      .pointwise = CudaPointwise(),
      .quantization = CudaQuantization(),
      .random = CudaRandom(),
      .reduction = CudaReductions(),
      .routing = CudaRouting(),
      .split_norm = CudaSplitNorms(),
      .weight_decomposition = CudaWeightDecompositions(),
      .window_attention = CudaWindowAttention()};
  return kernels;
}

}  // namespace trireme
