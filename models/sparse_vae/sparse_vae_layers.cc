#include "models/sparse_vae/sparse_vae_layers.h"

#include <numeric>

#include "parallel/layers/voxel_functional.h"

namespace trireme {
namespace {

constexpr int64_t kMostGroups = 32;
constexpr double kNormEps = 1e-5;

ShardedVariable Silu(ForwardContext& context, const ShardedVariable& x) {
  return Activate(context, Activation::kSilu, x);
}

}  // namespace

SparseConvolution::SparseConvolution(ParameterStore& store,
                                     const std::string& name, int64_t in,
                                     int64_t out)
    : weight_(&store.Create(name + ".weight", {out, kVoxelNeighbors, in}, {},
                            {.kind = Initializer::Kind::kXavierUniform,
                             .fan_in = kVoxelNeighbors * in,
                             .fan_out = kVoxelNeighbors * out},
                            /*decay=*/true)),
      bias_(&store.Create(name + ".bias", {out}, {},
                          {.kind = Initializer::Kind::kZeros},
                          /*decay=*/false)) {}

ShardedVariable SparseConvolution::Forward(ForwardContext& context,
                                           const ShardedVariable& x,
                                           const Tensor& neighbors) const {
  return SparseConvolve(context, x, *weight_, bias_, neighbors);
}

VoxelNorm::VoxelNorm(ParameterStore& store, const std::string& name,
                     int64_t channels)
    : groups_(std::gcd(channels, kMostGroups)),
      weight_(&store.Create(name + ".weight", {channels}, {},
                            {.kind = Initializer::Kind::kOnes},
                            /*decay=*/false)),
      bias_(&store.Create(name + ".bias", {channels}, {},
                          {.kind = Initializer::Kind::kZeros},
                          /*decay=*/false)) {}

ShardedVariable VoxelNorm::Forward(ForwardContext& context,
                                   const ShardedVariable& x,
                                   const Tensor& counts) const {
  return SetNorm(context, x, counts, groups_, *weight_, *bias_, kNormEps);
}

CoarsenBlock::CoarsenBlock(ParameterStore& store, const std::string& name,
                           int64_t in, int64_t out)
    : fine_norm_(store, name + ".fine_norm", in),
      first_(store, name + ".first", in, out),
      coarse_norm_(store, name + ".coarse_norm", out),
      second_(store, name + ".second", out, out),
      skip_(store, name + ".skip", in, out) {}

ShardedVariable CoarsenBlock::Forward(ForwardContext& context,
                                      const ShardedVariable& x,
                                      const VoxelLevels& levels) const {
  const Tensor neighbors = levels.coarse.Neighbors();
  ShardedVariable h = PoolVoxels(
      context,
      Silu(context, fine_norm_.Forward(context, x, levels.fine.counts)),
      levels.tables);
  h = first_.Forward(context, h, neighbors);
  h = second_.Forward(
      context,
      Silu(context, coarse_norm_.Forward(context, h, levels.coarse.counts)),
      neighbors);
  return Add(context, h,
             skip_.Forward(context, PoolVoxels(context, x, levels.tables)));
}

RefineBlock::RefineBlock(ParameterStore& store, const std::string& name,
                         int64_t in, int64_t out)
    : coarse_(store, name + ".coarse", in, out),
      fine_(store, name + ".fine", out, out) {}

ShardedVariable RefineBlock::Forward(ForwardContext& context,
                                     const ShardedVariable& x,
                                     const VoxelLevels& levels) const {
  const ShardedVariable h =
      Silu(context, coarse_.Forward(context, x, levels.coarse.Neighbors()));
  return Silu(context,
              fine_.Forward(context, SubdivideVoxels(context, h, levels.tables),
                            levels.fine.Neighbors()));
}

}  // namespace trireme
