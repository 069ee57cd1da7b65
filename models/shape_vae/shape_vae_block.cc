#include "models/shape_vae/shape_vae_block.h"

#include "models/shape_vae/shape_vae_config.h"
#include "parallel/layers/voxel_functional.h"
#include "runtime/core/log.h"

namespace trireme {

ShapeVaeBlock::ShapeVaeBlock(ParameterStore& store, const ProcessGrid& grid,
                             const std::string& name,
                             const ShapeVaeBlockSizes& sizes, Keep keep)
    : sizes_(sizes),
      keep_(keep),
      norm_(store, name + ".attention.norm", sizes.hidden),
      qkv_(sizes.context.has_value()
               ? nullptr
               : std::make_unique<ColumnParallelLinear>(
                     store, grid, name + ".attention.qkv", sizes.hidden,
                     3 * sizes.hidden,
                     LinearOptions{.parts = 3, .bias = false})),
      cross_(sizes.context.has_value()
                 ? std::make_unique<Cross>(Cross{
                       AffineNorm(store, name + ".attention.context_norm",
                                  *sizes.context),
                       ColumnParallelLinear(store, grid, name + ".attention.q",
                                            sizes.hidden, sizes.hidden,
                                            {.bias = false}),
                       ColumnParallelLinear(store, grid, name + ".attention.kv",
                                            *sizes.context, 2 * sizes.hidden,
                                            {.parts = 2, .bias = false})})
                 : nullptr),
      out_(store, grid, name + ".attention.out", sizes.hidden, sizes.hidden),
      mlp_norm_(store, name + ".mlp.norm", sizes.hidden),
      mlp_in_(store, grid, name + ".mlp.in", sizes.hidden,
              kShapeVaeMlpRatio * sizes.hidden),
      mlp_out_(store, grid, name + ".mlp.out", kShapeVaeMlpRatio * sizes.hidden,
               sizes.hidden) {}

ShardedVariable ShapeVaeBlock::Attend(ForwardContext& context,
                                      const ShapeVaeKeys& keys,
                                      const ShardedVariable& n) const {
  const ShardedVariable qkv = qkv_->Forward(context, n);
  const int64_t head_dim = sizes_.head_dim();
  if (keys.windows != nullptr) {
    return VoxelAttention(context, qkv, *keys.windows, head_dim);
  }
  if (keys.context_parallel) {
    return JointAttention(context, qkv, nullptr, head_dim,
                          {.valid_tokens = keys.tokens.tokens})
        .image;
  }
  return SelfAttention(context, qkv, head_dim, HeadNorms(),
                       {.key_counts = keys.counts});
}

ShardedVariable ShapeVaeBlock::Forward(ForwardContext& context,
                                       const ShapeVaeKeys& keys,
                                       const ShardedVariable& x,
                                       const ShardedVariable* others) const {
  CHECK_EQ(others != nullptr, cross_ != nullptr);
  const ShardedVariable n = norm_.Forward(context, x);
  const ShardedVariable attended =
      others == nullptr
          ? Attend(context, keys, n)
          : CrossAttention(context, cross_->q.Forward(context, n),
                           cross_->kv.Forward(
                               context, cross_->norm.Forward(context, *others)),
                           sizes_.head_dim(), HeadNorms(),
                           {.key_counts = keys.counts});
  const ShardedVariable y = Add(context, x, out_.Forward(context, attended));
  return Add(context, y,
             mlp_out_.Forward(
                 context, Activate(context, Activation::kGelu,
                                   mlp_in_.Forward(
                                       context, mlp_norm_.Forward(context, y)),
                                   keep_)));
}

}  // namespace trireme
