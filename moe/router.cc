#include "moe/router.h"

#include <algorithm>
#include <span>
#include <vector>

#include "moe/expert_choice.h"
#include "moe/route_functions.h"
#include "moe/router_losses.h"
#include "moe/token_choices.h"
#include "parallel/layers/functional.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using Scores = MoeConfig::Scores;

// As published.
constexpr int64_t kCosineWidth = 256;
constexpr double kCosineStddev = 0.01;
constexpr double kCosineEps = 1e-12;

Initializer Xavier(int64_t in, int64_t out) {
  return {
      .kind = Initializer::Kind::kXavierUniform, .fan_in = in, .fan_out = out};
}

}  // namespace

Router::Router(ParameterStore& store, const std::string& name, int64_t width,
               const MoeConfig& config)
    : name_(name),
      config_(config),
      noise_seed_(store.seed() ^ StableHash(name)) {
  if (config.router == MoeConfig::RouterKind::kCosine) {
    weight_ = &store.Create(name + ".projection.weight", {kCosineWidth, width},
                            {}, Xavier(width, kCosineWidth), /*decay=*/true);
    vectors_ = &store.Create(
        name + ".vectors", {config.experts, kCosineWidth}, {},
        {.kind = Initializer::Kind::kNormal, .stddev = kCosineStddev},
        /*decay=*/false);
    temperature_ = &store.Create(name + ".temperature", {1}, {},
                                 {.kind = Initializer::Kind::kZeros},
                                 /*decay=*/false);
  } else {
    weight_ = &store.Create(name + ".weight", {config.experts, width}, {},
                            Xavier(width, config.experts), /*decay=*/true);
  }
  if (config.bias_step > 0) {
    bias_ = &store.Create(name + ".bias", {config.experts}, {},
                          {.kind = Initializer::Kind::kZeros},
                          /*decay=*/false);
    bias_->sign_step = config.bias_step;
  }
  const auto of_step_before = [&](const char* counts) {
    Parameter& parameter =
        store.CreateUnrounded(name + counts, {config.experts}, {},
                              {.kind = Initializer::Kind::kZeros},
                              /*decay=*/false);
    parameter.replaced_by_gradient = true;
    return &parameter;
  };
  if (config.balance_weight > 0 &&
      config.balance_over == MoeConfig::BalanceOver::kBatch) {
    excess_shares_ = of_step_before(".excess_shares");
  }
  if (config.importance_weight > 0 &&
      config.importance_over == MoeConfig::BalanceOver::kBatch) {
    excess_importance_ = of_step_before(".excess_importance");
    if (config.noise > 0) excess_load_ = of_step_before(".excess_load");
  }
}

Variable Router::Logits(ForwardContext& context,
                        const ShardedVariable& x) const {
  Tape& tape = context.tape;
  const Shape& shape = x.value().shape();
  const Variable projected = RouterLogits(
      tape,
      Reshape(tape, x.variable, {shape.dim(0) * shape.dim(1), shape.dim(2)}),
      *weight_);
  if (vectors_ == nullptr) return projected;
  return CosineLogits(
      tape, Norm(tape, NormKind::kRms, projected, nullptr, nullptr, kCosineEps),
      *vectors_, *temperature_);
}

Tensor Router::Noise(const Tensor& logits, int64_t samples,
                     const MoeTokens& tokens) const {
  const int64_t experts = config_.experts;
  const int64_t local = logits.dim(0) / samples;
  CHECK_EQ(static_cast<int64_t>(tokens.samples.size()), samples);
  const Tensor noise =
      Tensor::Zeros(logits.device(), logits.shape(), logits.dtype(),
                    MemoryCategory::kActivations, "noise of logits");
  for (int64_t i = 0; i < samples; ++i) {
    std::vector<ElementRun> runs;
    for (int64_t t = 0; t < local; ++t) {
      const int64_t position =
          tokens.positions.empty() ? t : tokens.positions[t];
      if (position == kPaddingPosition) continue;
      const ElementRun run = {.from = position * experts,
                              .to = (i * local + t) * experts,
                              .count = experts};
      if (!runs.empty() && runs.back().from + runs.back().count == run.from &&
          runs.back().to + runs.back().count == run.to) {
        runs.back().count += experts;
      } else {
        runs.push_back(run);
      }
    }
    FillRandom(RandomStream({.seed = noise_seed_,
                             .step = static_cast<uint64_t>(tokens.step),
                             .sample = tokens.samples[i],
                             .purpose = RandomPurpose::kNoise}),
               Distribution::kNormal,
               config_.noise / static_cast<double>(experts), runs, noise);
  }
  return noise;
}

