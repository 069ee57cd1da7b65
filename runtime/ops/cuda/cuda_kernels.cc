#include "runtime/ops/cuda/cuda_kernels.h"

#include <array>

#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

Kernels With(KernelLibrary attention, KernelLibrary convolution) {
  return {.attention = attention == KernelLibrary::kCudnn ? CudnnAttention()
                                                          : CudaAttention(),
          .convolution = convolution == KernelLibrary::kCudnn
                             ? CudnnConvolutions()
                             : CudaConvolutions(),
          .copy = CudaCopies(),
          .embedding = CudaEmbeddings(),
          .float8 = CudaFloat8(),
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

const Kernels& CudaKernels(const KernelLibraries& libraries) {
  using enum KernelLibrary;
  static const std::array<std::array<Kernels, 2>, 2> tables = {
      {{With(kOwn, kOwn), With(kOwn, kCudnn)},
       {With(kCudnn, kOwn), With(kCudnn, kCudnn)}}};
  return tables[libraries.attention == kCudnn][libraries.convolution == kCudnn];
}

}  // namespace trireme
