// What a device computes with: a table of plain functions for each family of
// ops. An op checks its operands, makes its result and calls the table of the
// tensors' device with plain structs; a backend is one such table.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_H_
#define TRIREME_RUNTIME_OPS_KERNELS_H_

#include "runtime/ops/kernels/attention.h"
#include "runtime/ops/kernels/convolution.h"
#include "runtime/ops/kernels/copy.h"
#include "runtime/ops/kernels/embedding.h"
#include "runtime/ops/kernels/float8.h"
#include "runtime/ops/kernels/gemm.h"
#include "runtime/ops/kernels/group_norm.h"
#include "runtime/ops/kernels/grouped_gemm.h"
#include "runtime/ops/kernels/norm.h"
#include "runtime/ops/kernels/optimizer.h"
#include "runtime/ops/kernels/pointwise.h"
#include "runtime/ops/kernels/quantization.h"
#include "runtime/ops/kernels/random.h"
#include "runtime/ops/kernels/reduction.h"
#include "runtime/ops/kernels/routing.h"
#include "runtime/ops/kernels/sparse_attention.h"
#include "runtime/ops/kernels/spatial_blocks.h"
#include "runtime/ops/kernels/split_norm.h"
#include "runtime/ops/kernels/weight_decomposition.h"
#include "runtime/ops/kernels/window_attention.h"

namespace trireme {

struct Kernels {
  AttentionKernels attention;
  ConvolutionKernels convolution;
  CopyKernels copy;
  EmbeddingKernels embedding;
  Float8Kernels float8;
  GemmKernels gemm;
  GroupNormKernels group_norm;
  GroupedGemmKernels grouped_gemm;
  NormKernels norm;
  OptimizerKernels optimizer;
  PointwiseKernels pointwise;
  QuantizationKernels quantization;
  RandomKernels random;
  ReductionKernels reduction;
  RoutingKernels routing;
  SparseAttentionKernels sparse_attention;
  SpatialBlockKernels spatial_blocks;
  SplitNormKernels split_norm;
  WeightDecompositionKernels weight_decomposition;
  WindowAttentionKernels window_attention;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_H_
