// The kernels of runtime/ops/kernels/spatial_blocks.h on the host.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPATIAL_BLOCKS_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_SPATIAL_BLOCKS_KERNELS_H_

#include "runtime/ops/kernels/spatial_blocks.h"

namespace trireme {

void PartitionTokensKernel(const SpatialBlocksArguments& arguments);
void BlockMeanKernel(const BlockMeanArguments& arguments, const void* x,
                     void* means);
void BlockMeanBackwardKernel(const BlockMeanArguments& arguments,
                             const void* grad_means, void* grad_x);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPATIAL_BLOCKS_KERNELS_H_
