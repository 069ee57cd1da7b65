#include "trainer/metrics/step_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/objective/objective.h"
#include "moe/moe_tokens.h"
#include "scheduler/pieces/model_shape.h"
#include "trainer/planning/model_shape_of.h"

namespace trireme {
namespace {

// kWait is all the wait for other stages; it is split into bubble and messages
// after the sums.
enum Share {
  kData,
  kTensor,
  kContext,
  kExperts,
  kWait,
  kGradients,
  kCopies,
  kOptimizer,
  kShares
};

}  // namespace

nlohmann::ordered_json ToJson(const StepMetrics& metrics) {
  nlohmann::ordered_json peak = nlohmann::ordered_json::object();
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    peak[std::string(MemoryCategoryName(static_cast<MemoryCategory>(i)))] =
        metrics.peak_bytes[i];
  }
  nlohmann::ordered_json exposed = nlohmann::ordered_json::object();
  for (const auto& [cause, seconds] : metrics.exposed_s) {
    exposed[cause] = seconds;
  }
  nlohmann::ordered_json json = {
      {"step", metrics.step},
      {"loss", metrics.loss},
      {"grad_norm", metrics.gradient_norm},
      {"lr", metrics.learning_rate},
      {"step_s", metrics.step_s},
      {"samples_per_s", metrics.samples_per_s()},
      {"model_flops_per_s", metrics.model_flops_per_s()},
      {"skipped_samples", metrics.skipped_samples},
      {"peak_bytes", peak},
      {"compute_s", metrics.compute_s},
      {"exposed_s", exposed}};
  if (metrics.picture_size.has_value()) {
    json["picture_size"] = fmt::format("{}x{}", metrics.picture_size->height,
                                       metrics.picture_size->width);
    json["sample_tokens"] = metrics.sample_tokens;
  }
  if (metrics.token_imbalance.has_value()) {
    json["token_imbalance"] = *metrics.token_imbalance;
  }
  for (const auto& [name, loss] : metrics.auxiliary_losses) json[name] = loss;
  if (metrics.deduplicated_bytes > 0) {
    json["deduplicated_bytes"] = metrics.deduplicated_bytes;
  }
  if (!metrics.expert_shares.empty()) {
    json["expert_shares"] = metrics.expert_shares;
  }
  if (metrics.dropped_share.has_value()) {
    json["dropped_share"] = *metrics.dropped_share;
  }
  if (metrics.validation_loss.has_value()) {
    json["validation_loss"] = *metrics.validation_loss;
  }
  if (!metrics.validation_losses.empty()) {
    json["validation_loss_by_size"] = metrics.validation_losses;
  }
  if (metrics.perplexity.has_value()) json["perplexity"] = *metrics.perplexity;
  if (metrics.accuracy.has_value()) json["accuracy"] = *metrics.accuracy;
  if (metrics.validation_accuracy.has_value()) {
    json["validation_accuracy"] = *metrics.validation_accuracy;
  }
  if (metrics.simulated_s.has_value()) {
    json["simulated_s"] = *metrics.simulated_s;
  }
  if (metrics.loss_scale.has_value()) {
    json["loss_scale"] = *metrics.loss_scale;
    json["skipped_steps"] = metrics.skipped_steps;
  }
  if (metrics.left_out) json["left_out"] = true;
  if (metrics.left_out_steps > 0) {
    json["left_out_steps"] = metrics.left_out_steps;
  }
  if (metrics.roll_backs > 0) json["roll_backs"] = metrics.roll_backs;
  if (metrics.looked_for_stragglers) json["stragglers"] = metrics.stragglers;
  if (metrics.offload.has_value()) json["offload"] = ToJson(*metrics.offload);
  return json;
}

