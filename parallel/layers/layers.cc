#include "parallel/layers/layers.h"

#include <utility>

#include "parallel/grid/dim_collectives.h"
#include "parallel/grid/transitions.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

Shape WeightShape(int64_t in, int64_t out, int parts) {
  CHECK_EQ(out % parts, 0);
  return parts == 1 ? Shape{out, in} : Shape{parts, out / parts, in};
}

Shape BiasShape(int64_t out, int parts) {
  return parts == 1 ? Shape{out} : Shape{parts, out / parts};
}

Initializer WithFans(Initializer initializer, int64_t in, int64_t out) {
  if (initializer.fan_in == 0) initializer.fan_in = in;
  if (initializer.fan_out == 0) initializer.fan_out = out;
  return initializer;
}

std::vector<ShardedDim> TensorShard(const ProcessGrid& grid, int dim) {
  const int parts = grid.size(Axis::kTensor);
  if (parts == 1) return {};
  return {{Axis::kTensor, dim, parts, grid.coordinate(Axis::kTensor)}};
}

Parameter& CreateWeight(ParameterStore& store, const std::string& name,
                        int64_t in, int64_t out, const LinearOptions& options,
                        std::vector<ShardedDim> shards) {
  return store.CreateLinearWeight(
      name, WeightShape(in, out, options.parts), std::move(shards),
      WithFans(options.initializer, in, out / options.parts));
}

Parameter* CreateBias(ParameterStore& store, const std::string& name,
                      int64_t out, const LinearOptions& options,
                      std::vector<ShardedDim> shards) {
  if (!options.bias) return nullptr;
  return &store.Create(name + ".bias", BiasShape(out, options.parts),
                       std::move(shards), {.kind = Initializer::Kind::kZeros},
                       /*decay=*/false);
}

AdaptedWeight WeightOf(const std::string& name, const Parameter& weight,
                       int64_t in, int64_t out, const LinearOptions& options) {
  return {.layer = name,
          .weight = &weight,
          .in = in,
          .out = out,
          .parts = options.parts,
          .groups = options.separate_parts ? options.parts : 1,
          .input_shards = {},
          .output_shards = {},
          .output_layer = options.added_to.empty() ? name : options.added_to};
}

void UseLinear(ForwardContext& context, Parameter* weight, Parameter* bias,
               const AxisStates& states) {
  context.parallel.UseParameter(*weight, states);
  if (bias != nullptr) context.parallel.UseParameter(*bias, states);
}

// Scales of FP8 vectors whose channels tp shards.
AgreeOnScales AgreeOverTensor(ForwardContext& context,
                              const Parameter& weight) {
  Communicator& group = context.parallel.communicators().ForAxis(Axis::kTensor);
  if (group.size() == 1 || !weight.float8_products) return nullptr;
  return [&group, name = weight.name + " scales"](const Tensor& scales) {
    group.AllReduce(scales, ReduceOp::kMax, name).Wait();
  };
}

// What a layer in FP8 asks of other ranks where its result has these states. A
// gradient in parts is no operand: parts that are rounded are not the rounded
// sum.
LinearExchange Float8Exchange(ForwardContext& context, const Parameter& weight,
                              const AxisStates& result) {
  LinearExchange exchange;
  if (!weight.float8_products) return exchange;
  std::vector<Communicator*> groups;
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    Communicator& group = context.parallel.communicators().ForAxis(axis);
    if (result[axis].kind != Kind::kReplicate || group.size() == 1) continue;
    groups.push_back(&group);
    exchange.product_is_here &= group.rank() == 0;
  }
  if (groups.empty()) return exchange;
  exchange.sum_parts = [groups,
                        name = weight.name + " gradient"](const Tensor& part) {
    Tensor sum = part.Clone(name);
    for (Communicator* const group : groups) {
      group->AllReduce(sum, ReduceOp::kSum, name).Wait();
    }
    return sum;
  };
  return exchange;
}

