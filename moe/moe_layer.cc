#include "moe/moe_layer.h"

#include <numeric>
#include <utility>
#include <vector>

#include "moe/dispatch.h"
#include "moe/route_functions.h"
#include "parallel/functional.h"
#include "parallel/transitions.h"
#include "runtime/autograd/functions.h"
#include "runtime/core/status.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

AxisState TokenShard() { return AxisState::Shard(1); }

std::vector<ShardedDim> ExpertShard(const ProcessGrid& grid) {
  const int parts = grid.size(Axis::kExpert);
  if (parts == 1) return {};
  return {{Axis::kExpert, 0, parts, grid.coordinate(Axis::kExpert)}};
}

Parameter& CreateExperts(ParameterStore& store, const ProcessGrid& grid,
                         const std::string& name, const Shape& shape,
                         int64_t fan_in, int64_t fan_out) {
  return store.Create(name + ".weight", shape, ExpertShard(grid),
                      {.kind = Initializer::Kind::kXavierUniform,
                       .fan_in = fan_in,
                       .fan_out = fan_out},
                      /*decay=*/true);
}

Shape InnerShape(const MoeConfig& config, int64_t width) {
  return config.kind == ExpertKind::kSwiGlu
             ? Shape{config.experts, 2, config.expert_hidden, width}
             : Shape{config.experts, config.expert_hidden, width};
}

}  // namespace

MoeLayer::MoeLayer(ParameterStore& store, const ProcessGrid& grid,
                   const std::string& name, int64_t width,
                   const MoeConfig& config, Keep keep)
    : name_(name),
      config_(config),
      keep_(keep),
      router_(store, name + ".router", width, config),
      in_(&CreateExperts(store, grid, name + ".experts.in",
                         InnerShape(config, width), width,
                         config.expert_hidden)),
      out_(&CreateExperts(store, grid, name + ".experts.out",
                          {config.experts, width, config.expert_hidden},
                          config.expert_hidden, width)) {
  CHECK_EQ(config.experts % grid.size(Axis::kExpert), 0) << name;
  if (config.shared_hidden == 0) return;
  shared_ = std::make_unique<Shared>(
      Shared{ColumnParallelLinear(store, grid, name + ".shared.in", width,
                                  2 * config.shared_hidden,
                                  {.parts = 2, .bias = false}),
             RowParallelLinear(store, grid, name + ".shared.out",
                               config.shared_hidden, width, {.bias = false})});
}

bool MoeLayer::CheckStates(ForwardContext& context,
                           const ShardedVariable& x) const {
  const ProcessGrid& grid = context.parallel.grid();
  const AxisStates& states = x.states;
  if (states[Axis::kData] != AxisState::Shard(0) ||
      (grid.size(Axis::kContext) > 1 &&
       states[Axis::kContext] != TokenShard()) ||
      (states[Axis::kTensor] != AxisState::Invariant() &&
       states[Axis::kTensor] != TokenShard())) {
    context.parallel.Refuse(FailedPrecondition(
        "'{}' is applied to an activation that is {}; expected Shard(0) over "
        "dp, Shard(1) over cp, and Invariant or Shard(1) over tp",
        name_, states.ToString()));
    return false;
  }
  return true;
}

ShardedVariable MoeLayer::Forward(ForwardContext& context,
                                  const ShardedVariable& x,
                                  const MoeTokens& tokens) const {
  if (!CheckStates(context, x)) return x;
  const bool whole = context.parallel.grid().size(Axis::kTensor) > 1 &&
                     x.states[Axis::kTensor] == AxisState::Invariant();
  const ShardedVariable y =
      whole ? RouteShares(context, x, tokens) : Route(context, x, tokens);
  if (shared_ == nullptr) return y;
  return Add(context, y,
             shared_->out.Forward(
                 context, SwiGlu(context, shared_->in.Forward(context, x))));
}

ShardedVariable MoeLayer::RouteShares(ForwardContext& context,
                                      const ShardedVariable& x,
                                      const MoeTokens& tokens) const {
  const ProcessGrid& grid = context.parallel.grid();
  const Shape shape = x.value().shape();
  const int64_t tp = grid.size(Axis::kTensor);
  const int64_t share = (shape.dim(1) + tp - 1) / tp;
  const int64_t padding = share * tp - shape.dim(1);
  ShardedVariable padded = x;
  if (padding > 0) {
    padded.variable = ConcatTokens(
        context.tape, x.variable,
        Variable(Tensor::Zeros(context.parallel.device(),
                               {shape.dim(0), padding, shape.dim(2)},
                               x.value().dtype())));
  }
  MoeTokens own = tokens;
  if (own.positions.empty()) {
    own.positions.resize(shape.dim(1));
    std::iota(own.positions.begin(), own.positions.end(), 0);
  }
  own.positions.resize(share * tp, kPaddingPosition);
  const auto first =
      own.positions.begin() + grid.coordinate(Axis::kTensor) * share;
  own.positions = std::vector<int32_t>(first, first + share);
  ShardedVariable y = Transition(
      context,
      Route(context, Transition(context, padded, Axis::kTensor, TokenShard()),
            own),
      Axis::kTensor, AxisState::Invariant());
  if (padding > 0) {
    y.variable = SliceTokens(context.tape, y.variable, 0, shape.dim(1));
  }
  return y;
}

ShardedVariable MoeLayer::Route(ForwardContext& context,
                                const ShardedVariable& x,
                                const MoeTokens& tokens) const {
  Tape& tape = context.tape;
  const Shape shape = x.value().shape();
  const Routing routing = router_.Forward(context, x, tokens);
  for (Parameter* experts : {in_, out_}) {
    context.parallel.UseParameter(*experts, x.states);
  }
  if (tokens.global_batch > 0) {
    tape.Report(name_, CountRoutes(routing.experts, 1, config_.experts,
                                   ComputeDType(x.value().dtype()))
                           .Reshape({config_.experts}));
  }
  const Dispatch dispatch(context, name_, routing.experts, config_.experts,
                          routing.most_of_expert);
  const Variable flat =
      Reshape(tape, x.variable, {shape.dim(0) * shape.dim(1), shape.dim(2)});
  const Variable inner = WeightedActivation(
      tape, config_.kind,
      GroupedLinear(tape, dispatch.ToExperts(tape, flat), *in_,
                    dispatch.counts()),
      dispatch.WeightsToExperts(tape, routing.weights), keep_);
  const Variable rows = GroupedLinear(tape, inner, *out_, dispatch.counts());
  return {Reshape(tape, dispatch.FromExperts(tape, rows), shape), x.states};
}

}  // namespace trireme
