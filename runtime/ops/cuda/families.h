// The kernels of runtime/ops/kernels/ for NVIDIA GPUs, one source (.cu) a
// family. Sums are in the compute type, in an order that the shapes fix; there
// are no atomics on floats, so the same operands give the same bits.

#ifndef TRIREME_RUNTIME_OPS_CUDA_FAMILIES_H_
#define TRIREME_RUNTIME_OPS_CUDA_FAMILIES_H_

#include "runtime/ops/kernels.h"

namespace trireme {

AttentionKernels CudaAttention();
// cuDNN's where it has plans, else the former: cudnn_attention.h.
AttentionKernels CudnnAttention();
ConvolutionKernels CudaConvolutions();
// Likewise: cudnn_convolution.h.
ConvolutionKernels CudnnConvolutions();
CopyKernels CudaCopies();
EmbeddingKernels CudaEmbeddings();
Float8Kernels CudaFloat8();
// `tf32`: products of fp32 round their operands to it.
GemmKernels CudaGemm(bool tf32 = false);
GroupNormKernels CudaGroupNorms();
GroupedGemmKernels CudaGroupedGemm();
NormKernels CudaNorms();
OptimizerKernels CudaOptimizers();
PointwiseKernels CudaPointwise();
QuantizationKernels CudaQuantization();
RandomKernels CudaRandom();
ReductionKernels CudaReductions();
RoutingKernels CudaRouting();
SparseAttentionKernels CudaSparseAttention();
SpatialBlockKernels CudaSpatialBlocks();
SplitNormKernels CudaSplitNorms();
WeightDecompositionKernels CudaWeightDecompositions();
WindowAttentionKernels CudaWindowAttention();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_FAMILIES_H_
