#include "parallel/low_rank_adapter.h"

#include <utility>

#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

std::vector<ShardedDim> AtDim(std::vector<ShardedDim> shards, int dim) {
  for (ShardedDim& shard : shards) shard.dim = dim;
  return shards;
}

}  // namespace

LowRankAdapter::LowRankAdapter(ParameterStore& store,
                               const AdaptedWeight& weight) {
  const TrainedParameters& trained = store.trained();
  if (!trained.Adapts(weight.output_layer)) return;
  CHECK(weight.groups == 1 || weight.groups == weight.parts) << weight.layer;
  const int64_t rank = trained.rank;
  scale_ = trained.scale();
  // As is usual: the product is 0 when training starts, and A random.
  const Initializer normal = {.kind = Initializer::Kind::kNormal,
                              .stddev = 1.0 / static_cast<double>(rank)};
  a_ = &store.Create(weight.layer + kInputFactor,
                     weight.groups == 1 ? Shape{rank, weight.in}
                                        : Shape{weight.groups, rank, weight.in},
                     AtDim(weight.input_shards, weight.groups == 1 ? 1 : 2),
                     normal,
                     /*decay=*/true);
  if (weight.layer == weight.output_layer) {
    b_ = &store.Create(
        weight.layer + kOutputFactor,
        weight.parts == 1
            ? Shape{weight.out, rank}
            : Shape{weight.parts, weight.out / weight.parts, rank},
        AtDim(weight.output_shards, weight.parts == 1 ? 0 : 1),
        {.kind = Initializer::Kind::kZeros}, /*decay=*/true);
  }
  store.AddAdapter({.layer = weight.layer,
                    .output_layer = weight.output_layer,
                    .groups = weight.groups});
}

ShardedVariable LowRankAdapter::Down(ForwardContext& context,
                                     const ShardedVariable& x) const {
  CHECK(exists());
  context.parallel.UseParameter(*a_, x.states);
  ShardedVariable low{Linear(context.tape, x.variable, *a_, nullptr), x.states};
  if (scale_ != 1) low.variable = Scale(context.tape, low.variable, scale_);
  return low;
}

ShardedVariable LowRankAdapter::AddUp(ForwardContext& context,
                                      const ShardedVariable& low,
                                      const ShardedVariable& y) const {
  CHECK(b_ != nullptr);
  context.parallel.UseParameter(*b_, y.states);
  const bool grouped = low.value().dim(-1) != b_->value.dim(-1);
  return {Add(context.tape, y.variable,
              grouped ? LinearByParts(context.tape, low.variable, *b_)
                      : Linear(context.tape, low.variable, *b_, nullptr)),
          y.states};
}

}  // namespace trireme
