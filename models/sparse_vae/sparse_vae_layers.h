// The layers of an autoencoder of sparse voxels that read the cells about a
// cell. x is [b, n, c], of the n cells at most of a sample on one level.
//
//   coarsen:  h = pool(silu(norm(x)))
//             h = conv(silu(norm(conv(h)))) + linear(pool(x))
//   refine:   h = silu(conv(x)); h = silu(conv(subdivide(h)))
//
// conv is submanifold of 3³ cells, norm of at most 32 groups of a set's
// channels.

#ifndef TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_LAYERS_H_
#define TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_LAYERS_H_

#include <cstdint>
#include <string>

#include "parallel/grid/context.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/ops/voxels.h"

namespace trireme {

// The cells of one level.
struct VoxelLevel {
  int64_t resolution = 0;
  Tensor voxels;  // int32 [b, n, 3]
  Tensor counts;  // int32 [b]

  // Made anew at each call.
  Tensor Neighbors() const { return VoxelNeighbors(voxels, resolution); }
};

// A level, the one of twice its cells' sides, and the tables between them.
struct VoxelLevels {
  VoxelLevel fine;
  VoxelLevel coarse;
  CoarserVoxels tables;
};

class SparseConvolution {
 public:
  SparseConvolution(ParameterStore& store, const std::string& name, int64_t in,
                    int64_t out);
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const Tensor& neighbors) const;

 private:
  Parameter* weight_;  // [out, 27, in]
  Parameter* bias_;
};

class VoxelNorm {
 public:
  VoxelNorm(ParameterStore& store, const std::string& name, int64_t channels);
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const Tensor& counts) const;

 private:
  int64_t groups_;
  Parameter* weight_;
  Parameter* bias_;
};

class CoarsenBlock {
 public:
  CoarsenBlock(ParameterStore& store, const std::string& name, int64_t in,
               int64_t out);
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const VoxelLevels& levels) const;

 private:
  VoxelNorm fine_norm_;
  SparseConvolution first_;
  VoxelNorm coarse_norm_;
  SparseConvolution second_;
  ReplicatedLinear skip_;
};

class RefineBlock {
 public:
  RefineBlock(ParameterStore& store, const std::string& name, int64_t in,
              int64_t out);
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const VoxelLevels& levels) const;

 private:
  SparseConvolution coarse_;
  SparseConvolution fine_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_LAYERS_H_
