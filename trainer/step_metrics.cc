#include "trainer/step_metrics.h"

#include <array>

namespace trireme {
namespace {

constexpr std::array<const char*, 5> kCauses = {"data", "tp", "pp", "dp",
                                                "optimizer"};
constexpr char kTensorPurpose[] = "tp activations";

}  // namespace

nlohmann::ordered_json ToJson(const StepMetrics& metrics) {
  nlohmann::ordered_json peak = nlohmann::ordered_json::object();
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    peak[std::string(MemoryCategoryName(static_cast<MemoryCategory>(i)))] =
        metrics.peak_bytes[i];
  }
  nlohmann::ordered_json exposed = nlohmann::ordered_json::object();
  for (const char* cause : kCauses)
    exposed[cause] = metrics.exposed_s.at(cause);
  return {{"step", metrics.step},
          {"loss", metrics.loss},
          {"grad_norm", metrics.gradient_norm},
          {"lr", metrics.learning_rate},
          {"step_s", metrics.step_s},
          {"samples_per_s", metrics.samples_per_s()},
          {"model_flops_per_s", metrics.model_flops_per_s()},
          {"peak_bytes", peak},
          {"exposed_s", exposed}};
}

std::vector<std::pair<std::string, double>> ToScalars(
    const StepMetrics& metrics) {
  std::vector<std::pair<std::string, double>> scalars = {
      {"train/loss", metrics.loss},
      {"train/grad_norm", metrics.gradient_norm},
      {"train/learning_rate", metrics.learning_rate},
      {"speed/step_s", metrics.step_s},
      {"speed/samples_per_s", metrics.samples_per_s()},
      {"speed/model_flops_per_s", metrics.model_flops_per_s()}};
  for (const auto& [cause, seconds] : metrics.exposed_s) {
    scalars.emplace_back("exposed_s/" + cause, seconds);
  }
  return scalars;
}

StepMetrics StepMetricsCollector::Collect(const GlobalStepResult& result,
                                          double data_s, double step_s) {
  ParallelContext& context = model_.context();
  Device& device = context.device();
  Communicator& world = context.communicators().world();
  const auto statistics = context.communicators().Statistics();
  const auto tensor = statistics.find(kTensorPurpose);
  const double exposed_tensor =
      tensor == statistics.end() ? 0 : tensor->second.exposed_seconds;
  const std::array<double, 5> causes = {
      data_s, exposed_tensor - exposed_tensor_before_,
      result.times.pipeline_wait, result.times.gradient_wait,
      result.times.optimizer};
  exposed_tensor_before_ = exposed_tensor;
  const Tensor sums = Tensor::FromValues<double>(
      device, {5}, causes, MemoryCategory::kCommunication, "metrics");
  const MemoryStatistics memory = device.Statistics();
  std::array<double, kNumMemoryCategories + 1> highest;
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    highest[i] = static_cast<double>(memory.peak_by_category[i]);
  }
  highest.back() = step_s;
  const Tensor maxima =
      Tensor::FromValues<double>(device, {kNumMemoryCategories + 1}, highest,
                                 MemoryCategory::kCommunication, "metrics");
  Event sum = world.AllReduce(sums, ReduceOp::kSum, "metrics");
  Event max = world.AllReduce(maxima, ReduceOp::kMax, "metrics");
  sum.Wait();
  max.Wait();

  StepMetrics metrics;
  metrics.loss = result.loss;
  metrics.gradient_norm = result.gradient_norm;
  metrics.samples = model_.setup().global_batch;
  metrics.model_flops = DitTrainingFlops(model_.setup().model) *
                        static_cast<double>(metrics.samples);
  if (device.dry()) return metrics;
  for (size_t i = 0; i < kCauses.size(); ++i) {
    metrics.exposed_s[kCauses[i]] = sums.data<double>()[i] / world.size();
  }
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    metrics.peak_bytes[i] = static_cast<int64_t>(maxima.data<double>()[i]);
  }
  metrics.step_s = maxima.data<double>()[kNumMemoryCategories];
  return metrics;
}

}  // namespace trireme
