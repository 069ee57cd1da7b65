#include "parallel/layers/low_rank_adapter.h"

#include <cmath>
#include <utility>

#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/autograd/weight_decomposition.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

std::vector<ShardedDim> AtDim(std::vector<ShardedDim> shards, int dim) {
  for (ShardedDim& shard : shards) shard.dim = dim;
  return shards;
}

Shape BiasShape(const AdaptedWeight& weight) {
  return weight.parts == 1 ? Shape{weight.out}
                           : Shape{weight.parts, weight.out / weight.parts};
}

int64_t RowsOf(const Parameter& weight) {
  const Shape local = LocalShape(weight.global_shape, weight.shards);
  return local.num_elements() / local.dim(-1);
}

bool RowsAreSharded(const Parameter& weight) {
  for (const ShardedDim& shard : weight.shards) {
    if (shard.dim == weight.global_shape.rank() - 1) return true;
  }
  return false;
}

// Of rows that ranks of tp share, each having some columns.
void SumOverColumns(ParallelContext& context, const Parameter& weight,
                    const Tensor& squares) {
  if (!RowsAreSharded(weight)) return;
  context.communicators()
      .ForAxis(Axis::kTensor)
      .AllReduce(squares, ReduceOp::kSum, weight.name + " norms")
      .Wait();
}

}  // namespace

LowRankAdapter::LowRankAdapter(ParameterStore& store,
                               const AdaptedWeight& weight) {
  const TrainedParameters& trained = store.trained();
  if (!trained.Adapts(weight.output_layer)) return;
  CHECK(weight.groups == 1 || weight.groups == weight.parts) << weight.layer;
  const int64_t rank = trained.rank;
  const bool has_output = weight.layer == weight.output_layer;
  scale_ = trained.scale();
  decomposes_ = trained.decompose;
  weight_ = weight.weight;
  // As is usual: the product is 0 when training starts, and A random.
  const Initializer normal = {.kind = Initializer::Kind::kNormal,
                              .stddev = 1.0 / static_cast<double>(rank)};
  a_ = &store.Create(weight.layer + kInputFactor,
                     weight.groups == 1 ? Shape{rank, weight.in}
                                        : Shape{weight.groups, rank, weight.in},
                     AtDim(weight.input_shards, weight.groups == 1 ? 1 : 2),
                     normal,
                     /*decay=*/true);
  if (has_output) {
    b_ = &store.Create(
        weight.layer + kOutputFactor,
        weight.parts == 1
            ? Shape{weight.out, rank}
            : Shape{weight.parts, weight.out / weight.parts, rank},
        AtDim(weight.output_shards, weight.parts == 1 ? 0 : 1),
        {.kind = Initializer::Kind::kZeros}, /*decay=*/true);
  }
  if (has_output && decomposes_) {
    magnitude_ = &store.CreateUnrounded(
        weight.layer + kMagnitude, BiasShape(weight),
        AtDim(weight.output_shards, weight.parts == 1 ? 0 : 1),
        {.kind = Initializer::Kind::kOnes}, /*decay=*/false);
  }
  store.AddAdapter({.layer = weight.layer,
                    .output_layer = weight.output_layer,
                    .groups = weight.groups,
                    .in = weight.in});
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
                                      const ShardedVariable& y,
                                      const LowRankAdapter* beside) const {
  CHECK(b_ != nullptr);
  context.parallel.UseParameter(*b_, y.states);
  const bool grouped = low.value().dim(-1) != b_->value.dim(-1);
  ShardedVariable sum{
      Add(context.tape, y.variable,
          grouped ? LinearByParts(context.tape, low.variable, *b_)
                  : Linear(context.tape, low.variable, *b_, nullptr)),
      y.states};
  if (!decomposes_) return sum;
  context.parallel.UseParameter(*magnitude_, y.states);
  sum.variable = ScaleByMagnitude(context.tape, sum.variable, *magnitude_,
                                  RowSquares(context, beside));
  return sum;
}

Tensor LowRankAdapter::RowSquares(ForwardContext& context,
                                  const LowRankAdapter* beside) const {
  Tensor squares = Tensor::Zeros(context.parallel.device(), {RowsOf(*weight_)},
                                 DType::kFloat64, MemoryCategory::kActivations,
                                 "squares of rows");
  AddAdaptedRowSquares(*weight_, *a_, *b_, scale_, squares);
  if (beside != nullptr) {
    AddAdaptedRowSquares(*beside->weight_, *beside->a_, *b_, scale_, squares);
  }
  SumOverColumns(context.parallel, *weight_, squares);
  return squares;
}

std::vector<double> InitialMagnitude(ParallelContext& context,
                                     std::span<const Parameter> weights) {
  const Parameter& first = weights.front();
  Device& home = first.format == WeightFormat::kFull
                     ? first.value.device()
                     : first.quantized.codes.device();
  const Shape shape = {RowsOf(first)};
  const Tensor at_home =
      Tensor::Zeros(home, shape, DType::kFloat64, MemoryCategory::kWorkspace,
                    "squares of rows");
  for (const Parameter& weight : weights) AddRowSquares(weight, at_home);
  // Where messages are of the device's memory.
  Tensor squares = at_home;
  if (&home != &context.device()) {
    squares = Tensor::Empty(context.device(), shape, DType::kFloat64,
                            MemoryCategory::kWorkspace, "squares of rows");
    squares.CopyFrom(at_home);
  }
  SumOverColumns(context, first, squares);
  std::vector<double> norms = squares.ToVector<double>();
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

}  // namespace trireme
