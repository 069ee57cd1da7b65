#include "moe/moe_layer.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "moe/dispatch.h"
#include "moe/expert_linear.h"
#include "moe/experts_in_chunks.h"
#include "moe/route_functions.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

AxisState TokenShard() { return AxisState::Shard(1); }

// Ranks that share an expert.
int SlicesOf(const ProcessGrid& grid, const MoeConfig& config) {
  return std::max(1,
                  grid.size(Axis::kExpert) / static_cast<int>(config.experts));
}

// Whole experts, or a slice of the hidden channels of one.
std::vector<ShardedDim> ExpertShard(const ProcessGrid& grid, int slices,
                                    int hidden_dim) {
  const int parts = grid.size(Axis::kExpert);
  const int index = grid.coordinate(Axis::kExpert);
  if (parts == 1) return {};
  std::vector<ShardedDim> shards;
  if (parts > slices) {
    shards.push_back({Axis::kExpert, 0, parts / slices, index / slices});
  }
  if (slices > 1) {
    shards.push_back({Axis::kExpert, hidden_dim, slices, index % slices});
  }
  return shards;
}

Parameter& CreateExperts(ParameterStore& store, const ProcessGrid& grid,
                         const std::string& name, const MoeConfig& config,
                         const Shape& shape, int hidden_dim, int64_t fan_in,
                         int64_t fan_out) {
  Parameter& weight = store.CreateLinearWeight(
      name, shape, ExpertShard(grid, SlicesOf(grid, config), hidden_dim),
      {.kind = Initializer::Kind::kXavierUniform,
       .fan_in = fan_in,
       .fan_out = fan_out});
  // Grouped products are in the job's precision.
  weight.float8_products = false;
  return weight;
}

Shape InnerShape(const MoeConfig& config, int64_t width) {
  return config.kind == ExpertKind::kSwiGlu
             ? Shape{config.experts, 2, config.expert_hidden, width}
             : Shape{config.experts, config.expert_hidden, width};
}

// How many of the routes [t, k] go to each expert: [experts], or with kinds
// [kRouteKinds·experts], kind by kind.
Tensor CountsOf(const Tensor& routes, int64_t samples, int64_t experts,
                const MoeTokens& tokens, DType dtype) {
  if (tokens.kinds.empty()) {
    return CountRoutes(routes, 1, experts, dtype).Reshape({experts});
  }
  CHECK_EQ(static_cast<int64_t>(tokens.kinds.size()), samples);
  const Tensor of_samples = CountRoutes(routes, samples, experts, dtype);
  // What is of no kind comes behind the others.
  std::vector<int32_t> rows = tokens.kinds;
  std::replace(rows.begin(), rows.end(), kNoRouteKind,
               static_cast<int32_t>(kRouteKinds));
  const Tensor sums =
      Tensor::Zeros(routes.device(), {kRouteKinds + 1, experts},
                    of_samples.dtype(), MemoryCategory::kActivations, "routes");
  ScatterAddRows(of_samples, Upload<int32_t>(routes.device(), {samples}, rows),
                 sums);
  return CopySlice(sums, 0, 0, kRouteKinds, "routes")
      .Reshape({kRouteKinds * experts});
}

}  // namespace

MoeLayer::MoeLayer(ParameterStore& store, const ProcessGrid& grid,
                   const std::string& name, int64_t width,
                   const MoeConfig& config, Keep keep)
    : name_(name),
      config_(config),
      keep_(keep),
      slices_(SlicesOf(grid, config)),
      router_(store, name + ".router", width, config),
      in_(&CreateExperts(
          store, grid, name + ".experts.in", config, InnerShape(config, width),
          /*hidden_dim=*/config.kind == ExpertKind::kSwiGlu ? 2 : 1, width,
          config.expert_hidden)),
      out_(&CreateExperts(store, grid, name + ".experts.out", config,
                          {config.experts, width, config.expert_hidden},
                          /*hidden_dim=*/2, config.expert_hidden, width)) {
  CHECK_EQ(config.experts * slices_ % grid.size(Axis::kExpert), 0) << name;
  if (config.bias) {
    const Initializer zeros = {.kind = Initializer::Kind::kZeros};
    in_bias_ = &store.Create(name + ".experts.in.bias", InnerShape(config, 1),
                             in_->shards, zeros, /*decay=*/false);
    out_bias_ =
        &store.Create(name + ".experts.out.bias", {config.experts, width}, {},
                      zeros, /*decay=*/false);
  }
  if (config.shared_hidden == 0) return;
  shared_ = std::make_unique<Shared>(Shared{
      ColumnParallelLinear(store, grid, name + ".shared.in", width,
                           2 * config.shared_hidden,
                           {.parts = 2, .bias = config.bias}),
      RowParallelLinear(store, grid, name + ".shared.out", config.shared_hidden,
                        width, {.bias = config.bias})});
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
  ShardedVariable shared;
  const auto beside = [&] {
    if (shared_ == nullptr) return;
    shared = shared_->out.Forward(
        context, SwiGlu(context, shared_->in.Forward(context, x)));
  };
  const ShardedVariable y = whole ? RouteShares(context, x, tokens, beside)
                                  : Route(context, x, tokens, beside);
  return shared_ == nullptr ? y : Add(context, y, shared);
}

