#include "parallel/layers/split_norm.h"

#include <array>
#include <utility>
#include <vector>

#include "runtime/core/status.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/split_norm.h"

namespace trireme {
namespace {

constexpr int kParts = 3;   // q, k and v
constexpr int kNormed = 2;  // q and k

void CheckStates(ForwardContext& context, const ShardedVariable& qkv,
                 const Parameter& weight) {
  const int last = qkv.value().rank() - 1;
  for (const Axis axis : kAllAxes) {
    const AxisState state = qkv.states[axis];
    const bool heads = axis == Axis::kTensor;
    const bool right = heads ? state == AxisState::Shard(last)
                             : state.kind != AxisState::Kind::kPartial &&
                                   state != AxisState::Shard(last);
    if (right) continue;
    context.parallel.Refuse(FailedPrecondition(
        "'{}' norms an activation that is {} over {}; expected {}", weight.name,
        state.ToString(), AxisName(axis),
        heads ? "Shard(last)" : "its width whole and reduced"));
  }
}

// The norm with the angles it turns by: the caller's table may be gone by the
// time of backward.
struct RotatingNorm {
  SplitNorm norm;
  RopeTable rope;

  SplitNorm get() const {
    SplitNorm result = norm;
    if (rope.cos.defined()) result.rope = &rope;
    return result;
  }
};

// fp64, one number for each token, of q and then of k.
Tensor EmptyRowSums(const Tensor& qkv) {
  return Tensor::Empty(qkv.device(), {2, qkv.num_elements() / qkv.dim(-1)},
                       DType::kFloat64, MemoryCategory::kActivations,
                       "row sums");
}

Tensor PartOf(const Tensor& sums, int part) {
  return sums.Slice(part, part + 1);
}

void CopyValues(const Tensor& from, const Tensor& to) {
  const int64_t row = from.dim(-1);
  const RunPlaces values{.offset = row / kParts * 2, .outer = row};
  CopyStrided({.outer = from.num_elements() / row,
               .run = row / kParts,
               .from = values,
               .to = values},
              from, to);
}

}  // namespace

Parameter& CreateSplitNorm(ParameterStore& store, const ProcessGrid& grid,
                           const std::string& name, int64_t width) {
  const int parts = grid.size(Axis::kTensor);
  std::vector<ShardedDim> shards;
  if (parts > 1) {
    shards = {{Axis::kTensor, 0, parts, grid.coordinate(Axis::kTensor)}};
  }
  return store.Create(name + ".weight", {width}, std::move(shards),
                      {.kind = Initializer::Kind::kOnes}, /*decay=*/false);
}

ShardedVariable NormAcrossHeads(ForwardContext& context,
                                const ShardedVariable& qkv, int64_t head_dim,
                                const HeadNorms& norms) {
  const std::array weights = {norms.q_weight, norms.k_weight};
  CheckStates(context, qkv, *norms.q_weight);
  for (Parameter* weight : weights) {
    context.parallel.UseParameter(*weight, qkv.states);
  }
  Communicator& group = context.parallel.communicators().ForAxis(Axis::kTensor);
  const Tensor& x = qkv.value();
  RotatingNorm rotating{
      {.width = x.dim(-1) / kParts * group.size(), .eps = norms.eps}, {}};
  if (norms.rope != nullptr) rotating.rope = *norms.rope;
  const auto add_up = [&group,
                       name = norms.q_weight->name](const Tensor& sums) {
    if (group.size() > 1) {
      group.AllReduce(sums, ReduceOp::kSum, name + " row sums").Wait();
    }
  };
  const Tensor squares = EmptyRowSums(x);
  for (int part = 0; part < kNormed; ++part) {
    SplitNormSquares(PackedHeads(x, kParts, part, head_dim),
                     PartOf(squares, part));
  }
  add_up(squares);
  Tensor y = Tensor::EmptyLike(x, "normed qkv");
  for (int part = 0; part < kNormed; ++part) {
    SplitNormForward(rotating.get(), PackedHeads(x, kParts, part, head_dim),
                     weights[part]->value, PartOf(squares, part),
                     PackedHeads(y, kParts, part, head_dim));
  }
  CopyValues(x, y);
  const auto backward = [rotating, add_up, weights,
                         head_dim](Tape::Gradients& gradients) {
    const Tensor dy = gradients.TakeOutput();
    const Tensor x = gradients.Saved(0);
    const Tensor squares = gradients.Saved(1);
    const auto part_of = [head_dim](const Tensor& packed, int part) {
      return PackedHeads(packed, kParts, part, head_dim);
    };
    for (int part = 0; part < kNormed; ++part) {
      Parameter* weight = weights[part];
      gradients.AddWeightGradient(
          *weight, [rotating, weight, x = part_of(x, part),
                    squares = PartOf(squares, part), dy = part_of(dy, part)] {
            SplitNormWeightGradient(rotating.get(), x, squares, dy,
                                    weight->grad);
          });
    }
    if (!gradients.Needs(0)) return;
    const Tensor dots = EmptyRowSums(x);
    for (int part = 0; part < kNormed; ++part) {
      SplitNormDots(rotating.get(), part_of(x, part), weights[part]->value,
                    part_of(dy, part), PartOf(dots, part));
    }
    add_up(dots);
    const Tensor dx = Tensor::EmptyLike(x, "normed qkv gradient");
    for (int part = 0; part < kNormed; ++part) {
      SplitNormBackward(rotating.get(), part_of(x, part), weights[part]->value,
                        PartOf(squares, part), part_of(dy, part),
                        PartOf(dots, part), part_of(dx, part));
    }
    CopyValues(dy, dx);
    gradients.Accumulate(0, dx);
  };
  return {context.tape.Record("norm across heads", {qkv.variable},
                              {norms.q_weight, norms.k_weight}, std::move(y),
                              {x, squares}, backward),
          qkv.states};
}

}  // namespace trireme
