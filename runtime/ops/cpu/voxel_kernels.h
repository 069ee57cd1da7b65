// CPU kernels behind runtime/ops/voxels.h.

#ifndef TRIREME_RUNTIME_OPS_CPU_VOXEL_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_VOXEL_KERNELS_H_

#include <cstdint>
#include <vector>

#include "runtime/core/dtype.h"

namespace trireme {

struct VoxelArguments {
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t resolution = 0;
  const int32_t* voxels = nullptr;  // [batch, tokens, 3]
};

struct CoarseVoxelArguments {
  VoxelArguments fine;
  int64_t most = 0;
  DType dtype = DType::kFloat32;  // of shares
  int64_t* keys = nullptr;        // scratch [batch, tokens]
  int32_t* voxels = nullptr;      // [batch, most, 3]
  int32_t* counts = nullptr;      // [batch]
  int32_t* parents = nullptr;     // [batch·tokens]
  int32_t* children = nullptr;    // [batch·most, 8]
  void* shares = nullptr;         // [batch·most]
};

struct VoxelWindowArguments {
  VoxelArguments voxels;
  bool shifted = false;
  int32_t* order = nullptr;   // [batch·tokens]
  int32_t* places = nullptr;  // [batch·tokens]
};

void VoxelNeighborsKernel(const VoxelArguments& arguments, int32_t* neighbors);
void CoarsenVoxelsKernel(const CoarseVoxelArguments& arguments);
// Where windows begin.
std::vector<int64_t> VoxelWindowsKernel(const VoxelWindowArguments& arguments);
void VoxelPositionsKernel(const VoxelArguments& arguments, int64_t width,
                          DType dtype, void* positions);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_VOXEL_KERNELS_H_
