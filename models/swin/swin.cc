#include "models/swin/swin.h"

#include <utility>

#include "models/transformer/streams.h"
#include "models/triposg/triposg_block.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/log.h"
#include "runtime/ops/embedding.h"

namespace trireme {

struct SwinPart::Embedding {
  ReplicatedLinear linear;
  AffineNorm norm;
};

struct SwinPart::Ending {
  AffineNorm norm;
  ReplicatedLinear linear;
};

SwinPart::SwinPart(ParameterStore& store, const ProcessGrid& grid,
                   const SwinConfig& config, const ChunkRequest& request)
    : config_(config), request_(request), dtype_(store.dtype()) {
  if (request.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<const Embedding>(Embedding{
        ReplicatedLinear(store, "patch_embedding",
                         config.channels * config.patch * config.patch,
                         config.hidden),
        AffineNorm(store, "patch_embedding.norm", config.hidden)});
  }
  for (int64_t i = request.blocks.first; i < request.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(std::make_unique<SwinBlock>(
        store, grid, i, config,
        request.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (request.has_head(config.layers())) {
    store.BeginUnit();
    const int64_t hidden = config.HiddenOf(config.num_stages() - 1);
    head_ = std::make_shared<const Ending>(
        Ending{AffineNorm(store, "final.norm", hidden),
               ReplicatedLinear(
                   store, "final.linear", hidden, config.classes,
                   {.initializer = {.kind = Initializer::Kind::kNormal}})});
  }
}

BoundarySpec SwinPart::Boundary(int block, int64_t b) const {
  const int64_t before = request_.blocks.first + block - 1;
  const int64_t stage = before < 0 ? 0 : SizesOfBlock(config_, before).stage;
  return {{b, config_.TokensOf(stage), config_.HiddenOf(stage)},
          dtype_,
          BatchStates()};
}

ShardedVariable SwinPart::Embed(ForwardContext& context,
                                const Tensor& pixels) const {
  CHECK(has_embedding());
  return embedding_->norm.Forward(
      context, embedding_->linear.Forward(
                   context, BatchConstant(Patchify(pixels, config_.patch))));
}

ShardedVariable SwinPart::RunBlock(ForwardContext& context, int block,
                                   MoeTokens routed,
                                   const ShardedVariable& x) const {
  routed.of_sample =
      SizesOfBlock(config_, request_.blocks.first + block).tokens();
  return blocks_[block]->Forward(context, routed, x);
}

ShardedVariable SwinPart::Head(ForwardContext& context,
                               const ShardedVariable& x) const {
  CHECK(has_head());
  Tape& tape = context.tape;
  const ShardedVariable n = head_->norm.Forward(context, x);
  const double factor = 1.0 / static_cast<double>(n.value().dim(1));
  return head_->linear.Forward(
      context, {Scale(tape, SumTokens(tape, n.variable), factor), n.states});
}

}  // namespace trireme