// y + the bias, if there is one, of a layer whose product has none.
ShardedVariable WithBias(ForwardContext& context, const ShardedVariable& y,
                         Parameter* bias) {
  if (bias == nullptr) return y;
  context.parallel.UseParameter(*bias, y.states);
  return {AddParameter(context.tape, y.variable, *bias), y.states};
}

// Refuses and returns false unless `condition` holds.
bool Expect(ForwardContext& context, bool condition, const Parameter& weight,
            const ShardedVariable& x, std::string_view expected) {
  if (condition) return true;
  context.parallel.Refuse(FailedPrecondition(
      "'{}' is applied to an activation that is {}; expected {}", weight.name,
      x.states.ToString(), expected));
  return false;
}

// The result of a layer that was refused: of the right shape, so that the dry
// run that builds the model can go on to its end.
ShardedVariable Placeholder(ForwardContext& context, const ShardedVariable& x,
                            const Parameter& weight, AxisState tensor_state) {
  const Shape local = LocalShape(weight.global_shape, weight.shards);
  Shape shape = x.value().shape();
  shape.set_dim(-1, local.num_elements() / local.dim(-1));
  ShardedVariable result{
      Variable(Tensor::Zeros(context.tape.device(), shape, x.value().dtype())),
      x.states};
  result.states[Axis::kTensor] = tensor_state;
  return result;
}

// Of activations [b, s, h].
AxisState TokenShard() { return AxisState::Shard(1); }

bool ShardedAlongLast(const ShardedVariable& x, Axis axis) {
  return x.states[axis] == AxisState::Shard(x.value().rank() - 1);
}

}  // namespace

ReplicatedLinear::ReplicatedLinear(ParameterStore& store,
                                   const std::string& name, int64_t in,
                                   int64_t out, const LinearOptions& options)
    : weight_(&CreateWeight(store, name, in, out, options, {})),
      bias_(CreateBias(store, name, out, options, {})),
      adapter_(store, WeightOf(name, *weight_, in, out, options)) {}

ShardedVariable ReplicatedLinear::Forward(ForwardContext& context,
                                          const ShardedVariable& x) const {
  for (const Axis axis : kAllAxes) {
    Expect(context, !ShardedAlongLast(x, axis), *weight_, x,
           "its channels whole");
  }
  Parameter* const fused = adapter_.decomposes() ? nullptr : bias_;
  UseLinear(context, weight_, fused, x.states);
  ShardedVariable y{Linear(context.tape, x.variable, *weight_, fused,
                           Float8Exchange(context, *weight_, x.states)),
                    x.states};
  if (!adapter_.exists()) return y;
  y = adapter_.AddUp(context, adapter_.Down(context, x), y);
  return adapter_.decomposes() ? WithBias(context, y, bias_) : y;
}

ColumnParallelLinear::ColumnParallelLinear(ParameterStore& store,
                                           const ProcessGrid& grid,
                                           const std::string& name, int64_t in,
                                           int64_t out,
                                           const LinearOptions& options) {
  const int dim = options.parts == 1 ? 0 : 1;
  weight_ =
      &CreateWeight(store, name, in, out, options, TensorShard(grid, dim));
  bias_ = CreateBias(store, name, out, options, TensorShard(grid, dim));
  AdaptedWeight weight = WeightOf(name, *weight_, in, out, options);
  weight.output_shards = TensorShard(grid, 0);
  adapter_ = LowRankAdapter(store, weight);
}

