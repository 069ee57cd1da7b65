#include "moe/router.h"

#include <utility>
#include <vector>

#include "moe/route_functions.h"
#include "parallel/functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

// Routes of padding go nowhere.
Tensor WithoutPadding(const Tensor& experts,
                      const std::vector<uint8_t>& padding) {
  if (padding.empty()) return experts;
  const int64_t k = experts.dim(1);
  const auto tokens = static_cast<int64_t>(padding.size());
  std::vector<uint8_t> mask(experts.num_elements(), 0);
  for (int64_t i = 0; i < experts.num_elements(); ++i) {
    mask[i] = padding[i / k % tokens];
  }
  return MaskedFill(experts,
                    Upload<uint8_t>(experts.device(), experts.shape(), mask),
                    -1, "routes without padding");
}

// x[t, n], a constant of the compute type, with zeros for padding.
Tensor WithoutPaddingRows(const Tensor& x,
                          const std::vector<uint8_t>& padding) {
  if (padding.empty()) return x;
  const auto tokens = static_cast<int64_t>(padding.size());
  std::vector<float> counts(x.dim(0));
  for (int64_t i = 0; i < x.dim(0); ++i) {
    counts[i] = padding[i % tokens] != 0 ? 0.0F : 1.0F;
  }
  const Tensor factors = Upload<float>(x.device(), {x.dim(0), 1}, counts);
  return ScaleRows(x, x.dtype() == DType::kFloat64
                          ? Cast(factors, DType::kFloat64)
                          : factors);
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
  CHECK(tokens.padding.empty() ||
        static_cast<int64_t>(tokens.padding.size()) == local);
  const Variable logits = RouterLogits(
      tape, Reshape(tape, x.variable, {samples * local, x.value().dim(2)}),
      *weight_);
  const Tensor chosen = TopK(logits.value(), config_.top_k);
  Routing routing;
  routing.weights = config_.normalize
                        ? Softmax(tape, SelectColumns(tape, logits, chosen))
                        : SelectColumns(tape, Softmax(tape, logits), chosen);
  routing.experts = WithoutPadding(chosen, tokens.padding);
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
  const int64_t rows = shape.dim(0) * shape.dim(1);
  const auto flat = [&](const Variable& x) {
    return Reshape(tape, x, {rows, config_.experts});
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
    const Variable shares(WithoutPaddingRows(
        RepeatOverTokens(counts, shape.dim(1)).Reshape({rows, config_.experts}),
        tokens.padding));
    AddLoss(context,
            {Sum(tape,
                 Multiply(tape, Softmax(tape, flat(logits.variable)), shares)),
             states},
            config_.balance_weight * static_cast<double>(config_.experts) *
                per_token /
                static_cast<double>(tokens.of_sample * config_.top_k),
            "balance_loss");
  }
  if (config_.z_weight > 0) {
    const Variable z = LogSumExp(tape, flat(logits.variable));
    const Variable counted(WithoutPaddingRows(
        Full(z.value().device(), {rows, 1}, z.value().dtype(), 1),
        tokens.padding));
    AddLoss(context,
            {Sum(tape, Multiply(tape, Multiply(tape, z, z), counted)), states},
            config_.z_weight * per_token, "z_loss");
  }
}

}  // namespace trireme
