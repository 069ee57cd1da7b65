#include "trainer/describe.h"

#include <memory>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "trainer/model_parameters.h"
#include "trainer/model_shape_of.h"
#include "trainer/rank_model.h"

namespace trireme {
namespace {

// "33.0 M", "1.2 G".
std::string Short(double value) {
  if (value >= 1e12) return fmt::format("{:.2f} T", value / 1e12);
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  return fmt::format("{:.2f} M", value / 1e6);
}

std::string KeptIn(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat8:
      return ", kept in FP8";
    case WeightFormat::kNormalFloat4:
      return ", kept in NF4";
    case WeightFormat::kFull:
      return "";
  }
  return "";
}

}  // namespace

int64_t CountParameters(const TrainingSetup& setup) {
  return ParametersOf(*setup.family, {}).elements;
}

std::string DescribeSetup(const TrainingSetup& setup, const Plan& plan,
                          const DataSummary& data) {
  const ModelShape shape = ModelShapeOf(setup);
  std::string text =
      fmt::format("model  {}; {}parameters in {}\n", setup.family->Describe(),
                  Short(static_cast<double>(CountParameters(setup))),
                  DTypeName(setup.dtype));
  if (!setup.trained.all()) {
    const TrainedParameters& trained = setup.trained;
    text += fmt::format(
        "train  {}parameters{}, on the weights of {}{}\n",
        Short(static_cast<double>(
            ParametersOf(*setup.family, trained).trained_elements)),
        trained.kind == TrainedParameters::Kind::kAdapters
            ? fmt::format(" of {}adapters of rank {}",
                          trained.decompose ? "decomposing " : "", trained.rank)
            : "",
        setup.base.weights, KeptIn(trained.frozen));
  }
  text += fmt::format(
      "flops  {}FLOP per sample: products of the blocks, forward and "
      "backward\n",
      Short(ModelTrainingFlops(shape)));
  text += fmt::format("data   {} samples in {} classes\n", data.samples,
                      data.classes);
  for (size_t b = 0; b < data.bucket_samples.size(); ++b) {
    const SizedFamily& sized = setup.buckets[b];
    text += fmt::format("size   {}x{}: {} samples of {} tokens\n",
                        sized.size.height, sized.size.width,
                        data.bucket_samples[b], sized.family->Shape().tokens);
  }
  text += fmt::format("plan   {}\n", Summary(plan));
  return text;
}

absl::StatusOr<std::vector<MemoryStatistics>> PredictMemoryOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal) {
  std::vector<MemoryStatistics> memory(NumRanks(plan));
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    ASSIGN_OR_RETURN(memory[rank],
                     RankModel::PredictMemory(
                         setup, plan, static_cast<int>(rank), kind, rehearsal));
  }
  return memory;
}

std::string DescribeMemory(const std::vector<MemoryStatistics>& memory) {
  std::string text = "rank        peak  at the peak\n";
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    text += fmt::format("{:>4}  {:>10}  {}\n", rank,
                        BytesText(memory[rank].peak_bytes),
                        MemoryText(memory[rank].at_peak_by_category));
  }
  return text;
}

}  // namespace trireme