bool Router::ChoosesTopLogits() const {
  return !config_.chooses_by_sample() && bias_ == nullptr &&
         config_.top_groups == config_.groups;
}

Routing Router::Forward(ForwardContext& context, const ShardedVariable& x,
                        const MoeTokens& tokens) const {
  Tape& tape = context.tape;
  for (Parameter* parameter :
       {weight_, vectors_, temperature_, bias_, excess_shares_,
        excess_importance_, excess_load_}) {
    if (parameter != nullptr) {
      context.parallel.UseParameter(*parameter, x.states);
    }
  }
  if (config_.chooses_by_sample() &&
      ExpertShare(config_, tokens.of_sample) < 1) {
    context.parallel.Refuse(InvalidArgument(
        "'{}' with moe.capacity_factor {}: found {:.2g} tokens for each of {} "
        "experts, of samples of {} tokens with {} experts each, expected 1 at "
        "least",
        name_, config_.capacity_factor, ExpertShare(config_, tokens.of_sample),
        config_.experts, tokens.of_sample, config_.top_k));
  }
  const int64_t samples = x.value().dim(0);
  const int64_t local = x.value().dim(1);
  CHECK(tokens.positions.empty() ||
        static_cast<int64_t>(tokens.positions.size()) == local);
  Variable logits = Logits(context, x);
  const Tensor noiseless = logits.value();
  if (config_.noise > 0 && tokens.global_batch > 0) {
    logits =
        Add(tape, logits, Variable(Noise(logits.value(), samples, tokens)));
  }
  const bool sigmoid = config_.scores == Scores::kSigmoid;
  TokenChoices choices;
  if (ChoosesTopLogits()) {
    choices.asked = TopK(logits.value(), config_.top_k);
    choices.demanded = choices.routed =
        WithoutPaddingRoutes(choices.asked, tokens);
  } else {
    choices = ChooseRoutes(
        context.parallel, x.states, name_, config_,
        sigmoid ? SigmoidOf(logits.value()) : SoftmaxForward(logits.value()),
        bias_ == nullptr ? Tensor() : bias_->value, samples, tokens);
  }
  const bool has_losses = tokens.global_batch > 0 &&
                          (config_.balance_weight > 0 || config_.z_weight > 0 ||
                           config_.importance_weight > 0);
  // An op whose result nobody reads is a mistake.
  const bool reads_log_scores =
      sigmoid &&
      (config_.normalize || (has_losses && (config_.balance_weight > 0 ||
                                            config_.importance_weight > 0)));
  const Variable log_scores =
      reads_log_scores ? LogSigmoid(tape, logits) : logits;
  Routing routing;
  if (config_.normalize) {
    routing.weights =
        Softmax(tape, SelectColumns(tape, log_scores, choices.asked));
  } else {
    routing.weights = sigmoid ? Sigmoid(tape, logits) : Softmax(tape, logits);
    if (config_.choice == MoeConfig::Choice::kTokens) {
      routing.weights = SelectColumns(tape, routing.weights, choices.asked);
    }
  }
  if (bias_ != nullptr && tokens.global_batch > 0) {
    routing.weights =
        CountRoutes(tape, routing.weights, *bias_, choices.demanded, 1);
  }
  if (excess_shares_ != nullptr && tokens.global_batch > 0) {
    // Of all samples alike, however many tokens they have.
    routing.weights =
        CountRoutes(tape, routing.weights, *excess_shares_, choices.demanded,
                    1.0 / static_cast<double>(config_.top_k) /
                        static_cast<double>(tokens.of_sample) /
                        static_cast<double>(tokens.global_batch));
  }
  routing.experts = choices.routed;
  if (config_.capacity_factor > 0 &&
      config_.choice != MoeConfig::Choice::kExperts) {
    routing.demanded = choices.demanded;
  }
  routing.most_of_expert = samples * local;
  if (config_.chooses_by_sample()) {
    routing.most_of_expert =
        samples * std::min(local, ExpertCapacity(config_, tokens.of_sample));
  }
  if (has_losses) {
    AddRouterLosses(
        context, config_,
        {.logits = logits,
         .samples = samples,
         .states = x.states,
         .noiseless = noiseless,
         .log_scores = log_scores,
         .demanded = choices.demanded,
         .excess_shares =
             excess_shares_ == nullptr ? Tensor() : excess_shares_->value,
         .excess_importance = excess_importance_,
         .excess_load = excess_load_},
        tokens);
  }
  return routing;
}

}  // namespace trireme