std::vector<std::pair<std::string, double>> ToScalars(
    const StepMetrics& metrics) {
  std::vector<std::pair<std::string, double>> scalars = {
      {"train/loss", metrics.loss},
      {"train/grad_norm", metrics.gradient_norm},
      {"train/learning_rate", metrics.learning_rate},
      {"speed/step_s", metrics.step_s},
      {"speed/samples_per_s", metrics.samples_per_s()},
      {"speed/model_flops_per_s", metrics.model_flops_per_s()},
      {"data/skipped_samples", static_cast<double>(metrics.skipped_samples)},
      {"exposed_s/compute", metrics.compute_s}};
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    const auto category = static_cast<MemoryCategory>(i);
    scalars.emplace_back(
        "peak_bytes/" + std::string(MemoryCategoryName(category)),
        static_cast<double>(metrics.peak_bytes[i]));
  }
  if (metrics.picture_size.has_value()) {
    scalars.emplace_back("data/sample_tokens",
                         static_cast<double>(metrics.sample_tokens));
  }
  if (metrics.token_imbalance.has_value()) {
    scalars.emplace_back("data/token_imbalance", *metrics.token_imbalance);
  }
  for (const auto& [name, loss] : metrics.auxiliary_losses) {
    scalars.emplace_back("train/" + name, loss);
  }
  if (metrics.deduplicated_bytes > 0) {
    scalars.emplace_back("experts/deduplicated_bytes",
                         static_cast<double>(metrics.deduplicated_bytes));
  }
  for (const auto& [layer, shares] : metrics.expert_shares) {
    for (size_t expert = 0; expert < shares.size(); ++expert) {
      scalars.emplace_back(fmt::format("experts/{}/{}", layer, expert),
                           shares[expert]);
    }
  }
  if (metrics.dropped_share.has_value()) {
    scalars.emplace_back("experts/dropped_share", *metrics.dropped_share);
  }
  if (metrics.validation_loss.has_value()) {
    scalars.emplace_back("validation/loss", *metrics.validation_loss);
  }
  for (const auto& [size, loss] : metrics.validation_losses) {
    scalars.emplace_back("validation/loss_" + size, loss);
  }
  if (metrics.perplexity.has_value()) {
    scalars.emplace_back("train/perplexity", *metrics.perplexity);
  }
  if (metrics.accuracy.has_value()) {
    scalars.emplace_back("train/accuracy", *metrics.accuracy);
  }
  if (metrics.validation_accuracy.has_value()) {
    scalars.emplace_back("validation/accuracy", *metrics.validation_accuracy);
  }
  if (metrics.simulated_s.has_value()) {
    scalars.emplace_back("speed/simulated_s", *metrics.simulated_s);
  }
  if (metrics.loss_scale.has_value()) {
    scalars.emplace_back("train/loss_scale", *metrics.loss_scale);
    scalars.emplace_back("train/skipped_steps", metrics.skipped_steps);
  }
  if (metrics.left_out_steps + metrics.roll_backs > 0) {
    scalars.emplace_back("health/left_out_steps", metrics.left_out_steps);
    scalars.emplace_back("health/roll_backs", metrics.roll_backs);
  }
  for (const auto& [cause, seconds] : metrics.exposed_s) {
    scalars.emplace_back("exposed_s/" + cause, seconds);
  }
  if (metrics.offload.has_value()) {
    for (auto& scalar : ToScalars(*metrics.offload)) {
      scalars.push_back(std::move(scalar));
    }
  }
  return scalars;
}

namespace {

// Of the blocks that a global batch would pass in the whole model. Collective.
double ShareOfBlocks(RankModel& model) {
  if (!model.partial()) return 1;
  double computed = static_cast<double>(model.BlocksComputed());
  model.context().communicators().control().Sum(std::span(&computed, 1),
                                                "blocks computed");
  return computed / static_cast<double>(model.setup().family->Shape().layers *
                                        model.setup().global_batch);
}

// By bucket. Collective.
std::vector<double> FlopsPerSample(RankModel& model) {
  const double share = ShareOfBlocks(model);
  TrainingSetup setup = model.setup();
  std::vector<double> flops = {ModelTrainingFlops(ModelShapeOf(setup), share)};
  setup.buckets.clear();
  for (size_t b = 1; b < model.setup().buckets.size(); ++b) {
    setup.family = model.setup().buckets[b].family;
    flops.push_back(ModelTrainingFlops(ModelShapeOf(setup), share));
  }
  return flops;
}

}  // namespace

StepMetricsCollector::StepMetricsCollector(RankModel& model,
                                           const ProcessorShare& share)
    : model_(model),
      simulator_(model, share),
      flops_per_sample_(FlopsPerSample(model)) {
  if (model.plan().has_offload()) offload_.emplace(model);
}

double StepMetricsCollector::ExposedSince(Cause cause, double& before) const {
  const double now =
      model_.context().communicators().Statistics(cause).exposed_seconds;
  return now - std::exchange(before, now);
}

double StepMetricsCollector::SavedSince() {
  const int64_t now =
      model_.context().communicators().Statistics(Cause::kExperts).saved_bytes;
  return static_cast<double>(now - std::exchange(saved_before_, now));
}

void StepMetricsCollector::ForgetExposed() {
  SavedSince();
  ExposedSince(Cause::kTensor, exposed_tensor_before_);
  ExposedSince(Cause::kContext, exposed_context_before_);
  ExposedSince(Cause::kExperts, exposed_experts_before_);
  if (offload_.has_value()) offload_->Forget();
}

