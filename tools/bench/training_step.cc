#include "tools/bench/training_step.h"

#include <omp.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "models/resolve.h"
#include "runtime/comm/single.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "tools/bench/random.h"
#include "trainer/model_shape_of.h"
#include "trainer/rank_model.h"
#include "trainer/training_setup.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 8, kChannels = 4, kSide = 32, kClasses = 1000;

absl::StatusOr<TrainingSetup> Setup(DType dtype) {
  Model model;
  model.mutable_dit()->set_preset(Dit::S);
  TrainingSetup setup;
  ASSIGN_OR_RETURN(setup.family, ResolveModel(model, {.channels = kChannels,
                                                      .resolution = kSide,
                                                      .classes = kClasses}));
  ObjectiveConfig objective;
  ASSIGN_OR_RETURN(
      const ResolvedObjective resolved,
      ResolveObjective(objective, setup.family->samples(),
                       /*seed=*/0, kBatch, {setup.family->Shape().tokens}));
  setup.objective = resolved.training;
  setup.dtype = dtype;
  setup.global_batch = kBatch;
  return setup;
}

Batch RandomBatch(Device& device) {
  Batch batch;
  batch.samples.resize(kBatch);
  std::iota(batch.samples.begin(), batch.samples.end(), 0);
  batch.fields[kPixelsField].values =
      RandomTensor(device, {kBatch, kChannels, kSide, kSide}, DType::kFloat32);
  std::vector<int32_t> labels(kBatch);
  std::iota(labels.begin(), labels.end(), 0);
  batch.fields[kLabelField].values =
      Tensor::FromValues<int32_t>(device, {kBatch}, labels);
  return batch;
}

// A model in training.
class Training {
 public:
  static absl::StatusOr<std::unique_ptr<Training>> Build(Device& device,
                                                         DType dtype) {
    auto training = std::unique_ptr<Training>(new Training);
    ASSIGN_OR_RETURN(const TrainingSetup setup, Setup(dtype));
    PlanContext context;
    context.global_batch = kBatch;
    context.num_blocks = setup.family->Shape().layers;
    context.heads = setup.family->Shape().heads;
    ASSIGN_OR_RETURN(const Plan plan, ResolvePlan(Plan(), context));
    ASSIGN_OR_RETURN(training->model_,
                     RankModel::Build(setup, plan, device, training->world_));
    training->batch_ = RandomBatch(device);
    return training;
  }

  absl::Status Step() {
    batch_.step = ++step_;
    StepOptions options;
    options.step = step_;
    options.learning_rate = 1e-4;
    return model_->Step(batch_, options).status();
  }

  ModelShape shape() const { return ModelShapeOf(model_->setup()); }

 private:
  Training() = default;

  SingleWorld world_;
  std::unique_ptr<RankModel> model_;
  Batch batch_;
  int64_t step_ = 0;
};

absl::Status Run(benchmark::State& state, const BenchSetting& setting) {
  omp_set_num_threads(setting.threads);
  ASSIGN_OR_RETURN(const std::unique_ptr<Training> training,
                   Training::Build(*setting.device, setting.dtype));
  // The first steps generate kernels and touch the memory.
  for (int i = 0; i < 2; ++i) RETURN_IF_ERROR(training->Step());
  setting.device->ResetPeak();
  for (auto _ : state) RETURN_IF_ERROR(training->Step());
  auto rate = [](double per_step) {
    return benchmark::Counter(per_step,
                              benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["samples_per_s"] = rate(kBatch);
  state.counters["gflops"] =
      rate(kBatch * ModelTrainingFlops(training->shape()) * 1e-9);
  state.counters["peak_bytes"] =
      static_cast<double>(setting.device->Statistics().peak_bytes);
  return absl::OkStatus();
}

}  // namespace

void RegisterTrainingStep(const BenchSetting& setting) {
  benchmark::RegisterBenchmark(
      setting.Prefix("dit_s2").c_str(),
      [setting](benchmark::State& state) {
        if (const absl::Status status = Run(state, setting); !status.ok()) {
          state.SkipWithError(std::string(status.message()).c_str());
        }
      })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(3);
}

void AddGemmFraction(const BenchSetting& setting, Figures* figures) {
  const std::string step = setting.Prefix("dit_s2");
  const std::optional<double> gflops = Find(*figures, step + ".gflops");
  const std::optional<double> ceiling =
      Find(*figures, setting.Prefix("gemm") + ".gflops");
  if (!gflops.has_value() || !ceiling.has_value()) return;
  (*figures)[step + ".gemm_fraction"] = *gflops / *ceiling;
}

}  // namespace trireme
