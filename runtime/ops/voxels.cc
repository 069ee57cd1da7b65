#include "runtime/ops/voxels.h"

#include <memory>
#include <utility>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/voxel_kernels.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

// Cells of a surface in a window, as if it passed through the middle.
constexpr int64_t kTypicalWindow = 64;

VoxelArguments ArgumentsOf(const Tensor& voxels, int64_t resolution,
                           HostKernel& kernel) {
  CHECK(voxels.dtype() == DType::kInt32 && voxels.rank() == 3 &&
        voxels.dim(2) == 3)
      << voxels.dtype() << " " << voxels.shape();
  return {.batch = voxels.dim(0),
          .tokens = voxels.dim(1),
          .resolution = resolution,
          .voxels = static_cast<const int32_t*>(kernel.Reads(voxels))};
}

Tensor Table(const Tensor& voxels, int64_t rows, int64_t columns,
             std::string_view label) {
  return Tensor::Empty(voxels.device(), {rows, columns}, DType::kInt32,
                       MemoryCategory::kActivations, label);
}

int32_t* Indices(HostKernel& kernel, const Tensor& table) {
  return static_cast<int32_t*>(kernel.Writes(table));
}

}  // namespace

Tensor VoxelNeighbors(const Tensor& voxels, int64_t resolution) {
  const Tensor neighbors = Table(voxels, voxels.dim(0) * voxels.dim(1),
                                 kVoxelNeighbors, "neighbours of voxels");
  HostKernel kernel(voxels.device());
  const VoxelArguments arguments = ArgumentsOf(voxels, resolution, kernel);
  kernel.Run(voxels.bytes() + neighbors.bytes(),
             [arguments, to = Indices(kernel, neighbors)] {
               VoxelNeighborsKernel(arguments, to);
             });
  return neighbors;
}

CoarserVoxels CoarsenVoxels(const Tensor& voxels, int64_t resolution,
                            int64_t most, DType dtype) {
  CHECK_GE(most, 1);
  Device& device = voxels.device();
  const int64_t b = voxels.dim(0), n = voxels.dim(1);
  const CoarserVoxels coarser = {
      .voxels = Tensor::Empty(device, {b, most, 3}, DType::kInt32,
                              MemoryCategory::kActivations, "coarser voxels"),
      .counts = Tensor::Empty(device, {b}, DType::kInt32,
                              MemoryCategory::kActivations, "coarser voxels"),
      .parents = Table(voxels, b * n, 1, "parents of voxels"),
      .children = Table(voxels, b * most, kVoxelChildren, "children of voxels"),
      .shares =
          Tensor::Empty(device, {b * most}, ComputeDType(dtype),
                        MemoryCategory::kActivations, "children of voxels")};
  const Tensor keys = Tensor::Empty(device, {b, n}, DType::kInt64,
                                    MemoryCategory::kWorkspace, "voxel order");
  HostKernel kernel(device);
  CoarseVoxelArguments arguments = {
      .fine = ArgumentsOf(voxels, resolution, kernel),
      .most = most,
      .dtype = coarser.shares.dtype(),
      .keys = static_cast<int64_t*>(kernel.Writes(keys)),
      .voxels = Indices(kernel, coarser.voxels),
      .counts = Indices(kernel, coarser.counts),
      .parents = Indices(kernel, coarser.parents),
      .children = Indices(kernel, coarser.children),
      .shares = kernel.Writes(coarser.shares)};
  kernel.Run(voxels.bytes() + 2 * keys.bytes() + coarser.voxels.bytes() +
                 coarser.parents.bytes() + coarser.children.bytes(),
             [arguments] { CoarsenVoxelsKernel(arguments); });
  return coarser;
}

VoxelWindows WindowVoxels(const Tensor& voxels, bool shifted) {
  const int64_t rows = voxels.dim(0) * voxels.dim(1);
  VoxelWindows windows = {
      .order = Table(voxels, rows, 1, "windows of voxels"),
      .places = Table(voxels, rows, 1, "windows of voxels")};
  std::vector<int64_t> offsets;
  HostKernel kernel(voxels.device());
  const VoxelWindowArguments arguments = {
      .voxels = ArgumentsOf(voxels, /*resolution=*/0, kernel),
      .shifted = shifted,
      .order = Indices(kernel, windows.order),
      .places = Indices(kernel, windows.places)};
  // Attention is told of them before it is given to a stream.
  kernel.Sum(voxels.bytes() + windows.order.bytes() + windows.places.bytes(),
             [&] {
               offsets = VoxelWindowsKernel(arguments);
               return static_cast<double>(offsets.size());
             });
  if (voxels.device().dry()) {
    for (int64_t i = 0; i < rows; i += kTypicalWindow) offsets.push_back(i);
    // As many as there may be, where most rows are padding: they take memory.
    offsets.resize(rows + 1, rows);
  }
  windows.offsets =
      std::make_shared<const std::vector<int64_t>>(std::move(offsets));
  return windows;
}

Tensor VoxelPositions(const Tensor& voxels, int64_t width, DType dtype) {
  CHECK_GE(width, 6);
  const Tensor positions =
      Tensor::Empty(voxels.device(), {voxels.dim(0), voxels.dim(1), width},
                    dtype, MemoryCategory::kActivations, "positions of voxels");
  HostKernel kernel(voxels.device());
  const VoxelArguments arguments =
      ArgumentsOf(voxels, /*resolution=*/0, kernel);
  kernel.Run(voxels.bytes() + positions.bytes(),
             [arguments, width, dtype, to = kernel.Writes(positions)] {
               VoxelPositionsKernel(arguments, width, dtype, to);
             });
  return positions;
}

}  // namespace trireme