StepMetrics StepMetricsCollector::Collect(const GlobalStepResult& result,
                                          double data_s, double step_s,
                                          int64_t skipped_samples,
                                          bool simulate,
                                          std::vector<TraceEvent>* predicted) {
  ParallelContext& context = model_.context();
  Control& control = context.communicators().control();
  const StepTimes& times = result.times;
  const double tensor = ExposedSince(Cause::kTensor, exposed_tensor_before_);
  const double context_parallel =
      ExposedSince(Cause::kContext, exposed_context_before_);
  const double experts = ExposedSince(Cause::kExperts, exposed_experts_before_);
  const double own_compute_s = times.forward + times.backward - tensor -
                               context_parallel - experts - times.sharding_wait;
  // After the causes come the computation, the skipped samples, the bytes that
  // were not sent, the tokens and the figures of offload.
  constexpr int kOffload = kShares + 4;
  std::array<double, kOffload + OffloadFigures::kNumbers> sums = {
      data_s,
      tensor,
      context_parallel,
      experts,
      times.pipeline_wait,
      times.gradient_wait + times.sharding_wait,
      times.copy_wait,
      times.optimizer,
      own_compute_s,
      static_cast<double>(skipped_samples),
      SavedSince(),
      result.tokens};
  if (offload_.has_value()) {
    const auto figures =
        offload_->Take(times, step_s, own_compute_s).ToNumbers();
    std::copy(figures.begin(), figures.end(), sums.begin() + kOffload);
  }
  const MemoryStatistics memory = context.device().Statistics();
  std::array<double, kNumMemoryCategories + 2> maxima;
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    maxima[i] = static_cast<double>(memory.peak_by_category[i]);
  }
  maxima[kNumMemoryCategories] = result.tokens;
  maxima.back() = step_s;
  control.SumAndMax(sums, maxima, "metrics");
  std::optional<SimulatedStep> simulated;
  if (simulate) simulated = simulator_.Simulate(times.costs, data_s, predicted);
  if (simulated.has_value()) bubble_s_ = simulated->bubble_s;

  StepMetrics metrics;
  metrics.loss = result.loss;
  metrics.auxiliary_losses = result.losses;
  metrics.auxiliary_losses.erase(kObjectiveLoss);
  const auto of_tokens = result.losses.find(kObjectiveLoss);
  if (model_.setup().family->grammar() != nullptr &&
      of_tokens != result.losses.end()) {
    metrics.perplexity = std::exp(of_tokens->second);
  }
  double demanded = 0, dropped = 0;
  for (const auto& [layer, counts] : result.counts) {
    const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
    if (layer == kHitCounts) {
      if (all > 0) metrics.accuracy = counts.back() / all;
      continue;
    }
    if (layer.ends_with(kDemandedRoutes)) {
      demanded += all;
      dropped += all;
      continue;
    }
    if (result.counts.contains(layer + kDemandedRoutes)) dropped -= all;
    std::vector<double>& shares = metrics.expert_shares[layer];
    for (const double count : counts) {
      shares.push_back(all > 0 ? count / all : 0);
    }
  }
  if (demanded > 0) metrics.dropped_share = dropped / demanded;
  metrics.gradient_norm = result.gradient_norm;
  if (model_.setup().loss_scale.enabled) {
    metrics.loss_scale = result.loss_scale;
    metrics.skipped_steps = result.skipped_steps;
  }
  metrics.samples = model_.setup().global_batch;
  metrics.model_flops =
      flops_per_sample_[result.bucket] * static_cast<double>(metrics.samples);
  const auto mean = [&](int i) { return sums[i] / control.size(); };
  if (simulated.has_value()) metrics.simulated_s = simulated->step_s;
  // Of what was measured, at most all is bubble.
  const double implied = std::min(bubble_s_, mean(kWait));
  metrics.exposed_s = {{"data", mean(kData)},
                       {"tp", mean(kTensor)},
                       {"cp", mean(kContext)},
                       {"ep", mean(kExperts)},
                       {"bubble", implied},
                       {"pp", mean(kWait) - implied},
                       {"dp", mean(kGradients)},
                       {"copies", mean(kCopies)},
                       {"optimizer", mean(kOptimizer)}};
  metrics.compute_s = mean(kShares);
  metrics.own_compute_s = own_compute_s;
  metrics.skipped_samples = static_cast<int64_t>(sums[kShares + 1]);
  metrics.deduplicated_bytes = static_cast<int64_t>(sums[kShares + 2]);
  const double tokens = sums[kShares + 3];
  const int replicas = model_.grid().size(Axis::kData);
  if (replicas > 1 && tokens > 0) {
    metrics.token_imbalance =
        maxima[kNumMemoryCategories] * replicas / tokens - 1;
  }
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    metrics.peak_bytes[i] = static_cast<int64_t>(maxima[i]);
  }
  metrics.step_s = maxima.back();
  if (offload_.has_value()) {
    metrics.offload =
        OffloadFigures::FromNumbers(std::span(sums).subspan(kOffload));
  }
  return metrics;
}

}  // namespace trireme
