#include "trainer/sampling/loaded_run.h"

#include <cstdint>
#include <utility>

#include "models/sampling/diffusion_sampler.h"
#include "models/weights/tensor_source.h"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/config/textproto.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/run/class_names.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

absl::StatusOr<Plan> PlanToDrawUnder(const DrawOptions& options,
                                     const TrainingSetup& setup,
                                     int64_t ranks) {
  if (ranks == 1) return ResolvePlan(Plan(), PlanContextOf(setup, 1));
  Plan plan;
  const std::string path = RunFolder(options.run).plan();
  RETURN_IF_ERROR(ParseTextProtoFile(path, &plan).status());
  ASSIGN_OR_RETURN(const int64_t expected, RanksOf(plan));
  if (ranks != expected) {
    return InvalidArgument(
        "{}: found a plan for {} ranks, but {} draw; "
        "expected one rank, or as many as the plan's",
        path, expected, ranks);
  }
  return ResolvePlan(plan, PlanContextOf(setup, ranks));
}

}  // namespace

TrainingSetup SetupToDraw(TrainingSetup of_training) {
  of_training.float8 = {};
  return of_training;
}

absl::StatusOr<LoadedRun> LoadRun(const DrawOptions& options) {
  const RunFolder folder(options.run);
  LoadedRun loaded;
  RETURN_IF_ERROR(ParseTextProtoFile(folder.job(), &loaded.job).status());
  const auto names = ReadClassNames(folder);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  if (names.ok()) {
    loaded.class_names = *names;
    ASSIGN_OR_RETURN(
        loaded.setup,
        ResolveJob(loaded.job,
                   {.classes = static_cast<int64_t>(names->size())}));
  }
  // Text comes from samples, and so does what is compared with.
  if (!names.ok() || options.evaluate > 0 ||
      ReadsSamples(*loaded.setup.family)) {
    ASSIGN_OR_RETURN(loaded.dataset, OpenDataset(loaded.job.data()));
  }
  if (!names.ok()) {
    loaded.class_names = ClassNamesOf(*loaded.dataset);
    ASSIGN_OR_RETURN(loaded.setup,
                     ResolveJob(loaded.job, {loaded.dataset->size(),
                                             loaded.dataset->num_classes()}));
  }
  ASSIGN_OR_RETURN(loaded.held_out_voxels,
                   OpenHeldOutVoxels(*loaded.setup.family, loaded.job.data()));
  if (options.size.has_value()) {
    const auto sized = SetupAt(loaded.setup, loaded.job, *options.size);
    RETURN_IF_ERROR(WithContext(sized.status(), "size"));
    loaded.setup = *sized;
  }
  loaded.setup = SetupToDraw(std::move(loaded.setup));
  return loaded;
}

absl::StatusOr<std::string> ChooseCheckpoint(Communicator& everyone,
                                             Control& control,
                                             const DrawOptions& options) {
  const std::string folder = RunFolder(options.run).checkpoints();
  absl::StatusOr<std::string> chosen = "";
  if (control.rank() == 0) {
    chosen = options.checkpoint.has_value() ? *options.checkpoint
                                            : LatestCheckpoint(folder);
    if (chosen.ok()) {
      const absl::Status whole = VerifyChecksums(*chosen, options.stop);
      if (!whole.ok()) chosen = whole;
    }
  }
  // Rank 0 reads all of a checkpoint, which takes what it takes.
  AwaitAllPatiently(everyone, "choosing a checkpoint");
  RETURN_IF_ERROR(control.Agree(chosen.status(), "choosing a checkpoint"));
  control.Broadcast(*chosen, "rank 0's checkpoint");
  return chosen;
}

absl::StatusOr<SamplerOptions> SamplingFor(const DrawOptions& options,
                                           const LoadedRun& loaded) {
  SamplerOptions sampling = SamplingOf(loaded.job.sample(), loaded.setup);
  sampling.solver = options.solver.value_or(sampling.solver);
  sampling.steps = options.steps.value_or(sampling.steps);
  sampling.guidance = options.guidance.value_or(sampling.guidance);
  TokenChoice& tokens = sampling.tokens;
  tokens.temperature = options.temperature.value_or(tokens.temperature);
  tokens.top_k = options.top_k.value_or(tokens.top_k);
  tokens.top_p = options.top_p.value_or(tokens.top_p);
  RETURN_IF_ERROR(
      CheckSampling(sampling, loaded.setup.objective->noise_schedule()));
  return sampling;
}

absl::StatusOr<std::unique_ptr<Sampler>> OpenSampler(
    const DrawOptions& options, const LoadedRun& loaded,
    const std::string& checkpoint, Device& device, CommunicatorFactory& factory,
    Control& control) {
  const absl::StatusOr<Plan> plan =
      PlanToDrawUnder(options, loaded.setup, factory.world_size());
  RETURN_IF_ERROR(control.Agree(plan.status(), "the plan to draw under"));
  absl::StatusOr<std::unique_ptr<Sampler>> sampler =
      Sampler::Create(loaded.setup, *plan, device, factory);
  RETURN_IF_ERROR(control.Agree(sampler.status(), "building the model"));
  const std::string ema = checkpoint + "/" + kEmaFile;
  const bool use_ema = options.ema && StoredTensors::Exist(ema);
  const auto source = OpenWeights(checkpoint, use_ema, *loaded.setup.family);
  RETURN_IF_ERROR(control.Agree(source.status(), "opening the weights"));
  (*sampler)->StopWhen(options.stop);
  RETURN_IF_ERROR((*sampler)->LoadWeights(**source));
  return sampler;
}

}  // namespace trireme
