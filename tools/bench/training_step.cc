#include "tools/bench/training_step.h"

#include <omp.h>

#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "benchmark/benchmark.h"
#include "google/protobuf/text_format.h"
#include "models/data_format.h"
#include "models/family.h"
#include "models/resolve.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "tools/bench/random.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/training_setup.h"

namespace trireme {
namespace {

constexpr char kDit[] = "dit_s2";
constexpr char kMmdit[] = "mmdit_h512";

// As peer_dit.py and peer_mmdit.py have them.
struct TrainedModel {
  std::string_view name;
  int64_t batch = 0;
  DataFormat data;
  std::string_view model;  // a Model as text
};

const TrainedModel kModels[] = {
    {.name = kDit,
     .batch = 8,
     .data = {.channels = 4, .resolution = 32, .classes = 1000},
     .model = "dit { preset: S }"},
    {.name = kMmdit,
     .batch = 4,
     .data = {.channels = 16, .resolution = 32},
     .model = R"(mmdit {
       hidden: 512 dual_layers: 4 single_layers: 8 heads: 8
       rope_axes: [ 8, 28, 28 ]
       text { tokens: 64 width: 1024 pooled_width: 512 }
     })"}};

absl::StatusOr<TrainingSetup> SetupOf(const TrainedModel& trained,
                                      DType dtype) {
  Model model;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      std::string(trained.model), &model))
      << trained.name;
  TrainingSetup setup;
  ASSIGN_OR_RETURN(setup.family, ResolveModel(model, trained.data));
  ObjectiveConfig objective;
  ASSIGN_OR_RETURN(const ResolvedObjective resolved,
                   ResolveObjective(objective, setup.family->samples(),
                                    /*seed=*/0, trained.batch,
                                    {setup.family->Shape().tokens}));
  setup.objective = resolved.training;
  setup.dtype = dtype;
  setup.global_batch = trained.batch;
  return setup;
}

// Of classes 0, 1, .., and with all the tokens of text that there may be.
Batch RandomBatch(const TrainingSetup& setup, Device& device) {
  const int64_t samples = setup.global_batch;
  Batch batch;
  batch.samples.resize(samples);
  std::iota(batch.samples.begin(), batch.samples.end(), 0);
  for (const FieldSpec& spec : AllFields(*setup.family)) {
    Tensor& values = batch.fields[spec.name].values;
    if (spec.dtype == DType::kFloat32) {
      values = RandomTensor(device, spec.ShapeOf(samples), DType::kFloat32);
      continue;
    }
    std::vector<int32_t> numbers(samples, static_cast<int32_t>(spec.typical));
    if (spec.name == kLabelField) std::iota(numbers.begin(), numbers.end(), 0);
    values = Tensor::FromValues<int32_t>(device, {samples}, numbers);
  }
  return batch;
}

// A model in training.
class Training {
 public:
  static absl::StatusOr<std::unique_ptr<Training>> Build(
      const TrainedModel& trained, Device& device, DType dtype) {
    auto training = std::unique_ptr<Training>(new Training);
    ASSIGN_OR_RETURN(const TrainingSetup setup, SetupOf(trained, dtype));
    PlanContext context;
    context.global_batch = setup.global_batch;
    context.num_blocks = setup.family->Shape().layers;
    context.heads = setup.family->Shape().heads;
    ASSIGN_OR_RETURN(const Plan plan, ResolvePlan(Plan(), context));
    ASSIGN_OR_RETURN(training->model_,
                     RankModel::Build(setup, plan, device, training->world_));
    training->batch_ = RandomBatch(setup, device);
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

absl::Status Run(benchmark::State& state, const BenchSetting& setting,
                 const TrainedModel& trained) {
  omp_set_num_threads(setting.threads);
  ASSIGN_OR_RETURN(const std::unique_ptr<Training> training,
                   Training::Build(trained, *setting.device, setting.dtype));
  // The first steps generate kernels and touch the memory.
  for (int i = 0; i < 2; ++i) RETURN_IF_ERROR(training->Step());
  setting.device->ResetPeak();
  for (auto _ : state) RETURN_IF_ERROR(training->Step());
  auto rate = [](double per_step) {
    return benchmark::Counter(per_step,
                              benchmark::Counter::kIsIterationInvariantRate);
  };
  const auto batch = static_cast<double>(trained.batch);
  state.counters["samples_per_s"] = rate(batch);
  state.counters["gflops"] =
      rate(batch * ModelTrainingFlops(training->shape()) * 1e-9);
  state.counters["peak_bytes"] =
      static_cast<double>(setting.device->Statistics().peak_bytes);
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string_view> TrainedModels() {
  std::vector<std::string_view> names;
  for (const TrainedModel& trained : kModels) names.push_back(trained.name);
  return names;
}

void RegisterTrainingSteps(const BenchSetting& setting) {
  for (const TrainedModel& trained : kModels) {
    benchmark::RegisterBenchmark(
        setting.Prefix(std::string(trained.name)).c_str(),
        [setting, &trained](benchmark::State& state) {
          const absl::Status status = Run(state, setting, trained);
          if (status.ok()) return;
          state.SkipWithError(std::string(status.message()).c_str());
        })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(3);
  }
}

void AddGemmFraction(const BenchSetting& setting, Figures* figures) {
  const std::string step = setting.Prefix(kDit);
  const std::optional<double> gflops = Find(*figures, step + ".gflops");
  const std::optional<double> ceiling =
      Find(*figures, setting.Prefix("gemm") + ".gflops");
  if (!gflops.has_value() || !ceiling.has_value()) return;
  (*figures)[step + ".gemm_fraction"] = *gflops / *ceiling;
}

}  // namespace trireme
