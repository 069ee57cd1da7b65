#include "runtime/ops/cuda/cuda_kernels.h"

#include <array>

#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

Kernels With(const KernelLibraries& libraries) {
  return {.attention = libraries.attention == KernelLibrary::kCudnn
                           ? CudnnAttention()
                           : CudaAttention(),
          .convolution = libraries.convolution == KernelLibrary::kCudnn
                             ? CudnnConvolutions()
                             : CudaConvolutions(),
          .copy = CudaCopies(),
          .embedding = CudaEmbeddings(),
          .float8 = CudaFloat8(),
          .gemm = CudaGemm(libraries.tf32),
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

const Kernels& CudaKernels(const KernelLibraries& libraries) {
  static const auto tables = [] {
    std::array<Kernels, KernelLibraries::kChoices> all;
    for (int i = 0; i < KernelLibraries::kChoices; ++i) {
      all[i] = With(KernelLibraries::OfChoice(i));
    }
    return all;
  }();
  return tables[libraries.choice()];
}

}  // namespace trireme