ShardedVariable ColumnParallelLinear::Forward(ForwardContext& context,
                                              const ShardedVariable& x) const {
  const AxisState state = x.states[Axis::kTensor];
  const bool tokens = x.value().rank() == 3 && state == TokenShard();
  if (!Expect(context,
              tokens || state.kind == Kind::kInvariant ||
                  state.kind == Kind::kReplicate,
              *weight_, x, "Invariant, Replicate or Shard(1) over tp")) {
    return Placeholder(context, x, *weight_,
                       AxisState::Shard(x.value().rank() - 1));
  }
  AxisStates states = x.states;
  states[Axis::kTensor] = AxisState::Shard(x.value().rank() - 1);
  Parameter* const fused = adapter_.decomposes() ? nullptr : bias_;
  UseLinear(context, weight_, fused, states);
  Communicators& communicators = context.parallel.communicators();
  Communicator& behind = communicators.TensorBackward();
  LinearExchange exchange = Float8Exchange(context, *weight_, states);
  exchange.agree_backward = AgreeOverTensor(context, *weight_);
  if (behind.size() > 1 && tokens) {
    const auto gather_over = [name = weight_->name](Communicator& group) {
      return [&group, name](const Tensor& local) {
        return StartGather(group, local, TokenShard().dim, name + " input");
      };
    };
    exchange.gather = gather_over(communicators.ForAxis(Axis::kTensor));
    exchange.gather_again = gather_over(behind);
    exchange.reduce = [&behind, name = weight_->name](const Tensor& gradient) {
      return StartReduceScatter(behind, gradient, TokenShard().dim,
                                name + " input gradient");
    };
  } else if (behind.size() > 1 && state.kind == Kind::kInvariant) {
    exchange.reduce = [&behind, name = weight_->name](const Tensor& gradient) {
      return PendingTensor(
          gradient,
          behind.AllReduce(gradient, ReduceOp::kSum, name + " input gradient"));
    };
  }
  ShardedVariable y{Linear(context.tape, x.variable, *weight_, fused, exchange),
                    states};
  if (!adapter_.exists()) return y;
  y = adapter_.AddUp(context,
                     Transition(context, adapter_.Down(context, x),
                                Axis::kTensor, AxisState::Replicate()),
                     y);
  return adapter_.decomposes() ? WithBias(context, y, bias_) : y;
}

RowParallelLinear::RowParallelLinear(ParameterStore& store,
                                     const ProcessGrid& grid,
                                     const std::string& name, int64_t in,
                                     int64_t out, const LinearOptions& options)
    : weight_(&CreateWeight(store, name, in, out, options,
                            TensorShard(grid, options.parts == 1 ? 1 : 2))),
      bias_(CreateBias(store, name, out, options, {})) {
  AdaptedWeight weight = WeightOf(name, *weight_, in, out, options);
  weight.input_shards = TensorShard(grid, 0);
  adapter_ = LowRankAdapter(store, weight);
}

bool RowParallelLinear::Takes(ForwardContext& context, const ShardedVariable& x,
                              const InputActivation& activation) const {
  for (const Axis axis : kAllAxes) {
    const bool in_parts = x.states[axis].kind == Kind::kPartial;
    if (!Expect(context, activation.function == Activation::kNone || !in_parts,
                *weight_, x, "the sum that its activation is of")) {
      return false;
    }
  }
  return Expect(context, ShardedAlongLast(x, Axis::kTensor), *weight_, x,
                "Shard(last) over tp");
}

std::pair<ShardedVariable, InputActivation> RowParallelLinear::Activated(
    ForwardContext& context, const ShardedVariable& x,
    const InputActivation& activation) const {
  if (activation.function == Activation::kNone || !adapter_.exists()) {
    return {x, activation};
  }
  return {
      {Activate(context.tape, activation.function, x.variable, activation.keep),
       x.states},
      {}};
}

ShardedVariable RowParallelLinear::Product(
    ForwardContext& context, const ShardedVariable& x,
    const InputActivation& activation) const {
  context.parallel.UseParameter(*weight_, x.states);
  AxisStates states = x.states;
  states[Axis::kTensor] = AxisState::Partial();
  LinearExchange exchange = Float8Exchange(context, *weight_, states);
  exchange.agree_forward = AgreeOverTensor(context, *weight_);
  return {Linear(context.tape, x.variable, *weight_,
                 FusesBias(context) ? bias_ : nullptr, exchange, activation),
          states};
}

// One rank adds the bias in the product's epilogue.
bool RowParallelLinear::FusesBias(const ForwardContext& context) const {
  return !adapter_.decomposes() &&
         context.parallel.communicators().ForAxis(Axis::kTensor).size() == 1;
}

