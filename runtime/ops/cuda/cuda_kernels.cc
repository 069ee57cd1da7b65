#include "runtime/ops/cuda/cuda_kernels.h"

#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

Kernels WithAttention(const AttentionKernels& attention) {
  return {.attention = attention,
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
          .sparse_attention = CudaSparseAttention(),
          .spatial_blocks = CudaSpatialBlocks(),
          .split_norm = CudaSplitNorms(),
          .weight_decomposition = CudaWeightDecompositions(),
          .window_attention = CudaWindowAttention()};
}

}  // namespace

const Kernels& CudaKernels(AttentionLibrary attention) {
  static const Kernels own = WithAttention(CudaAttention());
  static const Kernels with_cudnn = WithAttention(CudnnAttention());
  return attention == AttentionLibrary::kCudnn ? with_cudnn : own;
}

}  // namespace trireme
