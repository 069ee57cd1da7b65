#include "models/mesh_tokens/mesh_decoder_block.h"

#include <cmath>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

std::string NameOf(int64_t index, std::string_view part) {
  return fmt::format("blocks.{}.{}", index, part);
}

}  // namespace

MeshDecoderBlock::MeshDecoderBlock(ParameterStore& store,
                                   const ProcessGrid& grid, int64_t index,
                                   const MeshDecoderConfig& config, Keep keep)
    : index_(index),
      head_dim_(config.head_dim()),
      keep_(keep),
      norm_(store, NameOf(index, "attention.norm"), config.hidden),
      qkv_(store, grid, NameOf(index, "attention.qkv"), config.hidden,
           3 * config.hidden, {.parts = 3, .bias = false}),
      out_(store, grid, NameOf(index, "attention.out"), config.hidden,
           config.hidden),
      mlp_norm_(store, NameOf(index, "mlp.norm"), config.hidden),
      mlp_in_(store, grid, NameOf(index, "mlp.in"), config.hidden,
              config.mlp_hidden()),
      mlp_out_(store, grid, NameOf(index, "mlp.out"), config.mlp_hidden(),
               config.hidden) {}

ShardedVariable MeshDecoderBlock::AttendToCache(
    KeyValueCache& cache, const ShardedVariable& qkv) const {
  const Tensor& packed = qkv.value();
  const int64_t width = packed.dim(2) / 3;
  const Tensor& all =
      cache.Store(index_, CopySlice(packed, -1, width, 3 * width));
  const Tensor counts = Full(packed.device(), {packed.dim(0)}, DType::kInt32,
                             static_cast<double>(cache.position() + 1));
  const AttentionResult result = AttentionForward(
      PackedQkv(packed, head_dim_).q, PackedHeads(all, 2, 0, head_dim_),
      PackedHeads(all, 2, 1, head_dim_),
      1 / std::sqrt(static_cast<double>(head_dim_)), {.key_counts = counts});
  return {Variable(result.out), qkv.states};
}

ShardedVariable MeshDecoderBlock::Attend(ForwardContext& context,
                                         const MeshDecoderPlaces& places,
                                         const ShardedVariable& qkv) const {
  const HeadNorms rotation = {.rope = &places.rope};
  if (places.cache != nullptr) {
    return AttendToCache(*places.cache,
                         NormHeads(context, qkv, head_dim_, rotation));
  }
  if (!places.context_parallel) {
    return SelfAttention(context, qkv, head_dim_, rotation, {.diagonal = 0});
  }
  return JointAttention(context, NormHeads(context, qkv, head_dim_, rotation),
                        nullptr, head_dim_,
                        {.valid_tokens = places.tokens, .causal = true})
      .image;
}

ShardedVariable MeshDecoderBlock::Forward(ForwardContext& context,
                                          const MeshDecoderPlaces& places,
                                          const ShardedVariable& x) const {
  const ShardedVariable qkv = qkv_.Forward(context, norm_.Forward(context, x));
  const ShardedVariable y =
      Add(context, x, out_.Forward(context, Attend(context, places, qkv)));
  return Add(context, y,
             mlp_out_.Forward(
                 context, Activate(context, Activation::kGelu,
                                   mlp_in_.Forward(
                                       context, mlp_norm_.Forward(context, y)),
                                   keep_)));
}

}  // namespace trireme