ShardedVariable RowParallelLinear::Sum(ForwardContext& context,
                                       const ShardedVariable& y) const {
  return Transition(context, y, Axis::kTensor,
                    context.parallel.options().sequence_parallel
                        ? TokenShard()
                        : AxisState::Invariant());
}

ShardedVariable RowParallelLinear::Low(ForwardContext& context,
                                       const ShardedVariable& x) const {
  ShardedVariable low = adapter_.Down(context, x);
  low.states[Axis::kTensor] = AxisState::Partial();
  return low;
}

ShardedVariable RowParallelLinear::Reduce(ForwardContext& context,
                                          ShardedVariable y) const {
  y = Sum(context, y);
  if (adapter_.decomposes()) return y;
  if (!FusesBias(context)) return WithBias(context, y, bias_);
  if (bias_ != nullptr) context.parallel.UseParameter(*bias_, y.states);
  return y;
}

ShardedVariable RowParallelLinear::Adapted(ForwardContext& context,
                                           const ShardedVariable& low,
                                           const ShardedVariable& y,
                                           const LowRankAdapter* beside) const {
  const ShardedVariable sum =
      adapter_.AddUp(context, Sum(context, low), y, beside);
  return adapter_.decomposes() ? WithBias(context, sum, bias_) : sum;
}

ShardedVariable RowParallelLinear::Forward(
    ForwardContext& context, const ShardedVariable& x,
    const InputActivation& activation) const {
  if (!Takes(context, x, activation)) {
    return Placeholder(context, x, *weight_, AxisState::Invariant());
  }
  const auto [input, left] = Activated(context, x, activation);
  const ShardedVariable y = Reduce(context, Product(context, input, left));
  if (!adapter_.exists()) return y;
  return Adapted(context, Low(context, input), y);
}

ShardedVariable RowParallelLinear::ForwardSum(
    ForwardContext& context, const ShardedVariable& x,
    const RowParallelLinear& other, const ShardedVariable& other_x,
    const InputActivation& other_activation) const {
  CHECK(other.bias_ == nullptr) << other.weight_->name;
  if (!Takes(context, x) || !other.Takes(context, other_x, other_activation)) {
    return Placeholder(context, x, *weight_, AxisState::Invariant());
  }
  const auto [other_input, left] =
      other.Activated(context, other_x, other_activation);
  ShardedVariable y = Product(context, x);
  y.variable = Add(context.tape, y.variable,
                   other.Product(context, other_input, left).variable);
  y = Reduce(context, std::move(y));
  if (!adapter_.exists()) return y;
  ShardedVariable low = Low(context, x);
  low.variable =
      Add(context.tape, low.variable, other.Low(context, other_input).variable);
  return Adapted(context, low, y, &other.adapter_);
}

AdaptiveModulation::AdaptiveModulation(ParameterStore& store,
                                       const ProcessGrid& grid,
                                       const std::string& name, int64_t width,
                                       int parts)
    : width_(width),
      parts_(parts),
      linear_(store, grid, name, width, parts * width,
              {.parts = parts,
               .initializer = {.kind = Initializer::Kind::kZeros},
               .separate_parts = false}) {}

std::vector<ShardedVariable> AdaptiveModulation::Forward(
    ForwardContext& context, const ShardedVariable& c) const {
  // [b, parts·h/n] → [b, parts, h/n], gathered to [b, parts, h].
  ShardedVariable y = linear_.Forward(context, c);
  const int64_t batch = y.value().dim(0);
  y.variable = Reshape(context.tape, y.variable,
                       {batch, parts_, y.value().dim(1) / parts_});
  y.states[Axis::kTensor] = AxisState::Shard(2);
  y = Transition(context, y, Axis::kTensor,
                 context.parallel.options().sequence_parallel
                     ? AxisState::Replicate()
                     : AxisState::Invariant());
  y.variable = Reshape(context.tape, y.variable, {batch, parts_ * width_});
  std::vector<ShardedVariable> modulations;
  for (Variable& part : SplitColumns(context.tape, y.variable, parts_)) {
    modulations.push_back({std::move(part), y.states});
  }
  return modulations;
}

}  // namespace trireme
