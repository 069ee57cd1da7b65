#include "moe/router.h"

#include <utility>
#include <vector>

#include "moe/route_functions.h"
#include "parallel/functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

// Routes of tokens behind the first `valid` of each sample's go nowhere.
Tensor WithoutPadding(const Tensor& experts, int64_t samples, int64_t tokens,
                      int64_t valid) {
  if (valid == tokens) return experts;
  const int64_t k = experts.dim(1);
  std::vector<uint8_t> mask(experts.num_elements(), 0);
  for (int64_t i = 0; i < experts.num_elements(); ++i) {
    mask[i] = i / k % tokens >= valid ? 1 : 0;
  }
  CHECK_EQ(samples * tokens, experts.dim(0));
  return MaskedFill(experts,
                    Upload<uint8_t>(experts.device(), experts.shape(), mask),
                    -1, "routes without padding");
}

// The states of a sum over tokens.
AxisStates SumStates(AxisStates states) {
  for (const Axis axis : kAllAxes) {
    if (states[axis].kind == Kind::kShard) states[axis] = AxisState::Partial();
  }
  return states;
}

}  // namespace

Router::Router(ParameterStore& store, const std::string& name, int64_t width,
               const MoeConfig& config)
    : config_(config),
      weight_(&store.Create(name + ".weight", {config.experts, width}, {},
                            {.kind = Initializer::Kind::kXavierUniform,
                             .fan_in = width,
                             .fan_out = config.experts},
                            /*decay=*/true)) {}

Routing Router::Forward(ForwardContext& context, const ShardedVariable& x,
                        const MoeTokens& tokens) const {
  Tape& tape = context.tape;
  context.parallel.UseParameter(*weight_, x.states);
  const int64_t samples = x.value().dim(0);
  const int64_t local = x.value().dim(1);
  const Variable logits = RouterLogits(
      tape, Reshape(tape, x.variable, {samples * local, x.value().dim(2)}),
      *weight_);
  const Tensor chosen = TopK(logits.value(), config_.top_k);
  Routing routing;
  routing.weights = config_.normalize
                        ? Softmax(tape, SelectColumns(tape, logits, chosen))
                        : SelectColumns(tape, Softmax(tape, logits), chosen);
  routing.experts = WithoutPadding(chosen, samples, local, tokens.valid);
  const Shape shape = {samples, local, config_.experts};
  const bool has_losses = config_.balance_weight > 0 || config_.z_weight > 0;
  if (has_losses && tokens.global_batch > 0) {
    AddLosses(context, {Reshape(tape, logits, shape), x.states},
              routing.experts, tokens);
  }
  return routing;
}

void Router::AddLosses(ForwardContext& context, const ShardedVariable& logits,
                       const Tensor& experts, const MoeTokens& tokens) const {
  Tape& tape = context.tape;
  const Shape& shape = logits.value().shape();
  const AxisStates states = SumStates(logits.states);
  const auto per_token =
      1.0 / (static_cast<double>(tokens.of_sample) * tokens.global_batch);
  // All ranks' share of a sum over tokens, padding left out.
  const auto sum = [&](const Variable& x) -> ShardedVariable {
    return {Sum(tape, MaskTokens(tape, x, tokens.valid)), states};
  };
  if (config_.balance_weight > 0) {
    const Tensor counts = CountRoutes(experts, shape.dim(0), config_.experts,
                                      logits.value().dtype());
    for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
      Communicator& group = context.parallel.communicators().ForAxis(axis);
      if (logits.states[axis].kind != Kind::kShard || group.size() == 1) {
        continue;
      }
      group.AllReduce(counts, ReduceOp::kSum, "routes of samples").Wait();
    }
    const Variable shares(RepeatOverTokens(counts, shape.dim(1)));
    AddLoss(
        context, sum(Multiply(tape, Softmax(tape, logits.variable), shares)),
        config_.balance_weight * static_cast<double>(config_.experts) *
            per_token / static_cast<double>(tokens.of_sample * config_.top_k),
        "balance_loss");
  }
  if (config_.z_weight > 0) {
    const Variable flat = Reshape(
        tape, logits.variable, {shape.dim(0) * shape.dim(1), config_.experts});
    const Variable z = LogSumExp(tape, flat);
    AddLoss(context,
            sum(Reshape(tape, Multiply(tape, z, z),
                        {shape.dim(0), shape.dim(1), 1})),
            config_.z_weight * per_token, "z_loss");
  }
}

}  // namespace trireme