ShardedVariable MoeLayer::RouteShares(
    ForwardContext& context, const ShardedVariable& x, const MoeTokens& tokens,
    const std::function<void()>& beside) const {
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
            own, beside),
      Axis::kTensor, AxisState::Invariant());
  if (padding > 0) {
    y.variable = SliceTokens(context.tape, y.variable, 0, shape.dim(1));
  }
  return y;
}

DispatchSizes MoeLayer::SizesOf(const Tensor& x, const Routing& routing) const {
  const int64_t element = DTypeSize(x.dtype());
  const int64_t gradient = DTypeSize(ComputeDType(x.dtype()));
  // A row goes to its expert and back, as does its gradient.
  constexpr int64_t kRowTrips = 4;
  const int64_t elements =
      (in_->global_shape.num_elements() + out_->global_shape.num_elements()) /
      (config_.experts * slices_);
  return {.experts = config_.experts,
          .slices = slices_,
          .most_of_expert = routing.most_of_expert,
          .row_bytes = kRowTrips * x.dim(1) * element,
          // Weights come twice; gradients, in the compute type, go to those
          // that own them, or, of shadowed experts, are summed everywhere.
          .expert_bytes = elements * (2 * element + gradient),
          .shadowed_bytes = elements * (2 * element + 2 * gradient)};
}

ShardedVariable MoeLayer::Route(ForwardContext& context,
                                const ShardedVariable& x,
                                const MoeTokens& tokens,
                                const std::function<void()>& beside) const {
  Tape& tape = context.tape;
  const Shape shape = x.value().shape();
  const Routing routing = router_.Forward(context, x, tokens);
  for (Parameter* experts : {in_, out_, in_bias_, out_bias_}) {
    if (experts != nullptr) context.parallel.UseParameter(*experts, x.states);
  }
  if (tokens.global_batch > 0) {
    tape.Report(name_, CountsOf(routing.experts, shape.dim(0), config_.experts,
                                tokens, ComputeDType(x.value().dtype())));
    if (routing.demanded.defined() && tokens.kinds.empty()) {
      tape.Report(name_ + kDemandedRoutes,
                  CountsOf(routing.demanded, shape.dim(0), config_.experts,
                           tokens, ComputeDType(x.value().dtype())));
    }
  }
  const Variable flat =
      Reshape(tape, x.variable, {shape.dim(0) * shape.dim(1), shape.dim(2)});
  return {Reshape(tape, ThroughExperts(context, flat, routing, beside), shape),
          x.states};
}

Variable MoeLayer::ThroughExperts(ForwardContext& context, const Variable& x,
                                  const Routing& routing,
                                  const std::function<void()>& beside) const {
  Tape& tape = context.tape;
  const Dispatch dispatch(context, name_, routing.experts,
                          SizesOf(x.value(), routing));
  const auto biased = [&](const Variable& y) {
    return out_bias_ == nullptr
               ? y
               : Add(tape, y,
                     RoutedBiases(tape, routing.weights, routing.experts,
                                  *out_bias_));
  };
  if (dispatch.chunks() != nullptr) {
    ExpertsInChunks experts(tape, dispatch.chunks(), x, routing.weights, *in_,
                            in_bias_, *out_);
    beside();
    return biased(experts.Finish(tape, config_.kind, keep_));
  }
  const Variable inner = WeightedActivation(
      tape, config_.kind,
      ExpertLinear(tape, dispatch.ToExperts(tape, x), *in_, in_bias_,
                   dispatch.rows()),
      dispatch.WeightsToExperts(tape, routing.weights), keep_);
  Variable y = dispatch.FromExperts(
      tape, ExpertLinear(tape, inner, *out_, nullptr, dispatch.rows()));
  beside();
  return biased(y);
}

}  // namespace trireme
